"""Records of a pipeline's source as columns; what cannot be read is told apart, not dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from easyremote.pipelines.pipeline import Pipeline, Record
from easyremote.windows import Rows

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["Decoded", "Decoder"]

_Time = Annotated[int, msgspec.Meta(ge=0, lt=2**48)]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch: its messages, those that go on as rows, and those that cannot be read."""

    messages: Sequence[Message]
    places: Sequence[int]
    """Place in `messages` of each row."""
    rows: Rows | None
    malformed: Sequence[tuple[int, Exception]]


class Decoder:
    """Decodes a pipeline's records once, to the columns that it needs.

    Parameters
    ----------
    pipeline : Pipeline
        Which fields, and what is done with each record first.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._columns = pipeline.columns
        self._names = tuple(dict.fromkeys((*pipeline.key, *self._columns, pipeline.timestamp, *pipeline.types)))
        # Field names may be no Python names, or a struct's own: so each has a number.
        fields = [(f"f{number}", self._type(name)) for number, name in enumerate(self._names)]
        renamed = {f"f{number}": name for number, name in enumerate(self._names)}
        self._struct = msgspec.defstruct("Row", fields, rename=renamed, gc=False, frozen=True)
        self._typed = msgspec.json.Decoder(self._struct)
        self._getters = {name: f"f{number}" for number, name in enumerate(self._names)}
        self._numeric = tuple(name for name in self._columns if pipeline.types.get(name) in {int, float})

    def decode(self, _partition: int, messages: Sequence[Message]) -> Decoded:
        """Decode a batch; runs on the source's thread."""
        decode = self._with_steps if self._pipeline.steps else self._one
        found: list[Any] = []
        places: list[int] = []
        malformed: list[tuple[int, Exception]] = []
        for place, message in enumerate(messages):
            try:
                row = decode(message.value())
            except Exception as error:  # noqa: BLE001  # a user's function may raise anything; the letter tells it
                malformed.append((place, error))
            else:
                if row is not None:
                    found.append(row)
                    places.append(place)
        if not found:
            return Decoded(messages, places, None, malformed)
        return Decoded(messages, places, self._rows(found, messages, places), malformed)

    def _type(self, name: str) -> Any:  # Any: what msgspec takes for a type
        if name == self._pipeline.timestamp:
            return _Time
        if name in self._pipeline.types:
            return self._pipeline.types[name]
        return str | int | float | bool if name in self._pipeline.key else Any

    def _one(self, value: str | bytes | None) -> Any:  # Any: the struct is made at run time
        return self._typed.decode(value or b"")

    def _with_steps(self, value: str | bytes | None) -> Any:
        record: Record = msgspec.json.decode(value or b"", type=dict[str, Any])
        for step in self._pipeline.steps:
            changed = step(record)
            if changed is None:
                return None
            record = changed
        return msgspec.convert(record, self._struct)

    def _rows(self, found: list[Any], messages: Sequence[Message], places: Sequence[int]) -> Rows:
        keys = [self._getters[name] for name in self._pipeline.key]
        columns = {
            name: self._column(name, [getattr(row, self._getters[name]) for row in found]) for name in self._columns
        }
        time = self._getters[self._pipeline.timestamp]
        return Rows(
            list(zip(*([getattr(row, key) for row in found] for key in keys), strict=True)),
            np.array([getattr(row, time) for row in found], np.int64),
            np.array([messages[place].offset() for place in places], np.int64),
            columns,
        )

    def _column(self, name: str, values: list[Any]) -> npt.NDArray[Any]:
        if name in self._numeric:
            return np.array(values, np.float64)
        column = np.empty(len(values), object)
        column[:] = values
        return column
