"""Runs a node's calls: finds the lane of each, withdraws it, gives up what hangs. Knows nothing of Kafka."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Container, Hashable, Sequence
from typing import TYPE_CHECKING

import structlog

from easyremote.clock import monotonic_s, wall_ms
from easyremote.errors import CallError, CallTimeout, NotOfferedHere
from easyremote.inference.batcher import Batcher
from easyremote.inference.coroutines import CoroutineLoop
from easyremote.inference.jobs import Job, Outcome
from easyremote.inference.lanes import Hand, Lane
from easyremote.inference.models.base import BaseAIModel
from easyremote.inference.passing import refuse_stray
from easyremote.inference.queues import Fifo, Ranked
from easyremote.inference.replies import ReplyMaker
from easyremote.inference.running import Runner, argument_of
from easyremote.inference.shares import Shares
from easyremote.inference.stalls import StallWatch, jobs_of
from easyremote.inference.streaming import SendItem
from easyremote.threads import LongThread
from easyremote.topics.claims import ClaimDesk

if TYPE_CHECKING:
    from easyremote.inference.node import AINodeManager
    from easyremote.settings import Settings

__all__ = ["Executor", "Job", "Outcome"]

log = structlog.get_logger(__name__)

_FUNCTION_SHARES = 8
_STREAM_SHARES = 4
"""One function may have the threads divided by this. A generator holds its thread until its end, so that streams have
threads of their own."""
_QUICK_BATCH = 64
_QUICK_MS = 0.5
"""Waking a thread costs about as much as such a function, so one thread takes all that wait."""
_HOLDS_UP_S = 0.1
"""After that time at one call that thread holds the others up, and another one takes them."""
_PASSES_END_S = 30.0
"""For the passes of a version that is replaced by one which may have fewer at once."""
_LOOK_S = 0.1
"""Between two looks for what hangs."""


class Executor:
    """Runs jobs and reports each one's outcome, exactly once.

    Parameters
    ----------
    settings : Settings
        The node's id, the largest reply, the limits of what hangs.
    node : AINodeManager
        The functions.
    answer : callable
        `(job, outcome)`: takes every job's outcome, on whichever thread made it.
    wanted : callable
        `(job) -> bool`: asked once, right before a job is run or answered without having run; one that is not wanted
        ends without a reply.
    failed : callable
        Told of an error of this program itself, and when so much hangs that it should end.
    send_item : SendItem, optional
        Sends the items of streams; unset: the items of every generator come in one reply.
    """

    def __init__(
        self,
        settings: Settings,
        node: AINodeManager,
        answer: Callable[[Job, Outcome], None],
        wanted: Callable[[Job], bool],
        failed: Callable[[Exception], None],
        send_item: SendItem | None = None,
    ) -> None:
        self._settings = settings
        self._node = node
        self._failed = failed
        self._desk = ClaimDesk(settings)
        replies = ReplyMaker(
            node, settings.node_id, settings.max_payload_bytes, self._desk, tracebacks=settings.tracebacks
        )
        self._runner = Runner(node, replies, self._desk, answer, wanted, send_item)
        self._functions = self._shared("functions", settings.function_threads, _FUNCTION_SHARES)
        self._streams = self._shared("streams", settings.stream_threads, _STREAM_SHARES)
        self._quick = Lane("quick functions", Fifo(_QUICK_BATCH), self._runner.run_each, failed)
        self._models: dict[str, tuple[Lane, Ranked]] = {}
        self._leaving: list[Lane] = []
        for model in node.models:
            self.add_model(model)
        self._coroutines: CoroutineLoop | None = None
        self._blocked: list[CoroutineLoop] = []
        self._closing = threading.Event()
        self._watch = LongThread(self._look_for_stalls, "call limits", stopping=self._closing)
        self._watch.start()

    def start(self, loop: asyncio.AbstractEventLoop | None = None, cancelled: Container[str] = frozenset()) -> None:
        """Say on which event loop coroutine functions run, and which calls were withdrawn before they came.

        Unset: on one of its own, which is replaced when a coroutine blocks it for longer than its limit.
        """
        if loop is None:
            self._coroutines = CoroutineLoop()
            loop = self._coroutines.loop
        self._runner.loop = loop
        self._runner.cancelled = cancelled

    def add_model(self, model: BaseAIModel) -> None:
        """Give a model that is to be offered a lane of its own, or its bounds to the lane that its name has.

        Callable from any thread, while calls run. The lane finds the model by its functions' names at each pass.
        Until `widen` it has no more passes at once than the version before it may have, or than itself.
        """
        known = self._models.get(model.name)
        if known is None:
            batcher: Batcher[Job] = Batcher(max_items=model.max_batch, max_bytes=model.max_batch_bytes)
            queue = Ranked(batcher, self._runner.expire, wall_ms, self._batch_key, model.instances)
            lane = Lane(model.name, queue, self._runner.run_together, self._failed, threads=model.instances)
            self._models[model.name] = lane, queue
            return
        _, queue = known
        queue.bound(model.max_batch, model.max_batch_bytes)
        if queue.at_once > model.instances and not queue.let_out(model.instances, _PASSES_END_S):
            log.warning("passes of the version before still run", model=model.name)

    def widen(self, model: BaseAIModel) -> None:
        """Let a model that is offered have all its passes at once: the version before it begins none any more."""
        lane, queue = self._models[model.name]
        lane.grow(model.instances)
        queue.let_out(model.instances)

    def remove_model(self, name: str, timeout_s: float) -> bool:
        """Finish what waits for a model and end its lane; say whether that was done in time.

        Calls of its functions that come later end as `NotOfferedHere`.
        """
        known = self._models.get(name)
        if known is None:
            return True
        lane, _ = known
        self._leaving.append(lane)  # what hangs in it is still given up
        del self._models[name]
        closed = lane.close(timeout_s)
        if closed:
            self._leaving.remove(lane)
        return closed

    def put(self, job: Job) -> None:
        """Queue a job on its function's lane; a call that is not for this node ends at once as `NotOfferedHere`."""
        if job.call.is_late(wall_ms()):
            self._runner.expire(job)
            return
        try:
            refuse_stray(job.call, self._settings.node_id, self._node.registry)
            function = self._node.registry.get(job.call.function)
        except CallError as error:
            self._runner.fail(job, error)
            return
        lane: Lane | None
        if function.many is not None and function.model is not None:
            known = self._models.get(function.model)
            lane = None if known is None else known[0]
        elif function.is_stream and not function.is_async:
            lane = self._streams
        else:
            is_quick = self._node.stats.is_quick(function.name, _QUICK_MS) and not self._quick.is_aside(function.name)
            lane = self._quick if is_quick else self._functions
        self._put_on(lane, job)

    def _put_on(self, lane: Lane | None, job: Job) -> None:
        if lane is None or not lane.put(job):
            unloaded = f"the model of {job.call.function} has just been unloaded from this node"
            self._runner.fail(job, NotOfferedHere(unloaded))

    def cancel(self, job: Job) -> None:
        """Withdraw a job: one that waits is not run, a coroutine is cancelled, a generator is closed at its next item.

        A plain function or a pass goes on.

        Its caller is told `CallCancelled` at once, whichever it is.
        """
        self._runner.cancel(job)

    def refuse(self, job: Job, outcome: Outcome) -> None:
        """End a job that is not to be run with an outcome, unless it has ended: it may be withdrawn meanwhile."""
        self._runner.refuse(job, outcome)

    @property
    def hung(self) -> int:
        """How many threads are past the limit of what they run and have not come back."""
        self._blocked = [one for one in self._blocked if one.is_stuck]
        return sum(lane.hung for lane in self._lanes()) + len(self._blocked)

    def close(self, timeout_s: float) -> bool:
        """Finish what is queued; say whether all ended in time."""
        deadline = monotonic_s() + timeout_s
        closed = [lane.close(max(0.0, deadline - monotonic_s())) for lane in self._lanes()]
        self._closing.set()
        self._watch.join(max(_LOOK_S, deadline - monotonic_s()))
        if self._coroutines is not None:
            closed.append(self._coroutines.close(max(_LOOK_S, deadline - monotonic_s())))
        return all(closed)

    def _lanes(self) -> list[Lane]:
        # Models come and go while others look.
        models = [lane for lane, _ in list(self._models.values())]
        return [self._functions, self._streams, self._quick, *models, *list(self._leaving)]

    def _shared(self, name: str, threads: int, shares: int) -> Lane:
        share = max(1, threads // shares)
        queue = Shares(self._runner.expire, wall_ms, threads=threads, share=share)
        return Lane(name, queue, self._runner.run_each, self._failed, threads=share, most=threads)

    def _batch_key(self, job: Job) -> Hashable:
        if job.call.claims:
            return job.call.id  # it would have to be fetched here; what is that large may as well go alone
        try:
            function = self._node.registry.get(job.call.function)
            model = self._node.model(function.model)
            if model is None or type(model).batch_key is BaseAIModel.batch_key:
                return None
            key = model.batch_key(argument_of(job, function, self._desk))
            hash(key)
        except BaseException:  # noqa: BLE001  # the pass will say what is wrong with this input
            return None
        return key

    def _limit_s(self, job: Job) -> float | None:
        limit_s: float | None = None
        try:
            function = self._node.registry.get(job.call.function)
        except CallError:
            pass  # it has been unloaded since: the common limit holds
        else:
            model = self._node.model(function.model)
            limit_s = function.limit_s if function.limit_s is not None or model is None else model.limit_s
        if limit_s is None:
            limit_s = self._settings.call_limit_s
        return limit_s or None

    def _look_for_stalls(self) -> None:
        watches = StallWatch(self._limit_s)
        holding_up = StallWatch(lambda _job: _HOLDS_UP_S)
        while not self._closing.wait(_LOOK_S):
            now_s = monotonic_s()
            lanes = self._lanes()
            for lane in lanes:
                lane.expire()
            by_hand = {hand: lane for lane in lanes for hand in lane.hands}
            for hand, doing in watches.stalled(by_hand, now_s):
                self._give_up(by_hand[hand], hand, doing)
            for hand, doing in holding_up.stalled((one for one in self._quick.hands if not one.given_up), now_s):
                self._set_aside(hand, doing)
            self._look_for_a_blocked_loop(now_s)
            for job, since_s in list(self._runner.on_loop.items()):
                limit_s = self._limit_s(job)
                if limit_s is not None and now_s - max(since_s, job.progress_s) > limit_s:
                    self._tell_timeout(job)
                    self._runner.stop(job)

    def _look_for_a_blocked_loop(self, now_s: float) -> None:
        blocked = self._coroutines
        if blocked is None or not (self._runner.tasks or blocked.is_stuck):
            return
        stuck_s, task = blocked.stuck_s(now_s), blocked.running
        guilty = None if task is None else self._runner.tasks.get(task)
        limit_s = self._settings.call_limit_s if guilty is None else self._limit_s(guilty)
        if not limit_s or stuck_s <= limit_s:
            return
        function = "a function" if guilty is None else guilty.call.function
        log.error("a coroutine blocks its event loop; the loop is given up", function=function)
        self._blocked.append(blocked)
        self._coroutines = CoroutineLoop()
        jobs = {*self._runner.tasks.values(), *self._runner.on_loop}
        self._runner.loop, self._runner.tasks = self._coroutines.loop, {}
        for job in jobs:
            self._runner.on_loop.pop(job, None)
            if job is guilty:
                self._tell_timeout(job)
            else:
                self._runner.fail(job, CallTimeout(f"{job.call.function} could not go on: {function} blocked its loop"))
        self._end_if_too_much_hangs()

    def _end_if_too_much_hangs(self) -> None:
        if self.hung >= self._settings.hung_limit:
            self._failed(CallTimeout(f"{self.hung} calls hang (EASYREMOTE_HUNG_LIMIT): this worker needs a restart"))

    def _set_aside(self, hand: Hand, doing: Job | Sequence[Job]) -> None:
        with self._runner.lock:
            if hand.doing is not doing or hand.given_up:
                return  # it has come back just now
            hand.given_up = True
            waiting = [job for job in hand.batch if not (job.begun or job.ended)]
            hand.batch = jobs_of(doing)
        self._quick.set_aside(hand)
        for job in waiting:
            self._put_on(self._functions, job)

    def _give_up(self, lane: Lane, hand: Hand, doing: Job | Sequence[Job]) -> None:
        with self._runner.lock:
            if hand.doing is not doing:
                return  # it has come back just now
            hand.given_up = True
        stuck = [job for job in jobs_of(doing) if not job.ended]
        rest = [job for job in hand.batch if not job.ended and job.stop is None and job not in stuck]
        lane.replace(hand)
        log.error("a call hangs; its thread is given up", functions=sorted({job.call.function for job in stuck}))
        if len(stuck) > 1:
            # One of them is to blame: each is tried again by itself, and only that one hangs again.
            for job in stuck:
                job.alone = True
            rest = stuck + rest
        else:
            for job in stuck:
                self._tell_timeout(job)
        for job in rest:
            self._put_on(lane, job)
        self._end_if_too_much_hangs()

    def _tell_timeout(self, job: Job) -> None:
        limit_s = self._limit_s(job)
        self._runner.fail(job, CallTimeout(f"{job.call.function} was at work for longer than its limit of {limit_s} s"))
