"""Runs what a lane has taken: begins each job once, and tells each job's outcome once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Container, Coroutine, Generator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from easyremote.clock import monotonic_s, wall_ms
from easyremote.errors import CallCancelled, CallError, DeadlineExceeded, NotOfferedHere
from easyremote.inference.forward import Poison, run_halving
from easyremote.inference.replies import ReplyMaker
from easyremote.inference.streaming import Collected, ItemSink, ItemStream, SendItem, drain, drain_async

if TYPE_CHECKING:
    from msgspec import Raw, UnsetType

    from easyremote.inference.functions import Function
    from easyremote.inference.jobs import Job, Outcome
    from easyremote.inference.lanes import Hand
    from easyremote.inference.node import AINodeManager
    from easyremote.topics.claims import ClaimDesk

__all__ = ["Runner"]

_NONE: frozenset[str] = frozenset()


class Runner:
    """Works jobs, on whichever thread has them.

    A job may be touched by its lane's thread, by who withdraws it and by who finds it hanging; whoever ends it first
    tells its outcome, and what comes later is dropped.

    Parameters
    ----------
    node : AINodeManager
        The functions.
    replies : ReplyMaker
        Makes the outcomes.
    desk : ClaimDesk
        Gives large arguments.
    answer : callable
        `(job, outcome)`: takes every job's outcome.
    wanted : callable
        `(job) -> bool`: asked once, before a job is run or answered without having run.
    send_item : SendItem, optional
        Sends the items of streams; unset: the items of every generator come in one reply.
    """

    def __init__(
        self,
        node: AINodeManager,
        replies: ReplyMaker,
        desk: ClaimDesk,
        answer: Callable[[Job, Outcome], None],
        wanted: Callable[[Job], bool],
        send_item: SendItem | None = None,
    ) -> None:
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.cancelled: Container[str] = _NONE
        self.on_loop: dict[Job, float] = {}
        """The jobs whose coroutines run on the event loop, each with when its step began, by the monotonic clock."""
        self.tasks: dict[asyncio.Task[Any], Job] = {}
        """What runs on the event loop, of calls that have ended too."""
        self._node = node
        self._replies = replies
        self._desk = desk
        self._answer = answer
        self._wanted = wanted
        self._send_item = send_item

    def run_each(self, jobs: Sequence[Job], hand: Hand) -> None:
        """Run jobs one after another."""
        for job in jobs:
            if self._starts(job, hand):
                self._run(job, hand)

    def run_together(self, jobs: Sequence[Job], hand: Hand) -> None:
        """Run jobs of a model in one pass for each of its functions."""
        by_function: dict[str, list[Job]] = {}
        for job in jobs:
            if self._starts(job, hand):
                by_function.setdefault(job.call.function, []).append(job)
        for name, group in by_function.items():
            with self.lock:
                if hand.given_up:
                    return
                hand.doing = group
            self._run_group(name, group)

    def succeed(self, job: Job, function: Function, result: Any, shared_by: int = 1, *, on_loop: bool = False) -> None:
        """Tell a job's result, unless its outcome is told; `on_loop` must not wait for the blob store."""
        if not self._ends(job):
            return
        outcome = self._replies.success(job, function, result, shared_by)
        claimed = outcome.claimed
        if claimed is None:
            self._answer(job, outcome)
        elif on_loop and self.loop is not None:
            self.loop.run_in_executor(None, lambda: self._answer(job, claimed()))
        else:
            self._answer(job, claimed())

    def fail(self, job: Job, error: BaseException, *, poison: bool = False) -> None:
        """Tell why a job has no result, unless its outcome is told; `poison` made a pass fail for others too."""
        if self._ends(job):
            outcome = self._replies.failure(job, error)
            self._answer(job, replace(outcome, poison=poison and not outcome.retriable))

    def refuse(self, job: Job, outcome: Outcome) -> None:
        """Tell the outcome of a job that is not to be run, made elsewhere, unless one is told."""
        if self._ends(job):
            self._answer(job, outcome)

    def expire(self, job: Job) -> None:
        """Tell that a job's deadline passed before it ran."""
        now_ms = wall_ms()
        late_ms, waited_ms = now_ms - (job.call.deadline_ms or 0), now_ms - job.arrived_ms
        where = f"{job.call.function} ran: it waited {waited_ms:.0f} ms on this node for its turn"
        self.fail(job, DeadlineExceeded(f"the deadline passed {late_ms:.0f} ms before {where}"))

    def cancel(self, job: Job) -> None:
        """Tell that a job was withdrawn, and stop it where it can be stopped."""
        self.fail(job, CallCancelled(f"the call of {job.call.function} was withdrawn"))
        self.stop(job)

    @staticmethod
    def stop(job: Job) -> None:
        """Stop what runs of a job that has ended, where it can be stopped."""
        stop = job.stop
        if stop is not None:
            stop()

    def run_on_loop(self, job: Job, work: Coroutine[Any, Any, Any], ended: Callable[[Future[Any]], None]) -> None:
        """Run a job's coroutine on the event loop; `ended` is told how it ended, there."""
        assert self.loop is not None
        self.on_loop[job] = monotonic_s()
        future = asyncio.run_coroutine_threadsafe(_contained(work, job, self.tasks), self.loop)
        job.stop = future.cancel

        def done(future: Future[Any]) -> None:
            self.on_loop.pop(job, None)
            ended(future)

        future.add_done_callback(done)
        if job.ended:
            future.cancel()  # withdrawn before it could be stopped

    def _starts(self, job: Job, hand: Hand) -> bool:
        with self.lock:
            if job.ended or hand.given_up:
                return False
            first, job.begun = not job.begun, True
            hand.doing = job
        if first and not self._wanted(job):
            return False
        job.started_ms = wall_ms()
        if job.call.is_late(job.started_ms):
            self.expire(job)
            return False
        if job.call.id in self.cancelled:
            self.cancel(job)
            return False
        return True

    def _ends(self, job: Job) -> bool:
        # Who gets True tells the outcome; nobody else does.
        with self.lock:
            if job.ended:
                return False
            job.ended = True
            first, job.begun = not job.begun, True
        if job.stream is not None:
            job.stream.settle()
        return not first or self._wanted(job)

    def _run(self, job: Job, hand: Hand) -> None:
        try:
            function = self._node.registry.get(job.call.function)
            given = self._desk.redeem(job.call)
            args, kwargs = function.arguments(given.args, given.kwargs)
            work = function.call(*args, **kwargs)
            items = self._items(job, function) if function.is_stream else None
            if function.is_async and self.loop is not None:
                if items is not None:
                    work = self._stream_on_loop(work, items)
                self.run_on_loop(job, work, lambda done: self._ended_on_loop(job, function, done))
                return
            result = work if items is None else self._stream(work, items, hand)
        except BaseException as error:  # noqa: BLE001  # a user's function may raise anything, and its caller is told
            self.fail(job, error)
        else:
            self.succeed(job, function, result)

    def _items(self, job: Job, function: Function) -> ItemSink:
        if not job.call.stream or self._send_item is None:
            return Collected(job, function, self._replies)
        job.stream = ItemStream(job, function, self._replies, self._send_item)
        return job.stream

    def _stream(self, generator: Generator[Any, Any, Any], items: ItemSink, hand: Hand) -> list[Raw] | UnsetType:
        if not drain(generator, items, hand):
            self._drop(items.job)
        return items.result

    async def _stream_on_loop(self, generator: AsyncGenerator[Any, Any], items: ItemSink) -> list[Raw] | UnsetType:
        if not await drain_async(generator, items):
            self._drop(items.job)
        return items.result

    def _drop(self, job: Job) -> None:
        # Its outcome is told already, or is not this node's to tell.
        with self.lock:
            job.ended = True

    def _ended_on_loop(self, job: Job, function: Function, done: Future[Any]) -> None:
        try:
            result = done.result()
        except CancelledError:
            self.fail(job, CallCancelled(f"{job.call.function} was cancelled on its node"))
            return
        except BaseException as error:  # noqa: BLE001  # as above
            self.fail(job, error)
            return
        if isinstance(result, _Raised):
            self.fail(job, result.error)
        else:
            self.succeed(job, function, result, on_loop=True)

    def _run_group(self, name: str, group: list[Job]) -> None:
        jobs, arguments = [], []
        try:
            function = self._node.registry.get(name)
        except CallError as error:
            for job in group:
                self.fail(job, error)
            return
        for job in group:
            try:
                arguments.append(argument_of(job, function, self._desk))
                jobs.append(job)
            except BaseException as error:  # noqa: BLE001  # a type of the user's may look at it, and raise anything
                self.fail(job, error)
        if function.many is None:
            for job in jobs:
                self.fail(job, NotOfferedHere(f"{function.name} does not take calls together on this node any more"))
            return
        results = run_halving(function.many, arguments) if jobs else []
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, Poison):
                self.fail(job, result.error, poison=True)
            elif isinstance(result, BaseException):
                self.fail(job, result)
            else:
                self.succeed(job, function, result, shared_by=len(jobs))


