"""The functions of a user's that records go through first: each record that one raises on is told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from easyremote.errors import WindowError
from easyremote.pipelines.pipeline import Record, Step
from easyremote.windows.guarding import Failed, Raised, calling

__all__ = ["OfEach", "stage_of", "stepped"]

Records = dict[int, Record]
"""By their place in the batch."""


@dataclass(frozen=True)
class OfEach:
    """A function of one record, `map` or `filter`, as a step."""

    kind: Literal["map", "filter"]
    function: Callable[[Record], Any]  # Any: a user's function may give anything

    def __call__(self, records: Any) -> list[Record | None]:
        """Return what becomes of each record."""
        return [self.of(record) for record in records]

    def of(self, record: Record) -> Record | None:
        """Return what becomes of a record; None: it is dropped.

        Raises
        ------
        WindowError
            If `map` gave no dict.
        """
        made = self.function(record)
        if self.kind == "filter":
            return record if made else None
        if not isinstance(made, dict):
            raise WindowError(
                f"map() gave {type(made).__name__} and no dict: return the record, or a new dict; to drop records use "
                ".filter(...)"
            )
        return made


def stage_of(steps: tuple[Step, ...], number: int) -> str:
    """Return what a step is called in a dead letter, such as `map 1`: which of the pipeline's functions it is."""
    step = steps[number]
    return f"{step.kind if isinstance(step, OfEach) else 'map_batches'} {number + 1}"


def stepped(steps: tuple[Step, ...], places: list[int], read: Callable[[int], Record], failed: list[Failed]) -> Records:
    """Return what steps make of records; those on which one raises are noted as failed.

    Parameters
    ----------
    steps : tuple of callable
        In order.
    places : list of int
        Of the records in the batch.
    read : callable
        `(place) -> record`, anew each time: where a function over a batch raises it is called again with parts of the
        batch, and may have changed what it was given.
    failed : list of Failed
        Is added to.
    """
    records = {place: read(place) for place in places}
    for number, step in enumerate(steps):
        if isinstance(step, OfEach):
            records = _each(step, stage_of(steps, number), records, failed)
        elif records:
            records = _together(steps, number, records, read, failed)
    return records


def _each(step: OfEach, stage: str, records: Records, failed: list[Failed]) -> Records:
    kept: Records = {}
    # One iterator for all tries: who raised is passed, and nobody is asked twice.
    pending: Iterator[tuple[int, Record]] = iter(records.items())
    place = -1
    while True:
        try:
            with calling(stage):
                for place, record in pending:
                    made = step.of(record)
                    if made is not None:
                        kept[place] = made
        except Raised as raised:
            failed.append(Failed(place, raised.stage, raised.error))
        else:
            return kept


def _together(
    steps: tuple[Step, ...], number: int, records: Records, read: Callable[[int], Record], failed: list[Failed]
) -> Records:
    try:
        return _made(steps[number], stage_of(steps, number), records)
    except Raised as raised:
        places = list(records)
        if len(places) == 1:
            failed.append(Failed(places[0], raised.stage, raised.error))
            return {}
    kept: Records = {}
    middle = len(places) // 2
    for half in (places[:middle], places[middle:]):
        again = stepped(steps[:number], half, read, failed)
        if again:
            kept |= _together(steps, number, again, read, failed)
    return kept


def _made(step: Step, stage: str, records: Records) -> Records:
    with calling(stage):
        made = step(list(records.values()))
        if len(made) != len(records):
            raise WindowError(
                f"a function gave {len(made)} records for {len(records)}: give one for each, None to drop it"
            )
        for one in made:
            if one is not None and not isinstance(one, dict):
                raise WindowError(f"a function gave {type(one).__name__} and no dict for a record: None would drop it")
        return {place: record for place, record in zip(records, made, strict=True) if record is not None}
