"""The kernel of a detector over one partition: rows in; alerts and changed state out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np

from easyremote.errors import WindowError
from easyremote.windows.detectors.alerting import ALERT, AlertRule, Phase
from easyremote.windows.detectors.base import Detector, Floats, Ints, Scores, State
from easyremote.windows.guarding import Failed, Raised, calling, is_of_a_user
from easyremote.windows.keys import Keys, of_another_form
from easyremote.windows.resting import Resting
from easyremote.windows.rows import Key, Late, Rows
from easyremote.windows.watermarks import FUTURE_MS

__all__ = ["Alerted", "Detecting", "DetectingEffects"]

_FORGET_MS = 7 * 24 * 3_600_000
_FORGET_EACH_MS = 3_600_000
_LARGEST = 1e150
"""What is beyond is taken for this: its square must be a number."""
_FORMAT = b"\x01"
_PHASES: tuple[Phase, ...] = ("opened", "updated", "closed")


@dataclass(frozen=True, slots=True)
class Alerted:
    """What became of an alert of a key."""

    key: Key
    phase: Phase
    opened_ms: int
    """Event time of the record that opened it, ms."""
    opened_offset: int
    event_ms: int
    """Event time of the record that tells it, ms."""
    offset: int
    value: float
    expected: float
    score: float
    worst: float
    threshold: float
    """The score that would have opened it."""


@dataclass(frozen=True, slots=True)
class DetectingEffects:
    """What a step led to."""

    alerts: list[Alerted] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    """Readings on which a user's detector raised; nothing was learned from them."""


class _Turn(NamedTuple):
    """At most one reading of each series: which series, its value, its place in the batch; arrays of shape (s,)."""

    numbers: Ints
    values: Floats
    places: Ints


