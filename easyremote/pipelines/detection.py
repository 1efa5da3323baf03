"""The stage that looks for anomalies: a detector's findings as alerts for the sink."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from easyremote.pipelines.stages import Changes, Origin, Result, Told
from easyremote.topics.records import RecordRef
from easyremote.topics.wire import uuid7
from easyremote.windows import Rows
from easyremote.windows.detectors import Alerted, AlertRule, Detecting, Detector
from easyremote.windows.watermarks import Heard

__all__ = ["Detection"]


@dataclass(frozen=True)
class Detection:
    """A detector and what becomes an alert.

    Parameters
    ----------
    detector : Detector
        What is unusual.
    rule : AlertRule
        What becomes an alert.
    column : str
        The field that is looked at.
    """

    detector: Detector
    rule: AlertRule
    column: str
    has_state: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        """The field that is looked at."""
        return (self.column,)

    def kernel(self, key: tuple[str, ...], origin: Origin) -> _DetectionKernel:
        """Return the detector of one partition."""
        return _DetectionKernel(key, origin, self)

    def described(self) -> list[tuple[str, str]]:
        """Return detector and rule."""
        return [("detect", f"{self.detector} in {self.column}"), ("alert", f"{self.rule}")]


class _DetectionKernel:
    def __init__(self, key: tuple[str, ...], origin: Origin, asked: Detection) -> None:
        self._key = key
        self._origin = origin
        self._asked = asked
        self._detecting = Detecting(asked.detector, asked.rule, asked.column)
        self.resting = self._detecting.resting

    def step(self, side: int, rows: Rows, now_ms: int) -> Told:
        effects = self._detecting.step(rows, now_ms)
        return Told(self._records(effects.alerts), effects.late, effects.failed)

    def close_idle(self, now_ms: int, heard: Sequence[Heard] | None = None) -> Told:
        self._detecting.forget(now_ms)
        return Told([])

    def changes(self) -> Changes:
        return self._detecting.changes()

    def restore(self, key: bytes, content: bytes) -> None:
        self._detecting.restore(key, content)

    def _records(self, alerts: Sequence[Alerted]) -> list[Result]:
        return [Result(one.key, self._record(one)) for one in alerts]

    def _record(self, one: Alerted) -> dict[str, object]:
        kind, column = self._asked.detector.kind, self._asked.column
        topic, partition = self._origin
        whose = ", ".join(str(part) for part in one.key)
        told = f"{column} of {whose} is {one.value:g}, expected about {one.expected:g}"
        offsets = dict.fromkeys((one.opened_offset, one.offset))
        return {
            "id": self._id(one),
            "kind": kind,
            "phase": one.phase,
            **dict(zip(self._key, one.key, strict=True)),
            "timestamp_ms": one.event_ms,
            "opened_ms": one.opened_ms,
            "value": one.value,
            "expected": one.expected,
            "score": one.score,
            "worst_score": one.worst,
            "threshold": one.threshold,
            "message": f"{kind} {one.phase}: {told}; score {one.score:.2f} of {one.threshold:.2f}",
            "records": [RecordRef(topic, partition, offset) for offset in offsets],
        }

    def _id(self, one: Alerted) -> str:
        # From the record that opened it: after a replay, and in all its phases, the alert is the same one.
        asked = (self._asked.detector.kind, self._asked.column, *self._origin, one.opened_offset, one.key)
        digest = hashlib.blake2b(msgspec.json.encode(asked), digest_size=10).digest()
        return uuid7(one.opened_ms, digest)
