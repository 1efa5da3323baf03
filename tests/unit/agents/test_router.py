"""What the router sends on, refuses and commits, with the broker's sides played by the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
from easyremote.agents import routed_before
from easyremote.agents.arrived import decode_arrived
from easyremote.agents.router import Router
from easyremote.inference.strategies import Choice
from easyremote.settings import Settings
from easyremote.topics.doneset import Place
from easyremote.topics.events import Assigned, Batch
from easyremote.topics.tenure import Tenure
from tailed import Written

SETTINGS = Settings(kafka="none:1", node_id="router")
CALL = b'{"function": "f", "id": "a"}'
LATE = [("easyremote_deadline_ms", b"1")]


class _Message:
    def __init__(self, offset: int, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        self._offset, self._value, self._headers = offset, value, headers

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000

    def value(self) -> bytes:
        return self._value

    def key(self) -> None:
        return None

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers


class _Nodes:
    """Stands for the nodes that are alive: each call goes to another partition than the one before."""

    def __init__(self) -> None:
        self.alive = True
        self._next = 0

    def knows(self, function: str) -> bool:
        return function == "f"

    def choose(self, _call: Any) -> Choice | None:
        self._next += 1
        return Choice("node", "general", self._next) if self.alive else None


class _Case:
    """A router, and all that it sends; nothing is acknowledged before the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, ends: int = 0) -> None:
        monkeypatch.setattr(routed_before, "TopicAdmin", lambda _settings: None)
        monkeypatch.setattr(routed_before, "wait_for_ends", lambda _admin, asked, _stopping: dict.fromkeys(asked, ends))
        self.written, self.nodes = Written(), _Nodes()
        self.sent: list[tuple[str, int | None, dict[str, bytes]]] = []
        self.committed: dict[int, Place] = {}
        self.tenure = Tenure(1e9)
        self._deliveries: list[Callable[[], None]] = []
        self._offset = 0
        self.router = Router(SETTINGS, cast(Any, self), cast(Any, self.written), cast(Any, self.nodes), self._fail)
        self.router.claim((0,), {}, threading.Event())
        self._handle(Assigned((0,)))

    def arrive(self, value: bytes = CALL, headers: list[tuple[str, bytes]] | None = None) -> None:
        """Let a record come."""
        message = cast(Any, _Message(self._offset, value, headers or []))
        self._offset += 1
        content = decode_arrived("requests", "")(0, [message])
        self._handle(Batch("requests", 0, self._offset - 1, self._offset, content))

    def acknowledge(self, count: int) -> None:
        """Acknowledge the first records that are not."""
        due, self._deliveries = self._deliveries[:count], self._deliveries[count:]
        for told in due:
            told()

    @property
    def topics(self) -> list[str]:
        return [topic for topic, _, _ in self.sent]

    def _handle(self, event: Any) -> None:
        async def handle() -> None:
            await self.router.handle(event, cast(Any, self))
            await asyncio.sleep(0)  # what was looked up comes back on the event loop

        asyncio.run(handle())

    def send(
        self,
        topic: str,
        _value: bytes,
        *,
        headers: list[tuple[str, bytes]],
        on_delivery: Callable[..., None],
        partition: int | None = None,
        **_: Any,
    ) -> None:
        self.sent.append((topic, partition, dict(headers)))
        self._deliveries.append(lambda: on_delivery(None, None))

    def commit(self, places: dict[int, Place]) -> None:
        self.committed |= places

    def finished(self) -> None: ...

    @staticmethod
    def _fail(error: Exception) -> None:
        raise error


def test_a_refused_call_is_committed_when_both_its_reply_and_its_dead_letter_are_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = _Case(monkeypatch)
    case.arrive(b'{"function": "unknown"}')
    assert case.topics == ["requests.dlq"]
    case.acknowledge(1)
    assert case.topics == ["requests.dlq", "replies"]
    assert not case.committed
    case.acknowledge(1)
    assert case.committed[0].offset == 1


def _sent_after_a_takeover(
    monkeypatch: pytest.MonkeyPatch, there: list[str], value: bytes, headers: list[tuple[str, bytes]]
) -> list[str]:
    """Return where a router sends what of a record is not there yet, all acknowledged, until it commits the record."""
    case = _Case(monkeypatch, ends=1)
    for topic in there:
        case.written.put(topic, b"requests/0/0")
    case.arrive(value, headers)
    acknowledged = 0
    while acknowledged < len(case.topics):
        assert not case.committed
        acknowledged += 1
        case.acknowledge(1)
    assert case.committed[0].offset == 1
    return case.topics


@pytest.mark.parametrize(
    ("there", "sent"),
    [
        (["inference.general"], []),
        (["requests.retry.1s"], []),
        (["requests.dlq"], ["replies"]),
        (["requests.dlq", "replies"], []),
        ([], ["requests.dlq", "replies"]),
    ],
)
def test_of_what_the_router_before_has_done_only_what_is_missing_is_done(
    monkeypatch: pytest.MonkeyPatch, there: list[str], sent: list[str]
) -> None:
    assert _sent_after_a_takeover(monkeypatch, there, b'{"function": "unknown"}', []) == sent


@pytest.mark.parametrize(
    ("there", "sent"), [(["requests.dlq", "replies"], []), (["replies"], []), (["requests.dlq"], ["replies"])]
)
def test_what_the_router_before_has_answered_or_buried_is_not_sent_on_though_a_node_is_there_now(
    monkeypatch: pytest.MonkeyPatch, there: list[str], sent: list[str]
) -> None:
    # It was answered when no node was there, or unknown then.
    assert _sent_after_a_takeover(monkeypatch, there, CALL, LATE) == sent


def test_what_comes_after_a_takeover_is_looked_for_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    case = _Case(monkeypatch, ends=1)
    case.arrive()
    case.written.asked.clear()
    case.arrive()
    assert case.written.asked == []
    assert case.topics == ["inference.general"] * 2


def test_a_call_that_is_late_goes_to_a_node_which_knows_whether_it_was_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = _Case(monkeypatch)
    case.arrive(headers=LATE)
    case.nodes.alive = False
    case.arrive(b'{"function": "f", "id": "b"}', headers=LATE)
    assert case.topics == ["inference.general", "replies"]


def test_a_try_that_a_delay_topic_sent_twice_meets_itself_and_the_next_try_goes_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = _Case(monkeypatch)
    for source in (b"requests.retry.1s/0/5", b"requests.retry.1s/0/5", b"requests.retry.10s/0/9"):
        case.arrive(headers=[("easyremote_attempt", b"2"), ("easyremote_source", source)])
    assert [partition for _, partition, _ in case.sent] == [1, 1, 2]


def test_what_was_read_before_this_process_was_stopped_waits_until_it_is_a_member_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = _Case(monkeypatch)
    now = [0.0]
    case.tenure = Tenure(0.5, lambda: now[0])
    now[0] = 60.0
    case.arrive()
    assert not case.sent
