"""What stands in the topics, as a test says, for who looks there whether something was sent."""

from __future__ import annotations

from collections.abc import Iterable

from easyremote.topics.records import RecordRef
from easyremote.topics.tails import Told


class Written:
    """Stands for `Tails`: answers at once, or when it is told to."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.records: dict[tuple[str, bytes], RecordRef] = {}
        self.missing: set[str] = set()
        self.asked: list[tuple[tuple[str, int | None], ...]] = []
        self.seen = None
        self._at_once = at_once
        self._waiting: list[tuple[tuple[tuple[str, int | None], ...], tuple[bytes, ...], Told]] = []

    def put(self, topic: str, mark: bytes, partition: int = 0, offset: int = 0) -> None:
        """Let a record stand in a topic."""
        self.records[topic, mark] = RecordRef(topic, partition, offset)

    def ask(
        self, places: Iterable[tuple[str, int | None]], _since_ms: float, marks: Iterable[bytes], told: Told
    ) -> None:
        question = (tuple(places), tuple(marks), told)
        self._waiting.append(question)
        self.asked.append(question[0])
        if self._at_once:
            self.answer()

    def answer(self) -> None:
        """Answer what was asked."""
        waiting, self._waiting = self._waiting, []
        for places, marks, told in waiting:
            found: dict[bytes, list[RecordRef]] = {}
            for (topic, mark), place in self.records.items():
                if mark in marks and any(topic == name or topic.startswith(name.rstrip("*")) for name, _ in places):
                    found.setdefault(mark, []).append(place)
            told(found, {name for name, _ in places} & self.missing)
