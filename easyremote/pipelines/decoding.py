"""Records of a pipeline's source as columns; what cannot be read is told apart, not dropped."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from easyremote.errors import WindowError
from easyremote.pipelines.encoding import encoded_as_json
from easyremote.pipelines.pipeline import Pipeline, Record
from easyremote.pipelines.steps import stage_of, stepped
from easyremote.windows import Rows
from easyremote.windows.guarding import Failed
from easyremote.windows.joining import JOINED

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["READ", "Decoded", "Decoder", "offsets_of"]

READ = "read"
"""The stage at which a record is decoded and its types are checked."""
_UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, RecursionError, LookupError, WindowError)

_Time = Annotated[int, msgspec.Meta(ge=0, lt=2**48)]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch: its messages, those that go on as rows, and those that cannot be read."""

    messages: Sequence[Message]
    places: Sequence[int]
    """Place in `messages` of each row."""
    rows: Rows | None
    failed: Sequence[Failed]
    """What cannot be read, and what a user's function raised on."""


class Decoder:
    """Decodes the records of one of a pipeline's sources once, to the columns that it needs.

    Parameters
    ----------
    pipeline : Pipeline
        Which fields, and what is done with records first.
    side : int
        Which of its sources.
    """

    def __init__(self, pipeline: Pipeline, side: int = 0) -> None:
        self._source = source = pipeline.sources[side]
        self._key = source.key
        self._columns = pipeline.stage.columns
        self._timed = pipeline.stage.has_state
        names = (*self._key, *(name for name in self._columns if name != JOINED), *source.needed)
        if not source.steps:
            names = (*names, *source.types)
        self._names = tuple(dict.fromkeys((*names, source.timestamp) if self._timed else names))
        # Field names may be no Python names, or a struct's own: so each has a number.
        fields = [(f"f{number}", self._type(name)) for number, name in enumerate(self._names)]
        renamed = {f"f{number}": name for number, name in enumerate(self._names)}
        self._struct = msgspec.defstruct("Row", fields, rename=renamed, gc=False, frozen=True)
        self._typed = msgspec.json.Decoder(self._struct)
        self._object = msgspec.json.Decoder(dict[str, Any])
        # What comes in is checked before a function sees it.
        checked = [(f"f{number}", kind) for number, kind in enumerate(source.types.values())]
        renamed = {f"f{number}": name for number, name in enumerate(source.types)}
        self._check = msgspec.json.Decoder(msgspec.defstruct("Checked", checked, rename=renamed)).decode
        self._getters = {name: attrgetter(f"f{number}") for number, name in enumerate(self._names)}
        self._numeric = tuple(name for name in self._columns if self._type(name) in {int, float})
        self._whole = JOINED in self._columns

    def decode(self, _partition: int, messages: Sequence[Message]) -> Decoded:
        """Decode a batch; runs on the source's thread."""
        failed: list[Failed] = []
        whole: dict[int, bytes] = {}
        if not self._source.steps and not self._whole:
            rows = self._all(messages)
            if rows is not None:
                return self._decoded(messages, range(len(messages)), rows, whole, failed)
        values = _values(messages)
        if self._source.steps:
            found, whole = self._changed(values, failed)
        else:
            if self._whole:
                # Fields that nobody looks at are not decoded, and so their letters are not checked either.
                whole = values = _each(_checked, values, failed)
            found = _each(self._typed.decode, values, failed)
        return self._decoded(messages, list(found), list(found.values()), whole, failed)

    def _all(self, messages: Sequence[Message]) -> list[Any] | None:
        """Return each message's row; None if one cannot be read, also one without a value."""
        try:
            return list(map(self._typed.decode, [message.value() for message in messages]))  # type: ignore[arg-type]
        except _UNREADABLE:
            return None

    def _changed(self, values: dict[int, bytes], failed: list[Failed]) -> tuple[dict[int, Any], dict[int, bytes]]:
        """Return the rows that the user's functions leave, and the records as JSON where those are asked for."""
        decode, steps = self._object.decode, self._source.steps
        if self._source.types:
            values = {place: values[place] for place in _each(self._check, values, failed)}
        first = _each(decode, values, failed)
        records = stepped(steps, list(first), lambda place: first.pop(place, None) or decode(values[place]), failed)
        last = stage_of(steps, len(steps) - 1)
        whole: dict[int, bytes] = {}
        if self._whole:
            whole = _each(functools.partial(encoded_as_json, what="the record"), records, failed, last)
            records = {place: records[place] for place in whole}
        return _each(self._row, records, failed, last), whole

    def _row(self, record: Record) -> Any:  # Any: a struct made at run time
        row = msgspec.convert(record, type=self._struct)
        for name in (*self._key, *self._source.needed):
            value = self._getters[name](row)
            if isinstance(value, float) and not math.isfinite(value):
                raise WindowError(f"{name!r} is {value}: a key, and what a detector looks at, must be finite")
        return row

    def _type(self, name: str) -> Any:  # Any: what msgspec takes for a type
        if name == self._source.timestamp and self._timed:
            return _Time
        # What the functions make of a field that was checked may be of another type.
        known = self._source.needed if self._source.steps else {**self._source.types, **self._source.needed}
        if name in known:
            return known[name]
        return str | int | float | bool if name in self._key else Any

    def _decoded(
        self,
        messages: Sequence[Message],
        places: Sequence[int],
        rows: list[Any],  # Any: the struct is made at run time
        whole: dict[int, bytes],
        failed: list[Failed],
    ) -> Decoded:
        if not places:
            return Decoded(messages, places, None, failed)
        columns = {name: self._column(name, rows) for name in self._columns if name != JOINED}
        if self._whole:
            columns[JOINED] = _objects([whole[place] for place in places])
        times = np.zeros(len(rows), np.int64)
        if self._timed:
            times = np.fromiter(map(self._getters[self._source.timestamp], rows), np.int64, len(rows))
        keys = list(zip(*(map(self._getters[name], rows) for name in self._key), strict=True))
        return Decoded(
            messages,
            places,
            Rows(keys or [()] * len(rows), times, offsets_of(messages, places), columns),
            failed,
        )

    def _column(self, name: str, rows: list[Any]) -> npt.NDArray[Any]:
        getter = self._getters[name]
        values = map(getter, rows)
        if name not in self._numeric:
            found = list(values)
            # What a function has left as numbers is worked on as numbers.
            return np.array(found, np.float64) if set(map(type, found)) == {float} else _objects(found)
        try:
            return np.fromiter(values, np.float64, len(rows))
        except OverflowError:
            return np.array([_float(getter(row)) for row in rows], np.float64)


