"""Runs one task for each partition that this worker holds: outputs, state and offsets become durable together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import structlog

from easyremote.agents.disk import DiskCopy, DiskShelf, Scratch, need_rocksdict
from easyremote.clock import monotonic_s, now_ms
from easyremote.errors import TopicError
from easyremote.tally import tally
from easyremote.threads import LongThread
from easyremote.topics.catalog import DEAD_LETTERS_OF
from easyremote.topics.changelog import Copy, Standby, catch_up
from easyremote.topics.deliveries import AtLeastOnce, Delivery, Output
from easyremote.topics.doneset import Place
from easyremote.topics.events import Assigned, Batch, Prepared, Revoked, SourceEvent, Tick
from easyremote.topics.limits import Unreadable, attempt, shortened
from easyremote.topics.odd_records import LARGEST_VALUE_BYTES, fitting
from easyremote.topics.progress import Heard
from easyremote.topics.records import RecordRef
from easyremote.topics.source import BatchSource
from easyremote.topics.transactions import MembershipChanged, Transactions, committed_offsets

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.windows.resting import Resting

__all__ = ["Names", "PartitionTasks", "Task"]

log = structlog.get_logger(__name__)
T = TypeVar("T")

_END_S = 2.0
_RESTS_EACH = 10_000
"""Keys that are restored before those that memory has no room for go to rest."""

_MOST_DIGITS = 19
_POSITION = b"position"
"""Key in the changelog of the next offset to read of the first topic; the tasks' own keys differ from it."""


_NOTHING_HEARD = Heard(0, 0)


