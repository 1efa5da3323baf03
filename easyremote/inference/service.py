"""The node's place in the worker: takes calls from `inference.<pool>`, replies, commits what is answered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from mode import Service

from easyremote.clock import monotonic_s
from easyremote.errors import CallError, CrashSuspect, EasyRemoteError, NotOfferedHere
from easyremote.inference.doubts import Doubts
from easyremote.inference.duplicates import Duplicates
from easyremote.inference.execution import Executor, Job, Outcome
from easyremote.inference.ledger import Ledger
from easyremote.inference.repeats import Repeats
from easyremote.inference.retrying import FailedCalls, next_delay_ms
from easyremote.inference.sender import ItemSender, ReplySender
from easyremote.inference.suspects import Suspects
from easyremote.tally import tally
from easyremote.topics.catalog import inference_group, inference_topic
from easyremote.topics.certain import CertainProducer
from easyremote.topics.doneset import decode_done
from easyremote.topics.events import Assigned, Batch, Revoked, SourceEvent
from easyremote.topics.letters import stack_of
from easyremote.topics.producer import delivery_error, is_refused
from easyremote.topics.profiles import CALLS
from easyremote.topics.refusing import Refusal, Refusals
from easyremote.topics.reply_topics import ReplyTopics
from easyremote.topics.retry import ask_in_thread
from easyremote.topics.source import BatchSource
from easyremote.topics.wire import Call, MalformedCall, Origin, headers_of, read_call

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.inference.answers import AnswerWatch
    from easyremote.inference.cancellations import CancellationWatch
    from easyremote.inference.node import AINodeManager
    from easyremote.settings import Settings
    from easyremote.topics.doneset import DoneSet, Place
    from easyremote.topics.producer import Delivered, RecordProducer
    from easyremote.topics.tails import Tails

__all__ = ["NodeService"]

log = structlog.get_logger(__name__)

_COMMIT_S = 0.1
_HANDOVER_S = 4.0
_CLOSE_S = 8.0
"""For both, handing over and ending what runs: a supervisor kills after ten."""
_MAX_PENDING = 1_000
"""Calls taken and not answered, from which on the node reads no more: what it holds cannot be balanced again."""


class NodeService(Service):
    """Serves the calls of the partitions that this node holds.

    A call's offset is committed when its reply is acknowledged by the broker, never before; so whatever dies, the
    call is still in the topic. Who takes a partition over first reads every answer that there is; a duplicate of a
    call that any node has answered is answered with the first result.

    Parameters
    ----------
    settings : Settings
        Broker, pool, node id.
    node : AINodeManager
        What is offered.
    producer : RecordProducer
        Sends the replies; it gives a record up before the group gives this node up.
    changed : callable
        Called, on any thread, when the partitions or the models change, so that the heartbeat goes out at once.
    cancellations : CancellationWatch
        Tells which calls are withdrawn.
    answers : AnswerWatch
        Tells which calls any node has answered.
    tails : Tails
        Looks for what the node before has sent, and for what may have been sent from here.
    reply_topics : ReplyTopics, optional
        Which topics calls may name for their replies; unset: the settings' own.
    """

    abstract = False

    def __init__(  # noqa: PLR0913, PLR0917  # what it serves with, and what it knows of the others
        self,
        settings: Settings,
        node: AINodeManager,
        producer: RecordProducer,
        changed: Callable[[], None],
        cancellations: CancellationWatch,
        answers: AnswerWatch,
        tails: Tails,
        reply_topics: ReplyTopics | None = None,
        **kwargs: Any,  # Any: mode's own options
    ) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._node = node
        self._producer = CertainProducer(producer, tails, self._is_sure, self._doubt_membership)
        self._changed = changed
        self._cancellations = cancellations
        self._topic = settings.namespace + inference_topic(settings.pool_name)
        self._reply_topics = reply_topics or ReplyTopics(settings)
        self.ledger = Ledger()
        self._failed_calls = FailedCalls(settings, self._producer, self._topic, self._holds)
        self._refusals = Refusals(settings, self._producer, tails)
        self._lock = threading.Lock()
        self._owed = 0
        self._inherited: dict[int, DoneSet] = {}
        self._claimed: dict[int, Place] = {}
        self._doubted_to: dict[int, int] = {}
        """Where each partition ended when it was given: what stands before may have been done."""
        self._answers = answers
        self.executor = Executor(
            settings,
            node,
            answer=self._answer,
            wanted=self._start,
            failed=self._fail,
            send_item=ItemSender(self._producer, self.ledger, self._lose, self._fail).send,
        )
        self._suspects = Suspects(settings, producer, run=self.executor.put, refuse=self._refuse)
        self._doubts = Doubts(
            settings,
            self._topic,
            self.ledger,
            tails,
            answers,
            run=self._suspects.admit,
            replied=self._stands,
            moved=self._moved,
            send=self._reply,
        )
        self._repeats = Repeats(self.ledger, tails, send=self._reply, finish=self._finish)
        self._duplicates = Duplicates(answers, run=self._doubts.admit, repeat=self._repeats.repeat)
        self._source: BatchSource[list[Job]] = BatchSource(
            settings,
            self._topic,
            inference_group(settings.namespace, settings.pool_name),
            CALLS,
            self._decode,
            self._take,
            claim=self._claim,
            standing=lambda: self._claimed | self.ledger.standing(),
        )
        self._replies = ReplySender(
            settings.namespace,
            self._producer,
            self.ledger,
            is_sure=self._is_sure,
            answered=self._duplicates.answered,
            dropped=self._make_room,
            finished=self._finish,
            undeliverable=self._undeliverable,
            failed=self._fail,
        )
        self.loaded = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """How many calls are taken and not answered."""
        return max(0, self.ledger.pending - self._replies.on_their_way)

    @property
    def hung(self) -> int:
        """How many calls are past their limit and have not come back."""
        return self.executor.hung

    @property
    def partitions(self) -> list[int]:
        """The partitions of the pool's topic that this node holds."""
        return self.ledger.partitions

    async def on_start(self) -> None:
        """Load the models off the event loop; calls may wait here meanwhile."""
        self.executor.start(cancelled=self._cancellations)
        self._cancellations.listen(self._cancel)
        where = self._settings.bootstrap_servers()
        await ask_in_thread("to know what ended processes", self._suspects.open, where=where)
        self.add_future(self._load())
        await self.add_runtime_dependency(self._source)

    async def on_stop(self) -> None:
        """Finish what runs, hand the partitions over, end the threads."""
        ends_s = monotonic_s() + _CLOSE_S
        await self._source.stop()
        # What ran on beyond the handover is another node's by now.
        if not await asyncio.to_thread(self.executor.close, max(0.0, ends_s - monotonic_s())):
            log.warning("a call still runs; another node will do it again")
        await asyncio.to_thread(self._suspects.close)
        await asyncio.to_thread(self._producer.close)

    async def _load(self) -> None:
        await asyncio.to_thread(self._node.load)
        self.loaded.set()
        self._changed()

    @Service.timer(_COMMIT_S)
    async def _commit(self) -> None:
        self._source.tenure.look()
        self._suspects.look()
        self._source.commit(self.ledger.committable())
        self._replies.look()

    # On the source's thread

    def _claim(self, partitions: tuple[int, ...], places: dict[int, Place], stopping: threading.Event) -> None:
        self._claimed = self._claimed | places
        self._inherited = {number: decode_done(place.offset, place.metadata) for number, place in places.items()}
        # Who held them before is gone or has handed them over, so nothing of theirs is answered after this.
        ends = self._answers.catch_up(stopping, *((self._topic, number) for number in partitions))
        self._doubted_to |= {number: end for (_, number), end in ends.items()}
        skipped = {number: done.end for number, done in self._inherited.items() if done}
        if skipped:
            log.info("calls that the one before has answered are left out", up_to=skipped)

    def _decode(self, partition: int, messages: Sequence[Message]) -> list[Job]:
        arrived_ms = time.time_ns() / 1e6
        generation, answered = self.ledger.take(partition, [message.offset() or 0 for message in messages])
        found: list[tuple[Message, Origin, Call | MalformedCall]] = []
        for message in messages:
            if answered and message.offset() in answered:
                continue
            origin = Origin(self._topic, partition, message.offset() or 0, message.timestamp()[1])
            call = read_call(message.value(), headers_of(message), origin, self._settings.namespace)
            found.append((message, origin, call))
        self._reply_topics.learn(self._reply_topics.unseen(call.address for _, _, call in found))
        jobs = []
        doubted_to = self._doubted_to.get(partition, 0)
        for message, origin, one in found:
            in_doubt = origin.offset < doubted_to
            if isinstance(one, MalformedCall):
                is_told = one.address is not None and self._reply_topics.fault(one.address) is None
                self._reject(message, origin, generation, one, one, is_told=is_told, in_doubt=in_doubt)
                tally.bury(self._topic, 1, 1)
            elif (fault := self._reply_topics.fault(one.address)) is not None:
                self._reject(message, origin, generation, one, fault, is_told=False, in_doubt=in_doubt)
                tally.bury(self._topic, 1, 1)
            else:
                if tally.streaks:
                    tally.well(self._topic)
                job = Job(one, partition, generation, origin.offset, arrived_ms, value=message.value() or b"")
                job.in_doubt = in_doubt
                jobs.append(job)
        return jobs

    def _take(self, event: SourceEvent[list[Job]]) -> None:
        if isinstance(event, Batch):
            with self._lock:
                self._owed += 1
            self._give_slots_back()
            for job in event.content:
                self._admit(job)
        elif isinstance(event, Assigned):
            self.ledger.assign(event.partitions, self._inherited)
            self._changed()
        elif isinstance(event, Revoked):
            self._let_go(event)

    def _admit(self, job: Job) -> None:
        try:
            self._duplicates.admit(job)
        except MemoryError:
            raise
        except Exception as error:
            log.exception("a call could not be begun; it is answered with why, and a dead letter", call=job.call.id)
            self.executor.refuse(job, self._failed_calls.outcome(job, error))

    def _let_go(self, event: Revoked) -> None:
        if not event.lost:
            if not self._finish_what_runs(event.partitions):
                log.warning("partitions go while a call of theirs runs; it will be done again", who=event.partitions)
            self._producer.flush(_HANDOVER_S)
            self._source.commit(self.ledger.committable())
        self.ledger.drop(event.partitions)
        event.done.set()
        self._changed()

    def _finish_what_runs(self, partitions: Sequence[int]) -> bool:
        # Replies need a tenure beyond doubt, and the thread that looks after it is the one that waits here.
        ends_s = monotonic_s() + _HANDOVER_S
        while not (finished := self.ledger.leave(partitions, _COMMIT_S)) and monotonic_s() < ends_s:
            self._source.tenure.look()
        return finished

    # On whichever thread runs or ends a call

    def _start(self, job: Job) -> bool:
        if self.ledger.start(job.partition, job.generation):
            self._suspects.begun(job)
            return True
        self._lose(job)
        return False

    def _lose(self, job: Job) -> None:
        self._suspects.ended(job)  # or a later death of this process would be laid on it
        self._make_room(job)

    def _make_room(self, job: Job) -> None:
        # Its partition has gone, and the call with it; a duplicate that is still ours takes its place.
        self._repeats.forget(job)
        for other in self._duplicates.release(job):
            self._duplicates.admit(other)

    def _cancel(self, call_id: str) -> None:
        for job in self._duplicates.first(call_id):
            self.executor.cancel(job)

    def _refuse(self, job: Job, deaths: int) -> None:
        error = CrashSuspect(f"{deaths} processes died while this call of {job.call.function} was under way")
        self.executor.refuse(job, self._failed_calls.outcome(job, error))

    def _answer(self, job: Job, outcome: Outcome) -> None:
        self._suspects.ended(job)
        if isinstance(outcome.error, NotOfferedHere):
            self._send_all_on(job, self._failed_calls.pass_on, outcome)
        elif outcome.error is not None and (outcome.retriable or outcome.poison):
            delay_ms = next_delay_ms(job.call.attempt, time.time_ns() / 1e6, job.call.deadline_ms)
            if delay_ms is not None and not outcome.poison:
                self._send_all_on(job, lambda one, told: self._failed_calls.retry(one, delay_ms, told), outcome)
            else:
                self._bury(job, outcome)
        else:
            self._replies.send(job, outcome.reply)

    def _send_all_on(self, job: Job, send: Callable[[Job, Delivered], None], outcome: Outcome) -> None:
        # Duplicates go with it: whichever comes back first is run, and answers the others.
        others = [one for one in self._duplicates.release(job) if self.ledger.start(one.partition, one.generation)]
        for one in [job, *others]:
            self._send_on(one, send, outcome)

    def _send_on(self, job: Job, send: Callable[[Job, Delivered], None], outcome: Outcome) -> None:
        if not self.ledger.holds(job.partition, job.generation):
            self._make_room(job)
            return

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self._finish(job)
            elif not self._holds(job):
                self._make_room(job)
            elif is_refused(error):
                self._bury(job, outcome)  # too large to travel on: it cannot be tried again
            else:
                self._fail(delivery_error(message.topic() or "requests", error))

        send(job, delivered)

    def _moved(self, job: Job) -> None:
        self._make_room(job)
        self._finish(job)

    def _bury(self, job: Job, outcome: Outcome) -> None:
        assert outcome.error is not None
        if not self.ledger.holds(job.partition, job.generation):
            self._make_room(job)
            return

        def delivered(error: KafkaError | None, message: Message) -> None:
            if self._is_buried(job, error, message):
                self._replies.send(job, outcome.reply)

        self._failed_calls.bury(job, outcome.error, delivered, stack=stack_of(outcome.error))

    def _is_buried(self, job: Job, error: KafkaError | None, message: Message) -> bool:
        if error is None:
            job.buried = True
        elif not self._holds(job):
            self._make_room(job)
            return False
        elif is_refused(error):
            log.error("a call cannot become a dead letter", call=job.call.id, error=str(error))
        else:
            self._fail(delivery_error(message.topic() or "dead letters", error))
            return False
        return True

    def _undeliverable(self, job: Job, error: EasyRemoteError) -> None:
        if job.buried:
            log.warning("a reply has nowhere to go; its call is a dead letter", call=job.call.id, error=str(error))
            self._finish(job)
            return
        log.warning("a reply has nowhere to go; the call becomes a dead letter", call=job.call.id, error=str(error))

        def delivered(failure: KafkaError | None, message: Message) -> None:
            if self._is_buried(job, failure, message):
                self._finish(job)

        self._failed_calls.bury(job, error, delivered)

    def _reject(  # noqa: PLR0913  # a record, its place, and why
        self,
        message: Message,
        origin: Origin,
        generation: int,
        said: Call | MalformedCall,
        error: CallError,
        *,
        is_told: bool,
        in_doubt: bool,
    ) -> None:
        def finished(failure: KafkaError | None) -> None:
            if failure is None:
                self.ledger.finish(origin.partition, generation, origin.offset, ran=False)
            elif self.ledger.holds(origin.partition, generation):
                self._fail(delivery_error("dead letters", failure))

        call_id = said.id if isinstance(said, Call) else said.call_id
        log.warning("a call is refused", call=call_id, error=str(error))
        address = said.address if is_told else None
        refusal = Refusal(message, origin, error, call_id, address, said.function, said.traceparent)
        self._refusals.refuse(
            refusal, finished, wanted=lambda: self.ledger.holds(origin.partition, generation), in_doubt=in_doubt
        )

    def _doubt_membership(self) -> None:
        self._source.tenure.doubt()

    def _is_sure(self) -> bool:
        return self._source.tenure.is_sure()

    def _reply(self, job: Job, value: bytes) -> None:
        self._replies.send(job, value)

    def _stands(self, job: Job, value: bytes | None) -> None:
        self._replies.stands(job, value)

    def _holds(self, job: Job) -> bool:
        return self.ledger.holds(job.partition, job.generation)

    def _finish(self, job: Job) -> None:
        self.ledger.finish(job.partition, job.generation, job.offset, ran=True)
        self._give_slots_back()

    def _give_slots_back(self) -> None:
        if not self._owed or self.ledger.pending > _MAX_PENDING:
            return
        with self._lock:
            owed, self._owed = self._owed, 0
        for _ in range(owed):
            self._source.finished()

    def _fail(self, error: Exception) -> None:
        log.error("the node cannot go on; what it has not answered will be done after a restart", error=str(error))
        self.loop.call_soon_threadsafe(asyncio.ensure_future, self.crash(error))