def _float(value: float) -> float:
    """Return a number as a float; an integer beyond all floats is an infinity, which aggregates count as invalid."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def offsets_of(messages: Sequence[Message], places: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the offsets of the messages at some places, at least one, rising."""
    first, last = messages[places[0]].offset() or 0, messages[places[-1]].offset() or 0
    if last - first + 1 == len(places):
        return np.arange(first, last + 1)
    # A transaction's marker or a malformed record leaves a hole.
    return np.array([messages[place].offset() for place in places], np.int64)


def _values(messages: Sequence[Message]) -> dict[int, bytes]:
    values = (message.value() or b"" for message in messages)
    return {place: value if isinstance(value, bytes) else value.encode() for place, value in enumerate(values)}


def _checked(value: bytes) -> bytes:
    value.decode()
    return value


def _each(
    decode: Callable[[Any], Any],  # Any: a record, or a struct made at run time
    values: Mapping[int, Any],
    failed: list[Failed],
    stage: str = READ,
) -> dict[int, Any]:
    """Return what is made of each place's value; what fails is noted."""
    try:
        return {place: decode(value) for place, value in values.items()}
    except _UNREADABLE:
        found = {}
        for place, value in values.items():
            try:
                found[place] = decode(value)
            except _UNREADABLE as error:
                failed.append(Failed(place, stage, error))
        return found


def _objects(values: list[Any]) -> npt.NDArray[Any]:
    column = np.empty(len(values), object)
    column[:] = values
    return column
