"""The batch source: a thread consumes and decodes, and hands on one event per partition and batch.

This is how everything that comes in volume enters a worker. A Faust agent costs four asyncio tasks a message; here
it costs them a batch, and a batch of one waits for nothing. `events.to_loop` passes the events to a function on the
event loop, such as a channel's `hand_over`; a receiver that has threads of its own takes them on the source's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from mode import Service

from easyremote.clock import monotonic_s
from easyremote.errors import TopicError
from easyremote.threads import LongThread
from easyremote.topics.connection import confluent_config
from easyremote.topics.doneset import Place
from easyremote.topics.events import Assigned, Batch, Prepared, Revoked, SourceEvent, Tick
from easyremote.topics.holdings import Holdings
from easyremote.topics.known_brokers import KnownBrokers
from easyremote.topics.listening import Listening
from easyremote.topics.outages import OUTAGES
from easyremote.topics.retry import AWAY, JUST_MADE, Backoff, ask, passes
from easyremote.topics.tenure import Tenure
from easyremote.topics.to_commit import ToCommit

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.topics.companion import Companion
    from easyremote.topics.profiles import Profile

__all__ = ["BatchSource", "Claim", "Prepare"]

log = structlog.get_logger(__name__)
T = TypeVar("T")

Claim = Callable[[tuple[int, ...], dict[int, Place], threading.Event], None]
"""Takes partitions that were given, what the group has committed for each, where it has, and what ends all waiting."""

Prepare = Callable[[tuple[int, ...], threading.Event], Prepared]
"""Makes ready for partitions that are given; the event ends all waiting."""

_COMMIT_S = 0.05
"""Most time between noting an offset and committing it, and so how long one poll may wait."""
_PATIENCE_S = 1.0
"""A pause throws away what is prefetched, so a short jam is just waited out."""
_PAUSED_POLL_S = 0.005
_HANDOVER_S = 5.0
_IDLE_TICK_S = 1.0
_COMMITTED_S = 10.0
_ASSIGNED_S = 60.0
"""How long the group's answer is waited for before partitions are read; the client must poll each 300 s."""
_SOON = Backoff(first_s=0.005, most_s=1.0)
_BACKOFF = Backoff()
_LASTED_S = 30.0
_REGROUPED = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)
"""The group has gone on meanwhile: who joins again is given what is his."""
_BESIDE_POLL_S = 0.01
"""How long a poll may wait while there are other topics to look at."""
_MAX_PENDING = 8


