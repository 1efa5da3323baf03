"""Runs a node's calls: decodes the arguments, finds the lane, makes the replies. Knows nothing of Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from easyremote.errors import CallError, DeadlineExceeded, EasyRemoteError, PayloadTooLarge, RemoteError
from easyremote.inference.lanes import Lane
from easyremote.topics.records import Reply, TimingsMs
from easyremote.topics.replying import encode_reply, error_body

if TYPE_CHECKING:
    from easyremote.inference.functions import Function
    from easyremote.inference.node import AINodeManager
    from easyremote.topics.wire import Call

__all__ = ["Executor", "Job", "Outcome"]

log = structlog.get_logger(__name__)

_FUNCTION_THREADS = 4
_MODEL_BATCH = 32
_QUICK_BATCH = 64
_QUICK_MS = 0.5
"""Waking a thread costs about as much as such a function, so one thread takes all that wait."""


def _wall_ms() -> float:
    return time.time_ns() / 1e6


@dataclass(slots=True)
class Job:
    """One call on its way through a node."""

    call: Call
    partition: int
    generation: int
    offset: int
    arrived_ms: float
    started_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: its encoded reply, and the error that the reply tells, if it tells one."""

    reply: bytes
    error: BaseException | None = None


class Executor:
    """Runs jobs and reports each one's encoded reply.

    Parameters
    ----------
    node : AINodeManager
        The functions.
    node_id : str
        Named in the replies.
    max_payload_bytes : int
        Largest reply, bytes.
    answer : callable
        `(job, outcome)`: takes every job's outcome, on whichever thread made it.
    wanted : callable
        `(job) -> bool`: asked right before a job is run; one that is not wanted ends without a reply.
    failed : callable
        Told of an error of this program itself.
    """

    def __init__(  # all of them are needed, and only one place calls it
        self,
        node: AINodeManager,
        node_id: str,
        max_payload_bytes: int,
        answer: Callable[[Job, Outcome], None],
        wanted: Callable[[Job], bool],
        failed: Callable[[Exception], None],
    ) -> None:
        self._node = node
        self._node_id = node_id
        self._max_payload_bytes = max_payload_bytes
        self._answer = answer
        self._wanted = wanted
        self._loop: asyncio.AbstractEventLoop | None = None
        self._functions: Lane[Job] = Lane("functions", self._run_each, failed, threads=_FUNCTION_THREADS)
        self._quick: Lane[Job] = Lane("quick functions", self._run_each, failed, max_batch=_QUICK_BATCH)
        self._models: dict[str, Lane[Job]] = {
            model.name: Lane(model.name, self._run_together, failed, max_batch=_MODEL_BATCH) for model in node.models
        }

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say on which event loop coroutine functions run."""
        self._loop = loop

    def put(self, job: Job) -> None:
        """Queue a job on its function's lane; a call of a function that is not here is answered at once."""
        try:
            function = self._node.registry.get(job.call.function)
        except CallError as error:
            self._fail(job, error)
            return
        lane = self._quick if self._node.stats.is_quick(function.name, _QUICK_MS) else self._functions
        if function.many is not None and function.model is not None:
            lane = self._models[function.model]
        lane.put(job)

    def close(self, timeout_s: float) -> bool:
        """Finish what is queued; say whether all ended in time."""
        lanes = [self._functions, self._quick, *self._models.values()]
        return all([lane.close(timeout_s) for lane in lanes])  # noqa: C419  # every lane is closed, whatever one says

    def _starts(self, job: Job) -> bool:
        if not self._wanted(job):
            return False
        job.started_ms = _wall_ms()
        if job.call.is_late(job.started_ms):
            late_ms = job.started_ms - (job.call.deadline_ms or 0)
            self._fail(job, DeadlineExceeded(f"the deadline passed {late_ms:.0f} ms before {job.call.function} ran"))
            return False
        return True

    def _run_each(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if self._starts(job):
                self._run(job, self._node.registry.get(job.call.function))

    def _run(self, job: Job, function: Function) -> None:
        try:
            args, kwargs = function.arguments(job.call.args, job.call.kwargs)
            if function.is_async and self._loop is not None:
                future = asyncio.run_coroutine_threadsafe(function.call(*args, **kwargs), self._loop)
                future.add_done_callback(lambda done: self._ended(job, function, done))
                return
            result = function.call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # a user's function may raise anything, and its caller is told
            self._fail(job, error)
        else:
            self._succeed(job, function, result)

    def _ended(self, job: Job, function: Function, done: Any) -> None:
        error = done.exception()
        if error is None:
            self._succeed(job, function, done.result())
        else:
            self._fail(job, error)

    def _run_together(self, jobs: Sequence[Job]) -> None:
        by_function: dict[str, list[tuple[Job, Any]]] = {}
        for job in jobs:
            if not self._starts(job):
                continue
            function = self._node.registry.get(job.call.function)
            try:
                args, kwargs = function.arguments(job.call.args, job.call.kwargs)
            except CallError as error:
                self._fail(job, error)
            else:
                argument = args[0] if args else next(iter(kwargs.values()))
                by_function.setdefault(function.name, []).append((job, argument))
        for name, group in by_function.items():
            self._run_group(self._node.registry.get(name), group)

    def _run_group(self, function: Function, group: list[tuple[Job, Any]]) -> None:
        if function.many is None:
            raise CallError(f"{function.name} does not take calls together")
        try:
            results = function.many([argument for _, argument in group])
        except Exception as error:  # noqa: BLE001  # a model may raise anything, and its callers are told
            for job, _ in group:
                self._fail(job, error)
            return
        for (job, _), result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                self._fail(job, result)
            else:
                self._succeed(job, function, result, shared_by=len(group))

    def _succeed(self, job: Job, function: Function, result: Any, shared_by: int = 1) -> None:
        timings = self._timings(job)
        model = self._node.model(function.model)
        reply = Reply(
            id=job.call.id,
            function=function.name,
            status="ok",
            result=result,
            node_id=self._node_id,
            model=None if model is None else model.name,
            model_version=None if model is None else model.version,
            attempts=job.call.attempt,
            timings_ms=timings,
        )
        try:
            value = encode_reply(reply)
        except (TypeError, ValueError, msgspec.MsgspecError, RecursionError) as error:
            self._fail(job, RemoteError(str(error), type="UnencodableResult"))
            return
        if len(value) > self._max_payload_bytes:
            self._fail(
                job,
                PayloadTooLarge(
                    f"the result of {function.name} has {len(value)} bytes, the limit is {self._max_payload_bytes} "
                    "bytes (EASYREMOTE_MAX_PAYLOAD_BYTES)"
                ),
            )
            return
        self._node.stats.record(function.name, timings.executed / 1000 / shared_by, ok=True)
        self._answer(job, Outcome(value))

    def _fail(self, job: Job, error: BaseException) -> None:
        if not isinstance(error, EasyRemoteError):
            log.warning("a function raised", function=job.call.function, call=job.call.id, error=repr(error))
        timings = self._timings(job)
        self._node.stats.record(job.call.function, timings.executed / 1000, ok=False)
        reply = Reply(
            id=job.call.id,
            function=job.call.function,
            status="error",
            error=error_body(error),
            node_id=self._node_id,
            model=None,
            model_version=None,
            attempts=job.call.attempt,
            timings_ms=timings,
        )
        self._answer(job, Outcome(encode_reply(reply), error))

    def _timings(self, job: Job) -> TimingsMs:
        now = _wall_ms()
        call = job.call
        routed_at = call.routed_ms if call.routed_ms is not None else call.sent_ms
        started = job.started_ms or now
        return TimingsMs(
            queued=_between(call.sent_ms, routed_at),
            routed=_between(routed_at, job.arrived_ms),
            waited=_between(job.arrived_ms, started),
            executed=_between(started, now),
            total=_between(call.sent_ms, now),
        )


def _between(start_ms: float, end_ms: float) -> float:
    # To the microsecond; the clocks of two machines may make it negative.
    return int((end_ms - start_ms) * 1000) / 1000 if end_ms > start_ms else 0.0
