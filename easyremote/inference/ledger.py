"""What a node has taken from its partitions and not answered yet: what it may commit, and when it may let go."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping

from easyremote.topics.doneset import NOTHING, DoneSet, Place, encode_done

__all__ = ["Ledger", "OffsetTracker"]

_NONE_DONE: Mapping[int, DoneSet] = {}


class OffsetTracker:
    """Tells what may be committed: the lowest offset not answered, and which above it are. Pure.

    Parameters
    ----------
    done : DoneSet
        What the one who held the partition before has answered above the committed offset.

    Examples
    --------
    >>> tracker = OffsetTracker()
    >>> for offset in (5, 6, 9):
    ...     tracker.take(offset)
    >>> tracker.finish(6), tracker.committable()
    (None, Place(offset=5, metadata='1AQM='))
    >>> tracker.finish(5), tracker.committable()
    (None, Place(offset=9, metadata=''))
    """

    def __init__(self, done: DoneSet = NOTHING) -> None:
        self.open: dict[int, int] = {}
        """What is taken and not finished: start to end of what was taken together, in the order of the log."""
        self._next: int | None = None
        self._reported: Place | None = None
        self._inherited = done

    def take(self, offset: int, next_offset: int | None = None) -> None:
        """Note an offset that is being worked on, or a batch from it to before `next_offset`; offsets rise."""
        if self._next is None and not self._inherited:
            self._reported = Place(offset)  # where the group stood when this partition came
        self._next = self.open[offset] = offset + 1 if next_offset is None else next_offset

    def skip(self, offset: int) -> None:
        """Note an offset that was read and is answered already; offsets rise."""
        self._next = offset + 1

    @property
    def inherits(self) -> bool:
        """Whether the one before has answered something that was not read yet."""
        return bool(self._inherited)

    def was_done(self, offset: int) -> bool:
        """Say whether it was answered before this partition came."""
        return offset in self._inherited

    def finish(self, offset: int) -> None:
        """Note that what was taken at an offset is answered; twice is the same as once."""
        self.open.pop(offset, None)

    @property
    def read_to(self) -> int | None:
        """The next offset to read; None: nothing was read yet."""
        return self._next

    def committable(self) -> Place | None:
        """Return what to commit, or None if nothing has moved since the last time."""
        place = self.standing()
        if place is None or self._next is None:
            return None
        if self._inherited.end <= self._next:
            self._inherited = NOTHING
        if place == self._reported:
            return None
        self._reported = place
        return place

    def standing(self) -> Place | None:
        """Return what could be committed, moved or not; None if nothing was read."""
        if self._next is None:
            return None
        lowest = next(iter(self.open), self._next)
        return Place(lowest, encode_done(lowest, self._done(self._next)))

    def _done(self, read_to: int) -> Iterator[tuple[int, int]]:
        # What was read and is not open is answered; of what was not read yet, the one before has said so.
        at: int | None = None
        for start, end in self.open.items():
            if at is not None and start > at:
                yield at, start
            at = end
        if at is not None and read_to > at:
            yield at, read_to
        yield from self._inherited.runs(since=read_to)


class _Holding:
    """One partition while this node holds it."""

    def __init__(self, generation: int, done: DoneSet = NOTHING) -> None:
        self.generation = generation
        self.tracker = OffsetTracker(done)
        self.running = 0


class Ledger:
    """Keeps account of the calls of every partition held; safe to use from several threads.

    A holding has a generation, so that what was started for a partition that was lost meanwhile is not taken for
    what was started after it came back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._holdings: dict[int, _Holding] = {}
        self._leaving: set[int] = set()
        self._generation = 0

    def assign(self, partitions: Iterable[int], done: Mapping[int, DoneSet] = _NONE_DONE) -> None:
        """Begin to hold partitions; `done` says what of them was answered above where the group stands."""
        with self._lock:
            self._generation += 1
            for number in partitions:
                self._holdings[number] = _Holding(self._generation, done.get(number, NOTHING))
                self._leaving.discard(number)

    def take(self, partition: int, offsets: Iterable[int]) -> tuple[int, frozenset[int]]:
        """Note offsets that were read, in rising order.

        Returns
        -------
        int
            The generation of the holding.
        frozenset of int
            Those of the offsets that need nothing: they were answered before this partition came.
        """
        answered: set[int] = set()
        with self._lock:
            holding = self._holding(partition)
            tracker = holding.tracker
            if not tracker.inherits:
                for offset in offsets:
                    tracker.take(offset)
                return holding.generation, frozenset()
            for offset in offsets:
                if tracker.was_done(offset):
                    tracker.skip(offset)
                    answered.add(offset)
                else:
                    tracker.take(offset)
            return holding.generation, frozenset(answered)

    def take_batch(self, partition: int, first_offset: int, next_offset: int) -> int:
        """Note a batch that is finished as one, by its first offset; return the generation of the holding."""
        with self._lock:
            holding = self._holding(partition)
            holding.tracker.take(first_offset, next_offset)
            return holding.generation

    def start(self, partition: int, generation: int) -> bool:
        """Say whether a call may be run, and count it as running if so."""
        with self._lock:
            holding = self._current(partition, generation)
            if holding is None or partition in self._leaving:
                return False
            holding.running += 1
            return True

    def holds(self, partition: int, generation: int) -> bool:
        """Say whether a call that was started is still this node's to answer."""
        return self._current(partition, generation) is not None

    def finish(self, partition: int, generation: int, offset: int, *, ran: bool) -> None:
        """Note that a call is answered, or refused without having run."""
        with self._lock:
            holding = self._current(partition, generation)
            if holding is None:
                return
            holding.tracker.finish(offset)
            if ran:
                holding.running -= 1
                if self._leaving:
                    self._changed.notify_all()

    def committable(self) -> dict[int, Place]:
        """Return what to commit of each partition where it has moved."""
        with self._lock:
            moved = {number: holding.tracker.committable() for number, holding in self._holdings.items()}
        return {number: place for number, place in moved.items() if place is not None}

    def standing(self) -> dict[int, Place]:
        """Return where each partition stands of which something was read, moved or not."""
        with self._lock:
            places = {number: holding.tracker.standing() for number, holding in self._holdings.items()}
        return {number: place for number, place in places.items() if place is not None}

    def leave(self, partitions: Iterable[int], timeout_s: float) -> bool:
        """Start nothing more of these partitions and wait for what runs; say whether it ended in time."""
        leaving = set(partitions)
        with self._lock:
            self._leaving |= leaving
            return self._changed.wait_for(
                lambda: not any(holding.running for number, holding in self._holdings.items() if number in leaving),
                timeout_s,
            )

    def drop(self, partitions: Iterable[int]) -> None:
        """End holding partitions; what still runs for them is not this node's any more."""
        with self._lock:
            for number in partitions:
                self._holdings.pop(number, None)
                self._leaving.discard(number)
            self._changed.notify_all()

    def read_to(self) -> dict[int, int]:
        """Return the next offset to read of each partition of which something was read."""
        with self._lock:
            reached = {number: holding.tracker.read_to for number, holding in self._holdings.items()}
        return {number: offset for number, offset in reached.items() if offset is not None}

    @property
    def pending(self) -> int:
        """How many calls are taken and not answered."""
        with self._lock:
            return sum([len(holding.tracker.open) for holding in self._holdings.values()])

    @property
    def partitions(self) -> list[int]:
        """The partitions held, sorted."""
        with self._lock:
            return sorted(self._holdings)

    def _holding(self, partition: int) -> _Holding:
        holding = self._holdings.get(partition)
        if holding is None:
            holding = self._holdings[partition] = _Holding(self._generation)
        return holding

    def _current(self, partition: int, generation: int) -> _Holding | None:
        holding = self._holdings.get(partition)
        return holding if holding is not None and holding.generation == generation else None