class BatchSource(Service, Generic[T]):
    """Consumes one topic in a group and hands batches to a receiver.

    Whoever takes a `Batch` or a `Tick` calls `finished()` when it is done with it: that bounds what is pending, and
    while the bound is reached the partitions are paused and the thread keeps polling, so the group never evicts it.
    Whoever takes a `Revoked` sets its `done` when the partitions' work is finished and committed.

    Parameters
    ----------
    settings : Settings
        Where the broker is.
    topic : str
        Full name of the topic.
    group : str
        Full name of the consumer group.
    profile : Profile
        `CALLS` or `STREAMS`.
    decode : callable
        `(partition, messages) -> content`; runs on the source's thread.
    emit : callable
        Receiver of events, called on the source's thread.
    prepare : callable, optional
        Called on the source's thread before it reads partitions that it was given; where to start each, for a receiver
        that keeps its own account. Unset: where the group stands.
    beside : Companion, optional
        Reads the same partitions of further topics.
    standing : callable, optional
        `() -> {partition: place}`: where every partition stands of which the receiver has been given something. After
        a time in which this process did not run, `tenure` is in doubt until the group has taken these from this member
        once more. Unset: nothing is asked.
    claim : callable, optional
        Called on the source's thread before it reads partitions that it was given; the source waits for it.
    """

    abstract = False

    def __init__(  # noqa: PLR0913  # each of them is a different thing that a source must be told
        self,
        settings: Settings,
        topic: str,
        group: str,
        profile: Profile,
        decode: Callable[[int, Sequence[Message]], T],
        emit: Callable[[SourceEvent[T]], None],
        *,
        prepare: Prepare = lambda _partitions, _stopping: Prepared(),
        beside: Companion[T] | None = None,
        claim: Claim | None = None,
        standing: Callable[[], dict[int, Place]] | None = None,
        **kwargs: Any,  # Any: mode's own options
    ) -> None:
        self.topic = topic
        self.group = group
        self._profile = profile
        self._decode = decode
        self._emit = emit
        self._prepare = prepare
        self._beside = beside
        self._claim = claim
        self._standing = standing
        self.tenure = Tenure(settings.group_session_ms / 1000 / 2)
        self._complaints = OUTAGES.complaints
        # A semaphore's acquire and release are Python, and there is one of each for every batch of one.
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(_MAX_PENDING):
            self._slots.put(None)
        self._stopping = threading.Event()
        self._to_commit = ToCommit()
        self._joined = asyncio.Event()
        self._held = Holdings()
        self._begun: set[int] = set()
        """Partitions of which something has come."""
        self._paused: set[int] = set()
        self._kept: list[Message] = []
        """What came of partitions that were given to this member while there was no room."""
        self._listening = Listening(settings) if profile.tick_s else None
        self._config = (
            confluent_config(settings)
            | {
                "group.id": group,
                "group.protocol": "consumer",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "fetch.min.bytes": 1,
                "fetch.wait.max.ms": 100,
                "on_commit": self._to_commit.told,
            }
            | profile.client
        )
        self._where = settings.bootstrap_servers()
        self._brokers = KnownBrokers()
        self._consumer = Consumer(self._config | self._brokers.client)
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._thread: LongThread | None = None
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        """Start the thread."""
        self._event_loop = asyncio.get_running_loop()
        self._thread = LongThread(
            self._run, f"source {self.topic}", stopping=self._stopping, at_end=self._end, gave_up=self._give_up
        )
        self._thread.start()

    async def on_stop(self) -> None:
        """Let the thread leave the group, which hands its partitions over at once."""
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _HANDOVER_S * 2)

    async def joined(self) -> None:
        """Wait until the group has given this member its first partitions."""
        await self._joined.wait()

    def finished(self) -> None:
        """Say that one event has been dealt with."""
        self._slots.put(None)

    def commit(self, places: dict[int, Place]) -> None:
        """Note where the group stands in each partition; the source's thread commits it within `_COMMIT_S`.

        Only that thread touches the consumer: a commit from another one while it polls has blocked both for ever.
        """
        self._to_commit.note(places)

    def positions(self, places: dict[int, Place]) -> list[TopicPartition]:
        """Return the places as the client wants them."""
        return [
            TopicPartition(self.topic, partition, place.offset, place.metadata) for partition, place in places.items()
        ]

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = monotonic_s()
            try:
                self._subscribe()
                self._consume()
            except BaseException as error:
                # What was in hand is read again, by another client, from where the group stands.
                self._replace_client()
                if not passes(error, _REGROUPED):
                    raise
                attempt = 1 if monotonic_s() - began > _LASTED_S else attempt + 1
                log.warning("a source begins again", topic=self.topic, group=self.group, error=str(error))
                self._stopping.wait(_BACKOFF.wait_s(attempt))

    def _end(self) -> None:
        self._consumer.close()
        if self._beside is not None:
            self._beside.close()

    def _give_up(self, reason: Exception) -> None:
        if self._event_loop is not None:
            self._event_loop.call_soon_threadsafe(asyncio.ensure_future, self.crash(reason))

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _begin_anew(self, why: str) -> None:
        log.warning(why, topic=self.topic)
        # The group learns by its session's end that the old one is gone: it can tell nobody.
        self._replace_client()
        self._subscribe()

    def _replace_client(self) -> None:
        self._commit_noted(wait=False)
        held = tuple(self._held)
        self._let_go(held)
        self._paused.clear()  # of this client
        if held:
            self._emit(Revoked(held, lost=True))
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            log.warning("a client could not leave in peace", topic=self.topic, error=str(error))
        self._brokers = KnownBrokers()
        self._consumer = Consumer(self._config | self._brokers.client)

    def _consume(self) -> None:
        profile = self._profile
        ticked = committed = monotonic_s()
        fresh = False
        while not self._stopping.is_set():
            if self._brokers.are_forgotten:
                self._begin_anew("this client has forgotten every broker; another one joins in its place")
            now = monotonic_s()
            if now - committed >= _COMMIT_S:
                self._commit_noted(wait=False)
                committed = now
            if self._listening is not None:
                self._look_after(self._listening, now)
                if now - ticked >= (profile.tick_s if fresh else _IDLE_TICK_S):
                    if self._held:
                        self._put_tick(self._listening)
                    ticked, fresh = now, False
            if self._read():
                fresh = True

    def _read(self) -> bool:
        """Hand on what there is; say whether that was anything."""
        messages, self._kept = self._kept, []
        if not messages:
            first = self._consumer.poll(_COMMIT_S if self._beside is None else _BESIDE_POLL_S)
            messages = [] if first is None else [first]
        if OUTAGES.complaints != self._complaints:
            # While the broker was away the session may have ended, which a poll tells only later.
            self._complaints = OUTAGES.complaints
            self.tenure.doubt()
        if not self.tenure.look():
            messages = self._still_ours(messages)
        messages = self._records(messages)
        if messages:
            self._hand_on(messages)
        elif self._listening is not None:
            self._listening.drained((self.topic,))
        since = self._held.turn
        is_any = bool(messages)
        for batch in () if self._beside is None else self._beside.read(self._listening):
            self._put_batch(batch, since)
            is_any = True
        return is_any

    def _look_after(self, listening: Listening, now_s: float) -> None:
        stalled = set()
        for stall in listening.look(now_s):
            log.error("an assigned partition has records and does not move", **stall._asdict())
            stalled.add(stall.topic)
        why = "another client reads on in the place of one that does not"
        if self.topic in stalled:
            self._begin_anew(why)
        elif stalled and self._beside is not None:
            self._beside.begin_anew(why)

    def _hand_on(self, messages: list[Message]) -> None:
        since = self._held.turn
        more = self._consumer.consume(self._profile.max_records - 1, self._profile.fill_s)
        if len(more) < self._profile.max_records - 1 and self._listening is not None:
            self._listening.drained((self.topic,))
        if since != self._held.turn:
            messages = [one for one in messages if self._held.held_since(one.partition() or 0, since)]
        more = self._records(more, since)
        since = self._held.turn
        parts = self._held.part(messages + more)
        self._begun.update(parts)
        for partition, group in parts.items():
            first_offset, last_offset = group[0].offset(), group[-1].offset()
            if first_offset is None or last_offset is None:
                raise TopicError(f"{self.topic}[{partition}]: a record without an offset")
            content = self._decode(partition, group)
            self._put_batch(Batch(self.topic, partition, first_offset, last_offset + 1, content), since)

    def _commit_noted(self, *, wait: bool) -> None:
        held = self._to_commit.take(self._held, at_last=wait)
        if not held:
            return
        try:
            if wait:
                self._consumer.commit(offsets=self.positions(held), asynchronous=False)
            else:
                self._consumer.commit(offsets=self.positions(held), asynchronous=True)
        except KafkaException as error:
            log.warning("offsets were not committed; their records will be seen again", error=str(error))

    def _still_ours(self, messages: list[Message]) -> list[Message]:
        # What a poll gives in which this process was stopped may be another member's by now.
        while not self._stopping.is_set():
            if self._brokers.are_forgotten:
                return []  # another one joins in its place, and begins where the group stands
            self._ask_for_tenure(messages)
            if self.tenure.look():
                break
            since = self._held.turn
            message = self._consumer.poll(_COMMIT_S)
            # What came before may be others' now, and what has just come ours anew.
            messages = [one for one in messages if one.error() or self._held.held_since(one.partition() or 0, since)]
            if message is not None:
                messages += self._records([message])
        return messages

    def _ask_for_tenure(self, messages: Sequence[Message]) -> None:
        # A commit is refused once the group has given a member up; then polling tells that the partitions are lost.
        if self._standing is None:
            self.tenure.confirm()  # whose receiver keeps no account: a commit here could pass over what it works on
            return
        # Where nothing was read before, the first of what has just come is where the group stands.
        first = {one.partition() or 0: Place(one.offset() or 0) for one in reversed(messages) if one.error() is None}
        standing = first | self._standing()
        held = {number: place for number, place in standing.items() if number in self._held}
        if self._held and not held:
            return  # nothing to ask with yet; nothing is begun before it comes
        try:
            told = self._consumer.commit(offsets=self.positions(held), asynchronous=False) if held else []
        except KafkaException as error:
            log.warning("whether this process is still a member of its group is not sure", error=str(error))
            return
        if not any(one.error for one in told or ()):
            self.tenure.confirm()

    def _records(self, messages: list[Message], since: int | None = None) -> list[Message]:
        errors = [message for message in messages if message.error() is not None]
        if not errors:
            return messages
        for one in errors:
            self._on_error(one, self._held.turn if since is None else since)
        return [message for message in messages if message.error() is None]

    def _on_error(self, message: Message, since: int) -> None:
        error, partition = message.error(), message.partition() or 0
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # librdkafka's own codes begin so
            # The end of a partition that was given meanwhile may be the one of before.
            if self._listening is not None and self._held.held_since(partition, since):
                self._listening.read(self.topic, partition, message.offset() or 0)
            return
        if error.fatal():
            raise KafkaException(error)
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise TopicError(f"{self.topic} cannot be read: {error}")
        # What is about the connection is told of once, by the client's own lines.
        if error.code() not in AWAY:
            log.warning("the broker cannot be read just now; trying on", topic=self.topic, error=str(error))

    def _put_tick(self, listening: Listening) -> None:
        self._take_slot()
        # Not before: while this waited partitions may have gone, and the group tells this member by another mark.
        self._emit(Tick(self._consumer.consumer_group_metadata(), listening.heard()))

    def _put_batch(self, batch: Batch[T], since: int) -> None:
        self._take_slot()
        # While this waited its partition may have gone, and come back to be read from another place.
        if self._held.held_since(batch.partition, since):
            self._emit(batch)
            if self._listening is not None:
                self._listening.read(batch.topic, batch.partition, batch.next_offset)
        else:
            self.finished()

    def _take_slot(self) -> None:
        if not self._has_slot(_PATIENCE_S):
            self._wait_for_slot()

    def _has_slot(self, patience_s: float) -> bool:
        try:
            self._slots.get(timeout=patience_s)
        except Empty:
            return False
        return True

    def _wait_for_slot(self) -> None:
        # Polling while paused keeps the membership. A pause right after an assignment can undo it, so that nothing is
        # ever read (librdkafka's issue 5591): only what has begun is paused.
        self._pause(self._begun)
        while not self._has_slot(_PAUSED_POLL_S):
            if self._stopping.is_set():
                return
            message = self._consumer.poll(0)
            # Whoever holds the slots may wait until the membership is sure, which only this thread can find out.
            if not self.tenure.look():
                self._ask_for_tenure([])
            if message is None or not self._records([message]):
                continue
            partition = message.partition() or 0
            if partition in self._held:
                # It was under way when its partition was given to us; nothing must pass it.
                self._kept.append(message)
                self._begun.add(partition)
                self._pause([partition])
        self._resume(self._paused)

    def _pause(self, partitions: Iterable[int]) -> None:
        paused = [TopicPartition(self.topic, partition) for partition in partitions]
        if paused:
            self._consumer.pause(paused)
            self._paused.update(one.partition for one in paused)

    def _resume(self, partitions: Iterable[int]) -> None:
        paused = [TopicPartition(self.topic, partition) for partition in partitions if partition in self._paused]
        if paused:
            self._paused.difference_update(one.partition for one in paused)
            self._consumer.resume(paused)

    def _on_assign(self, consumer: Consumer, given: list[TopicPartition]) -> None:
        partitions = tuple(one.partition for one in given)
        # A member for which there is nothing yet is given nothing, and told so.
        prepared = self._prepare(partitions, self._stopping) if partitions else Prepared()
        starts = dict(prepared.starts)
        if self._claim is not None and given:
            places = self._committed(consumer, given)
            self._claim(partitions, places, self._stopping)
            starts |= {(self.topic, partition): place.offset for partition, place in places.items()}
        for one in given:
            one.offset = starts.get((self.topic, one.partition), one.offset)
        consumer.incremental_assign(given)
        begins = {(self.topic, one.partition): one.offset for one in given}
        if self._beside is not None and partitions:
            begins |= self._beside.give(partitions, starts)
        self._held.give(partitions)
        if self._listening is not None:
            self._listening.give(begins)
        log.info("partitions assigned", topic=self.topic, partitions=partitions)
        self._emit(Assigned(partitions, prepared.state))
        if self._event_loop is not None:
            self._event_loop.call_soon_threadsafe(self._joined.set)

    def _committed(self, consumer: Consumer, given: list[TopicPartition]) -> dict[int, Place]:
        def told() -> list[TopicPartition]:
            places = consumer.committed(given, timeout=_COMMITTED_S)
            failed = next((one.error for one in places if one.error is not None), None)
            if failed is not None:
                raise KafkaException(failed)
            return places

        what = f"to know where {self.group} stands in {self.topic}"
        stand = ask(
            what, told, where=self._where, within_s=_ASSIGNED_S, stopping=self._stopping, backoff=_SOON, also=JUST_MADE
        )
        return {one.partition: Place(one.offset, one.metadata or "") for one in stand if one.offset >= 0}

    def _on_revoke(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        partitions = tuple(one.partition for one in taken if one.partition in self._held)
        if not partitions:
            self._unassign(consumer, taken)
            return  # they were lost before
        log.info("partitions revoked", topic=self.topic, partitions=partitions)
        event = Revoked(partitions, lost=False, group=consumer.consumer_group_metadata())
        self._emit(event)
        # The next owner starts at what is committed, so what is pending is finished and committed first.
        if not event.done.wait(_HANDOVER_S):
            log.warning("handing partitions over with work pending; it will be done again", partitions=partitions)
        self._commit_noted(wait=True)
        self._let_go(partitions)
        self._unassign(consumer, taken)

    def _let_go(self, partitions: tuple[int, ...]) -> None:
        self._held.take(partitions)
        self._begun.difference_update(partitions)
        self._to_commit.forget(partitions)
        self._kept = [message for message in self._kept if message.partition() not in partitions]
        if self._listening is not None:
            self._listening.take(partitions)
        if self._beside is not None:
            self._beside.take(partitions)

    def _on_lost(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        partitions = tuple(one.partition for one in taken)
        log.warning("partitions lost: the group went on without this member", partitions=partitions)
        self._let_go(partitions)
        self._emit(Revoked(partitions, lost=True))
        self._unassign(consumer, taken)

    def _unassign(self, consumer: Consumer, taken: list[TopicPartition]) -> None:
        # What is paused when it goes is still paused when it comes back, and would never be read.
        self._resume([one.partition for one in taken])
        consumer.incremental_unassign(taken)