@dataclass(frozen=True, slots=True)
class _Raised:
    """What a coroutine raised: as a value, since some exceptions end the event loop that they come through."""

    error: BaseException


async def _contained(work: Coroutine[Any, Any, Any], job: Job, tasks: dict[asyncio.Task[Any], Job]) -> Any:
    task = asyncio.current_task()
    assert task is not None
    tasks[task] = job
    try:
        return await work
    except asyncio.CancelledError as error:
        if task.cancelling():
            raise
        return _Raised(error)  # nobody withdrew the call: something that it waited for was cancelled
    except BaseException as error:  # noqa: BLE001  # a user's function may raise anything, and its caller is told
        return _Raised(error)
    finally:
        del tasks[task]


def argument_of(job: Job, function: Function, desk: ClaimDesk) -> Any:  # Any: as the function takes it
    """Return the first argument of a job, decoded once; it waits for the blob store if the job has claims.

    Raises
    ------
    InvalidArguments
        If the function does not take the job's arguments.
    PayloadTooLarge, ClaimUnavailable
        If one that is in the store is too large, or not to be had.
    """
    if job.argument is None:
        given = desk.redeem(job.call)
        args, kwargs = function.arguments(given.args, given.kwargs)
        job.argument = args[0] if args else next(iter(kwargs.values()))
    return job.argument
