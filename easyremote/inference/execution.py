"""Runs a node's calls: finds the lane of each, decodes its arguments, tells its outcome. Knows nothing of Kafka."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from easyremote.errors import CallError, DeadlineExceeded, UnknownFunction
from easyremote.inference.batcher import Batcher
from easyremote.inference.forward import run_halving
from easyremote.inference.jobs import Job, Outcome
from easyremote.inference.lanes import Hand, Lane
from easyremote.inference.models.base import BaseAIModel
from easyremote.inference.queues import Fifo, Ranked
from easyremote.inference.replies import ReplyMaker, wall_ms

if TYPE_CHECKING:
    from easyremote.inference.functions import Function
    from easyremote.inference.node import AINodeManager

__all__ = ["Executor", "Job", "Outcome"]

_FUNCTION_THREADS = 4
_QUICK_BATCH = 64
_QUICK_MS = 0.5
"""Waking a thread costs about as much as such a function, so one thread takes all that wait."""
_ANY_BYTES = 1 << 62


class Executor:
    """Runs jobs and reports each one's outcome, exactly once.

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
        `(job) -> bool`: asked once, right before a job is run or answered without having run; one that is not wanted
        ends without a reply.
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
        self._answer = answer
        self._wanted = wanted
        self._failed = failed
        self._replies = ReplyMaker(node, node_id, max_payload_bytes)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._functions = Lane(
            "functions",
            Ranked(Batcher(max_items=1, max_bytes=_ANY_BYTES), self._expire, wall_ms),
            self._run_each,
            failed,
            threads=_FUNCTION_THREADS,
        )
        self._quick = Lane("quick functions", Fifo(_QUICK_BATCH), self._run_each, failed)
        self._models: dict[str, Lane] = {}
        for model in node.models:
            self.add_model(model)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say on which event loop coroutine functions run."""
        self._loop = loop

    def add_model(self, model: BaseAIModel) -> None:
        """Give a model a lane of its own; callable from any thread, while calls run.

        The lane finds the model by its functions' names at each pass, so one that takes another's name and functions
        needs no lane of its own.
        """
        batcher: Batcher[Job] = Batcher(max_items=model.max_batch, max_bytes=model.max_batch_bytes)
        queue = Ranked(batcher, self._expire, wall_ms, self._batch_key(model))
        self._models[model.name] = Lane(model.name, queue, self._run_together, self._failed)

    def remove_model(self, name: str, timeout_s: float) -> bool:
        """Finish what waits for a model and end its lane; say whether that was done in time.

        Calls of its functions that come later are answered `UnknownFunction`.
        """
        lane = self._models.pop(name, None)
        return lane is None or lane.close(timeout_s)

    def put(self, job: Job) -> None:
        """Queue a job on its function's lane; a call of a function that is not here is answered at once."""
        try:
            function = self._node.registry.get(job.call.function)
        except CallError as error:
            self._fail(job, error)
            return
        lane: Lane | None
        if function.many is not None and function.model is not None:
            lane = self._models.get(function.model)
        else:
            lane = self._quick if self._node.stats.is_quick(function.name, _QUICK_MS) else self._functions
        if lane is None or not lane.put(job):
            self._fail(job, UnknownFunction(f"the model of {function.name} has just been unloaded from this node"))

    def close(self, timeout_s: float) -> bool:
        """Finish what is queued; say whether all ended in time."""
        lanes = [self._functions, self._quick, *self._models.values()]
        return all([lane.close(timeout_s) for lane in lanes])  # noqa: C419  # every lane is closed, whatever one says

    def _batch_key(self, model: BaseAIModel) -> Callable[[Job], Hashable]:
        if type(model).batch_key is BaseAIModel.batch_key:
            return lambda _job: None

        def key(job: Job) -> Hashable:
            try:
                return model.batch_key(self._argument(job, self._node.registry.get(job.call.function)))
            except Exception:  # noqa: BLE001  # the pass will say what is wrong with this input
                return None

        return key

    @staticmethod
    def _argument(job: Job, function: Function) -> Any:  # Any: as the function takes it
        if job.argument is None:
            args, kwargs = function.arguments(job.call.args, job.call.kwargs)
            job.argument = args[0] if args else next(iter(kwargs.values()))
        return job.argument

    def _starts(self, job: Job, hand: Hand) -> bool:
        with self._lock:
            if job.ended or hand.given_up:
                return False
            first, job.begun = not job.begun, True
            hand.doing = job
        if first and not self._wanted(job):
            return False
        job.started_ms = wall_ms()
        if job.call.is_late(job.started_ms):
            self._expire(job)
            return False
        return True

    def _ends(self, job: Job) -> bool:
        # Who gets True tells the outcome; nobody else does.
        with self._lock:
            if job.ended:
                return False
            job.ended = True
            first, job.begun = not job.begun, True
        return not first or self._wanted(job)

    def _expire(self, job: Job) -> None:
        late_ms = wall_ms() - (job.call.deadline_ms or 0)
        self._fail(job, DeadlineExceeded(f"the deadline passed {late_ms:.0f} ms before {job.call.function} ran"))

    def _run_each(self, jobs: Sequence[Job], hand: Hand) -> None:
        for job in jobs:
            if self._starts(job, hand):
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

    def _run_together(self, jobs: Sequence[Job], hand: Hand) -> None:
        by_function: dict[str, list[tuple[Job, Any]]] = {}
        for job in jobs:
            if not self._starts(job, hand):
                continue
            try:
                function = self._node.registry.get(job.call.function)
                by_function.setdefault(function.name, []).append((job, self._argument(job, function)))
            except CallError as error:
                self._fail(job, error)
        for name, group in by_function.items():
            hand.doing = [job for job, _ in group]
            self._run_group(self._node.registry.get(name), group)

    def _run_group(self, function: Function, group: list[tuple[Job, Any]]) -> None:
        if function.many is None:
            raise CallError(f"{function.name} does not take calls together")
        results = run_halving(function.many, [argument for _, argument in group])
        for (job, _), result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                self._fail(job, result)
            else:
                self._succeed(job, function, result, shared_by=len(group))

    def _succeed(self, job: Job, function: Function, result: Any, shared_by: int = 1) -> None:
        if self._ends(job):
            self._answer(job, self._replies.success(job, function, result, shared_by))

    def _fail(self, job: Job, error: BaseException) -> None:
        if self._ends(job):
            self._answer(job, self._replies.failure(job, error))