class Task(Protocol[T]):
    """The work on one partition: pure but for the records that it returns."""

    def step(self, batch: Batch[T], now_ms: int) -> list[Output]:
        """Take a batch in; return what it leads to."""
        ...

    def tick(self, now_ms: int, heard: Mapping[str, Heard] | None = None) -> list[Output]:
        """Return what silence leads to; `heard` is how long each topic was listened to."""
        ...

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Return key and content of the state that has changed; None: it is forgotten."""
        ...

    def restore(self, key: bytes, content: bytes) -> None:
        """Put back what `changes` gave."""
        ...

    @property
    def resting(self) -> Resting | None:
        """What moves keys out of memory and back; None: no state is kept."""
        ...


@dataclass(frozen=True, slots=True)
class Names:
    """Full names of what one kind of task uses, and what its transactions are called."""

    group: str
    topics: tuple[str, ...]
    """What is read; the group shares out the partitions of the first."""
    changelog: str
    transactions: str


_Work = tuple[SourceEvent[T], BatchSource[T]]


@dataclass
class _Partition(Generic[T]):
    """One partition while this worker holds it: its task, and what a transaction has not taken yet."""

    task: Task[T]
    outputs: list[Output] = field(default_factory=list)
    next_offsets: dict[str, int] = field(default_factory=dict)
    """Of each topic."""
    positions: dict[str, int] = field(default_factory=dict)
    """Of each topic, what has been worked on, or the state stands for."""
    shelf: DiskShelf | None = None

    def advance(self, batch: Batch[T]) -> None:
        """Note what comes next.

        Raises
        ------
        TopicError
            If the batch begins with what has been worked on: it would count twice.
        """
        position = self.positions.get(batch.topic, 0)
        if batch.first_offset < position:
            raise TopicError(
                f"{batch.topic}[{batch.partition}] went on at offset {batch.first_offset}, and everything before "
                f"{position} is counted: the worker ends, and goes on from what is committed"
            )
        self.positions[batch.topic] = batch.next_offset

    def rest(self) -> None:
        """Let the keys rest that memory has no room for, once all is committed."""
        if self.task.resting is not None:
            self.task.resting.rest(now_ms())

    def close(self) -> None:
        """Let the disk go."""
        if self.shelf is not None:
            self.shelf.close()


class PartitionTasks(Generic[T]):
    """Runs the tasks of the partitions that this worker holds.

    Outputs, changed state and offsets are committed at each tick of the source, in one transaction unless the settings
    say at least once. A partition that comes to this worker begins with the state and the position that the last commit
    left in the changelog; with `standby` this worker has read most of it before.

    Parameters
    ----------
    settings : Settings
        Where the broker is, how results are delivered, and whether to stand by for others' partitions.
    names : Names
        Source, group and changelog.
    make : callable
        `(partition) -> task`, empty.
    failed : callable
        Told, on the thread, of an error after which nothing more is done: the worker must end, and what is not
        committed is done again after it.
    """

    def __init__(
        self, settings: Settings, names: Names, make: Callable[[int], Task[T]], failed: Callable[[Exception], None]
    ) -> None:
        self._settings = settings
        self._names = names
        self._make = make
        self._failed = failed
        self._delivery = _delivery(settings, names)
        self._scratch: Scratch | None = None
        if settings.state_keys:
            need_rocksdict()
            self._scratch = Scratch(settings.data_dir / "state")
        self._standby = Standby(settings, names.changelog, self._copy) if settings.standby else None
        self._held: dict[int, _Partition[T]] = {}
        self._work: queue.SimpleQueue[_Work[T] | None] = queue.SimpleQueue()
        self._thread = LongThread(self._run, names.group, gave_up=failed)
        self._thread.start()

    def close(self) -> None:
        """End the thread; nothing is pending once the source has stopped."""
        self._work.put(None)
        self._thread.join(_END_S)
        if self._thread.is_alive():
            self._delivery.give_up()  # it waits for a broker; what it has is done again from what is committed
            self._thread.join()
        self._delivery.close()
        for held in self._held.values():
            held.close()
        if self._standby is not None:
            self._standby.close()
        if self._scratch is not None:
            self._scratch.close()

    def restore(self, partitions: tuple[int, ...], stopping: threading.Event) -> Prepared:
        """Read the state of partitions from the changelog, and where to go on reading, where it says so.

        Raises
        ------
        BrokerUnavailable
            If no broker answers, or a transaction stays open, for 30 s, or this was told to stop before that.
        """
        # Whoever held them may have a transaction open: its offsets are decided here, its records are waited for below.
        first = self._names.topics[0]
        places = [(first, number) for number in partitions]
        stands = committed_offsets(self._settings, self._names.group, places, stopping)
        began = monotonic_s()
        standby = self._standby
        copies = standby.take(partitions) if standby else {number: self._copy(number) for number in partitions}
        read = catch_up(self._settings, self._names.changelog, copies, stopping)
        keys = 0
        starts: dict[tuple[str, int], int] = {}
        all_restored: dict[int, _Partition[T]] = {}
        for number, copy in copies.items():
            restored, latest = self._partition(number), copy.latest
            tally.read(self._names.changelog, len(latest))
            for side, topic in enumerate(self._names.topics):
                position = latest.pop(_position(side), None)
                known = None if position is None else attempt(_offset_in, position)
                if isinstance(known, Unreadable):
                    self._pass_over(number, _position(side), known.error)
                elif known is not None:
                    starts[topic, number] = restored.positions[topic] = known
            self._compare(number, starts.get((first, number)), stands.get((first, number)))
            for count, (key, content) in enumerate(latest.items(), 1):
                self._restore_one(number, restored.task, key, content)
                if count % _RESTS_EACH == 0:
                    restored.rest()
            keys += len(latest)
            if isinstance(latest, DiskCopy):
                latest.close()
            all_restored[number] = restored
        seconds = round(monotonic_s() - began, 3)
        group = self._names.group
        log.info("state restored", group=group, partitions=partitions, keys=keys, records=read, seconds=seconds)
        return Prepared(starts, all_restored)

    def _compare(self, number: int, position: int | None, committed: int | None) -> None:
        # Both are committed in one transaction, or the position first.
        if position is not None and committed is not None and position < committed:
            log.error(
                "the state of a partition is older than what its group has committed: results will be told again",
                changelog=self._names.changelog, partition=number, position=position, committed=committed,
            )  # fmt: skip

    def _restore_one(self, number: int, task: Task[T], key: bytes, content: bytes) -> None:
        # Anybody may have written there, and compaction keeps it: it must not keep this worker from starting.
        try:
            task.restore(key, content)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is about this record
            self._pass_over(number, key, error)

    def _pass_over(self, number: int, key: bytes, error: Exception) -> None:
        reason = f"the record of key {shortened(repr(key), 100)} is no state of ours: {error}"
        tally.pass_over(self._names.changelog, number, None, reason)

    async def handle(self, event: SourceEvent[T], source: BatchSource[T]) -> None:
        """Take one event of the source; the work is done on a thread, in order, so the event loop stays free."""
        self._work.put((event, source))

    def _partition(self, number: int) -> _Partition[T]:
        task = self._make(number)
        if self._scratch is None or task.resting is None:
            return _Partition(task)
        shelf = DiskShelf(self._scratch.new("shelf", number))
        task.resting.on(shelf, self._settings.state_keys)
        return _Partition(task, shelf=shelf)

    def _copy(self, number: int) -> Copy:
        return Copy() if self._scratch is None else Copy(DiskCopy(self._scratch.new("copy", number)))

    def _run(self) -> None:
        failed = False
        while (work := self._work.get()) is not None:
            event, source = work
            try:
                if not failed:
                    self._deal_with(event, source)
            except BaseException as error:  # a user's sys.exit() too
                log.exception("streams cannot go on", group=self._names.group)
                failed = True
                self._failed(error if isinstance(error, Exception) else TopicError(f"user code raised {error!r}"))
            finally:
                if isinstance(event, Revoked):
                    event.done.set()
                elif not isinstance(event, Assigned):
                    source.finished()

    def _deal_with(self, event: SourceEvent[T], source: BatchSource[T]) -> None:
        if isinstance(event, Batch):
            held = self._held.get(event.partition)
            if held is not None:  # else lost meanwhile: whoever holds it now reads it
                held.advance(event)
                held.outputs += held.task.step(event, now_ms())
                held.next_offsets[event.topic] = event.next_offset
        elif isinstance(event, Tick):
            self._tick(event, source)
        elif isinstance(event, Assigned):
            self._take_over(event)
        else:
            self._let_go(event, source)

    def _take_over(self, event: Assigned) -> None:
        for number in event.partitions:
            self._held[number] = event.state[number]
        if self._standby is not None:
            self._standby.take(event.partitions)  # lost and given back before this was heard

    def _let_go(self, event: Revoked, source: BatchSource[T]) -> None:
        try:
            if not event.lost:
                self._hand_over(event.group, source)
        finally:
            for number in event.partitions:
                held = self._held.pop(number, None)
                if held is not None:
                    held.close()
            if self._standby is not None:
                self._standby.follow(event.partitions)

    def _tick(self, tick: Tick, source: BatchSource[T]) -> None:
        now = now_ms()
        for number, held in self._held.items():
            heard = {topic: tick.heard.get((topic, number), _NOTHING_HEARD) for topic in self._names.topics}
            held.outputs += held.task.tick(now, heard)
        try:
            self._commit(tick.group, source)
        except MembershipChanged as error:
            log.info("the group changes; committing at the next tick", error=str(error))

    def _hand_over(self, group: Any, source: BatchSource[T]) -> None:  # Any: opaque to everyone but the client
        try:
            self._commit(group, source)
        except TopicError as error:
            log.warning("handing over without a last commit; the next owner does it again", error=str(error))

    def _fitting(self, output: Output, number: int, held: _Partition[T]) -> Output:
        if len(output.value or b"") + len(output.key or b"") <= LARGEST_VALUE_BYTES:
            return output
        # Of which record it came is not known any more: it is one of those before what is committed now.
        topic = self._names.topics[0]
        origin = RecordRef(topic, number, held.next_offsets.get(topic, 0))
        return fitting(output, origin, topic + DEAD_LETTERS_OF, self._settings.node_id)

    def _commit(self, group: Any, source: BatchSource[T]) -> None:
        outputs: list[Output] = []
        offsets: dict[tuple[str, int], int] = {}
        changelog = self._names.changelog
        read: dict[tuple[str, int], int] = {}
        for number, held in self._held.items():
            read |= {(topic, number): offset for topic, offset in held.next_offsets.items()}
            # What has changed joins the outputs first, so that a commit that fails can be tried again whole.
            held.outputs += [Output(changelog, key, value, number) for key, value in held.task.changes()]
            held.outputs = [self._fitting(one, number, held) for one in held.outputs]
            outputs += held.outputs
            if held.outputs or held.next_offsets:
                # Also where nothing was read: a transaction without offsets is open to who is no member any more.
                offsets |= {(topic, number): offset for topic, offset in held.positions.items()}
        positions = [
            Output(changelog, _position(self._names.topics.index(topic)), b"%d" % offset, number)
            for (topic, number), offset in read.items()
        ]
        if not outputs and not positions:
            return
        self._delivery.commit(outputs, positions, offsets, group)
        if not self._delivery.commits_offsets:
            source.commit({number: Place(at) for (topic, number), at in read.items() if topic == source.topic})
        for held in self._held.values():
            held.outputs, held.next_offsets = [], {}
            held.rest()


def _delivery(settings: Settings, names: Names) -> Delivery:
    if settings.delivery == "at_least_once":
        return AtLeastOnce(settings)
    return Transactions(settings, names.transactions, names.group)


def _offset_in(position: bytes) -> int:
    offset = int(position)
    if not 0 <= offset < 2**63 or len(position) > _MOST_DIGITS:
        raise ValueError(f"{offset} is no offset")
    return offset


def _position(side: int) -> bytes:
    return b"%s.%d" % (_POSITION, side) if side else _POSITION