class Detecting:
    """A detector and its alerts for every key of one partition.

    Readings are taken in the order of the log, each scored before anything is learned from it; so what is told depends
    on the log alone, not on how it is cut into batches.

    Parameters
    ----------
    detector : Detector
        What is unusual.
    rule : AlertRule
        What becomes an alert.
    column : str
        The field that is looked at: finite numbers.
    """

    def __init__(self, detector: Detector, rule: AlertRule, column: str) -> None:
        self._detector = detector
        self._rule = rule
        self._column = column
        self._is_of_a_user = is_of_a_user(detector)
        self._threshold = float(detector.threshold)
        self._row = np.dtype([("seen_ms", "<i8"), ("alert", ALERT), ("learned", detector.dtype)])
        self._state = np.zeros(0, self._row)
        self._keys = Keys(self)
        self._changed: set[int] = set()
        self._gone: list[Key] = []
        self._forget_at_ms = 0
        self.resting = Resting(self._keys, self.restore, self._let_go)

    @property
    def keys(self) -> int:
        """How many keys it knows."""
        return len(self._keys)

    def grow(self, number: int) -> None:
        """Make room for so many keys."""
        missing = number - len(self._state)
        if missing > 0:
            self._state = np.concatenate([self._state, np.zeros(max(64, missing, len(self._state)), self._row)])

    def reset(self, number: int) -> None:
        """Begin anew with a number that another key gets."""
        self._state[number] = np.zeros((), self._row)

    def step(self, rows: Rows, now_ms: int) -> DetectingEffects:
        """Take a batch in.

        Parameters
        ----------
        rows : Rows
            At least one, in the order of the log.
        now_ms : int
            The wall clock, ms.
        """
        ahead = rows.event_ms - now_ms
        late = [
            Late(place, int(rows.event_ms[place]), int(rows.event_ms[place]) + 1, int(ahead[place]), "future")
            for place in np.flatnonzero(ahead > FUTURE_MS).tolist()
        ]
        places = np.flatnonzero(ahead <= FUTURE_MS)
        if not len(places):
            return DetectingEffects([], late)
        series = self._keys.numbers([rows.keys[place] for place in places.tolist()])
        values = np.clip(rows.columns[self._column][places].astype(np.float64), -_LARGEST, _LARGEST)
        told: list[tuple[int, Alerted]] = []
        failed: list[Failed] = []
        for turn, numbers in _turns(series):
            told += self._tried(_Turn(numbers, values[turn], places[turn]), rows, failed)
        touched = np.unique(series)
        if failed:
            lost = {one.place for one in failed}
            touched = np.unique(series[[place not in lost for place in places.tolist()]])
            for number in np.setdiff1d(series, touched).tolist():
                if not self._state["seen_ms"][number]:
                    self._keys.drop(number)
        self._state["seen_ms"][touched] = now_ms
        self._changed.update(touched.tolist())
        told.sort(key=lambda one: one[0])
        return DetectingEffects([alert for _, alert in told], late, failed)

    def forget(self, now_ms: int) -> None:
        """Forget keys that have been silent for a week."""
        if now_ms < self._forget_at_ms:
            return
        self._forget_at_ms = now_ms + _FORGET_EACH_MS
        self.resting.wake(now_ms)
        numbers = self._keys.known()
        old = numbers[self._state["seen_ms"][numbers] < now_ms - _FORGET_MS]
        for number in old.tolist():
            self._gone.append(self._keys.drop(number))
            self._changed.discard(number)

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Return key and content of everything that changed since the last time; None: forgotten."""
        changes: list[tuple[bytes, bytes | None]] = [(msgspec.json.encode(key), None) for key in self._gone]
        changes += [
            (msgspec.json.encode(self._keys[number]), self._content(number)) for number in sorted(self._changed)
        ]
        self._changed.clear()
        self._gone.clear()
        return changes

    def restore(self, key: bytes, content: bytes) -> None:
        """Put back what `changes` gave.

        Raises
        ------
        WindowError
            If it was not made by this detector.
        """
        if content[:1] != _FORMAT or len(content) != 1 + self._row.itemsize:
            raise of_another_form(key, f"{len(content)} bytes")
        (number,) = self._keys.numbers([tuple(msgspec.json.decode(key, type=list[object]))]).tolist()
        self._state[number] = np.frombuffer(content, self._row, 1, 1)[0]

    def _let_go(self, numbers: Ints, now_ms: int) -> tuple[list[bytes], Ints]:
        contents = [self._content(number) for number in numbers.tolist()]
        wakes: Ints = self._state["seen_ms"][numbers] + _FORGET_MS
        return contents, wakes

    def _content(self, number: int) -> bytes:
        row: bytes = self._state[number].tobytes()
        return _FORMAT + row

    def _tried(self, turn: _Turn, rows: Rows, failed: list[Failed]) -> list[tuple[int, Alerted]]:
        """Take a turn; where a user's detector raises, reading by reading, without those on which it does."""
        try:
            return list(self._turn(turn, rows))
        except Raised as raised:
            if len(turn.numbers) == 1:
                failed.append(Failed(int(turn.places[0]), raised.stage, raised.error))
                return []
        numbers, values, places = turn
        single = [_Turn(numbers[at : at + 1], values[at : at + 1], places[at : at + 1]) for at in range(len(numbers))]
        return [told for one in single for told in self._tried(one, rows, failed)]

    def _scores(self, learned: State, event_ms: Ints, values: Floats) -> Scores:
        if not self._is_of_a_user:
            return self._detector.score(learned, event_ms, values)
        with calling("detect"):
            found = self._detector.score(learned, event_ms, values.copy())
            score, expected = (np.broadcast_to(np.asarray(one, np.float64), values.shape) for one in found)
            if not (np.isfinite(score).all() and np.isfinite(expected).all()):
                raise WindowError("the detector gave a score or an expected value that is no finite number")
            return Scores(score, expected)

    def _turn(self, turn: _Turn, rows: Rows) -> Iterator[tuple[int, Alerted]]:
        """Take one reading of each of some keys in; yield what is told, and at which place of the batch."""
        numbers, values, places = turn
        state = self._state[numbers]
        learned, alert = state["learned"], state["alert"]
        event_ms, offsets = rows.event_ms[places], rows.offsets[places]
        scores = self._scores(learned, event_ms, values)
        threshold = np.full(len(numbers), self._threshold)
        bar = threshold * np.exp(alert["bar"])
        changed = self._rule.step(alert, threshold, scores.score, event_ms, offsets)
        self._state[numbers] = state
        for phase, which in zip(_PHASES, changed, strict=True):
            for one in which.tolist():
                place = int(places[one])
                yield (
                    place,
                    self._alerted(phase, alert[one], rows, place, (float(values[one]), float(bar[one])), scores, one),
                )

    def _alerted(  # noqa: PLR0913, PLR0917  # all that an alert tells
        self,
        phase: Phase,
        alert: State,
        rows: Rows,
        place: int,
        seen: tuple[float, float],
        scores: Scores,
        one: int,
    ) -> Alerted:
        return Alerted(
            key=rows.keys[place],
            phase=phase,
            opened_ms=int(alert["opened_ms"]),
            opened_offset=int(alert["offset"]),
            event_ms=int(rows.event_ms[place]),
            offset=int(rows.offsets[place]),
            value=seen[0],
            expected=float(scores.expected[one]),
            score=float(scores.score[one]),
            worst=float(alert["worst"]),
            threshold=seen[1],
        )


def _turns(series: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield places of at most one reading of each series at a time, in the order of the log, and their series."""
    order = np.argsort(series, kind="stable")
    first = np.flatnonzero(np.diff(series[order], prepend=-1))
    count = np.diff(first, append=len(order))
    # The series with most readings first: those that still have one are a prefix.
    by_count = np.argsort(-count, kind="stable")
    first, count = first[by_count], count[by_count]
    alive = len(first)
    for turn in range(int(count[0])):
        while count[alive - 1] <= turn:
            alive -= 1
        places = order[first[:alive] + turn]
        yield places, series[places]
