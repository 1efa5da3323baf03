"""A source whose broker says no, or whose receiver raises, begins again where the group stands."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from easyremote.settings import Settings
from easyremote.threads import ThreadFailed
from easyremote.topics import source
from easyremote.topics.doneset import Place
from easyremote.topics.events import Assigned, Batch, Prepared, Revoked, SourceEvent
from easyremote.topics.profiles import CALLS
from easyremote.topics.retry import Backoff
from easyremote.topics.source import BatchSource
from scripted import TOPIC, Record, ScriptedConsumer, Step, comes, given

WAIT_S = 20


def says(name: str) -> KafkaException:
    return KafkaException(KafkaError(getattr(KafkaError, name)))


def raises(error: Exception) -> Step:
    def step(_member: ScriptedConsumer) -> Record:
        raise error

    return step


class Member:
    """Notes what it is given; its clients are one, so that each begins where the script stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, client: ScriptedConsumer, **how: Any) -> None:
        self.events: list[str] = []
        self.made = 0
        self.client = client
        client.replace(monkeypatch)
        monkeypatch.setattr(source, "Consumer", self._make)
        monkeypatch.setattr(source, "_BACKOFF", Backoff(0.0, 0.0))
        monkeypatch.setattr(source, "_SOON", Backoff(0.0, 0.0))
        self.source: BatchSource[Any] = BatchSource(
            Settings(kafka="none:1"), TOPIC, "nodes", CALLS, self._decode, self._take, **how
        )
        self.poison: list[int] = []

    def _make(self, _config: Any) -> ScriptedConsumer:
        self.made += 1
        return self.client

    def _decode(self, _partition: int, messages: Sequence[Any]) -> None:
        if self.poison and messages[0].offset() in self.poison:
            self.poison.clear()
            raise RecursionError("nested too deep")

    def _take(self, event: SourceEvent[None]) -> None:
        if isinstance(event, Batch):
            self.events.append(f"read {event.first_offset}")
            self.source.finished()
        elif isinstance(event, Assigned):
            self.events.append("given")
        elif isinstance(event, Revoked):
            self.events.append("lost" if event.lost else "revoked")


@pytest.mark.parametrize("name", ["_TRANSPORT", "COORDINATOR_LOAD_IN_PROGRESS", "UNKNOWN_MEMBER_ID"])
def test_an_error_that_passes_is_not_the_end_of_a_source(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    member = Member(monkeypatch, ScriptedConsumer())
    member.client.play(member.source, [given, raises(says(name)), given, comes(Record(5))])
    assert member.events == ["given", "lost", "given", "read 5"]
    assert member.made == 2


def test_what_a_receiver_raised_on_is_read_again_by_another_client(monkeypatch: pytest.MonkeyPatch) -> None:
    member = Member(monkeypatch, ScriptedConsumer())
    member.poison = [5]
    with pytest.raises(RecursionError):
        member.client.play(member.source, [given, comes(Record(5))])
    member.source._stopping.clear()
    member.client.play(member.source, [given, comes(Record(5))])
    assert member.events == ["given", "lost", "given", "read 5"]


def test_whoever_prepares_partitions_is_told_when_the_source_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[threading.Event] = []

    def prepare(_partitions: tuple[int, ...], stopping: threading.Event) -> Prepared:
        told.append(stopping)
        return Prepared()

    member = Member(monkeypatch, ScriptedConsumer(), prepare=prepare)
    member.client.play(member.source, [given])
    assert told == [member.source._stopping]


def test_a_source_that_cannot_go_on_ends_its_worker_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    member = Member(monkeypatch, ScriptedConsumer())
    told: list[Exception] = []
    crashed = threading.Event()

    class Loop:
        def call_soon_threadsafe(self, _ensure: Any, coroutine: Any) -> None:
            coroutine.close()
            crashed.set()

    member.source._event_loop = Loop()  # type: ignore[assignment]

    async def crash(error: Exception) -> None: ...

    def note(error: Exception) -> Any:
        told.append(error)
        return crash(error)

    monkeypatch.setattr(member.source, "crash", note)
    member.source._give_up(ThreadFailed("again and again"))
    assert crashed.wait(WAIT_S)
    assert [type(one) for one in told] == [ThreadFailed]


def test_where_the_group_stands_is_asked_again_while_it_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    client = ScriptedConsumer({0: Place(7, "all before")})
    failures: list[Any] = [
        says("_TIMED_OUT"),
        says("COORDINATOR_LOAD_IN_PROGRESS"),
        KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT),  # of the one partition
    ]
    tell = client.committed

    def committed(asked: list[TopicPartition], timeout: float) -> list[Any]:
        if not failures:
            return tell(asked, timeout)
        failure = failures.pop(0)
        if isinstance(failure, KafkaException):
            raise failure
        return [type("Told", (), {"error": failure, "partition": 0, "offset": -1, "metadata": None})]

    monkeypatch.setattr(client, "committed", committed)
    claimed: list[dict[int, Place]] = []
    member = Member(monkeypatch, client, claim=lambda _partitions, places, _stopping: claimed.append(places))
    member.client.play(member.source, [given])
    assert (claimed, failures) == ([{0: Place(7, "all before")}], [])
