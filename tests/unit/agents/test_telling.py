"""What a worker tells about itself: heartbeats on `nodes`, its functions on `functions`."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import Any, ClassVar

from easyremote.agents.heartbeat import HeartbeatService
from easyremote.agents.offers import OfferService
from easyremote.errors import TopicError
from easyremote.inference.functions import Function
from easyremote.inference.gpu import GpuGauge
from easyremote.inference.node import AINodeManager
from easyremote.settings import Settings
from easyremote.topics.records import GpuState, decode_heartbeat, decode_offer

SOON_S = 20
LONG_MS = 3_600_000
SETTINGS = Settings(kafka="none:1", namespace="t-", node_id="n", heartbeat_ms=LONG_MS)


class Sent:
    """In a producer's place: keeps what is sent, and says when it was."""

    def __init__(self, failures: int = 0) -> None:
        self.records: asyncio.Queue[tuple[str, bytes | None, float]] = asyncio.Queue()
        self._failures = failures

    def send(self, topic: str, value: bytes | None, *, key: str, in_order: bool) -> None:
        assert key == "n"
        assert in_order  # or a tombstone might overtake what it ends
        self.records.put_nowait((topic, value, asyncio.get_running_loop().time()))

    async def deliver(self, topic: str, value: bytes | None, *, key: str, in_order: bool) -> None:
        if self._failures and value is not None:
            self._failures -= 1
            raise TopicError("no broker just now")
        self.send(topic, value, key=key, in_order=in_order)

    async def next(self) -> tuple[str, bytes | None, float]:
        return await asyncio.wait_for(self.records.get(), SOON_S)


def _heartbeats(settings: Settings, sent: Any, ready: list[str]) -> HeartbeatService:
    return HeartbeatService(settings, sent, lambda: list(ready))


def test_a_change_is_told_at_once_from_any_thread_and_leaving_by_a_tombstone() -> None:
    async def run() -> None:
        sent, ready = Sent(), list[str]()
        service = _heartbeats(SETTINGS, sent, ready)
        await service.start()
        topic, first, _ = await sent.next()
        assert (topic, decode_heartbeat(first or b"").ready) == ("t-nodes", [])
        ready.append("router")
        threading.Thread(target=service.changed).start()
        _, second, _ = await sent.next()  # an hour before it is due
        assert decode_heartbeat(second or b"").ready == ["router"]
        await service.stop()
        assert (await sent.next())[:2] == ("t-nodes", None)
        assert sent.records.empty()

    asyncio.run(run())


def test_heartbeats_come_at_most_every_500_ms_while_nothing_changes() -> None:
    assert Settings(kafka="none:1").heartbeat_ms == 500

    async def run() -> None:
        sent = Sent()
        service = _heartbeats(SETTINGS.model_copy(update={"heartbeat_ms": 50}), sent, [])
        await service.start()
        times = [(await sent.next())[2] for _ in range(5)]
        await service.stop()
        # A timer of the loop may fire one tick of its clock early, never more.
        assert all(later - earlier > 0.049 for earlier, later in itertools.pairwise(times))

    asyncio.run(run())


class Quiet:
    """In a node service's place."""

    partitions: ClassVar[list[int]] = [3]
    in_flight = 0
    hung = 0


def test_a_nodes_heartbeats_tell_its_gpu_and_nothing_where_there_is_none() -> None:
    state = GpuState("a card", 3 << 30, 8 << 30, 41.0)

    async def run(gauge: GpuGauge) -> GpuState | None:
        sent = Sent()
        service = HeartbeatService(SETTINGS, sent, lambda: ["inference"], gauge)  # type: ignore[arg-type]
        service.tell_about(AINodeManager("general"), Quiet())  # type: ignore[arg-type]
        await asyncio.to_thread(gauge.refresh)
        await service.start()
        beat = decode_heartbeat((await sent.next())[1] or b"")
        assert beat.partitions == [3]
        await service.stop()
        return beat.gpu

    assert asyncio.run(run(GpuGauge(lambda: state))) == state
    assert asyncio.run(run(GpuGauge(lambda: None))) is None


def _named(name: str) -> Function:
    def call(text: str) -> str:
        return text

    return Function(name, call)


def _names(value: bytes | None) -> list[str]:
    return [one.name for one in decode_offer(value or b"").functions]


def test_functions_are_told_at_the_start_and_when_they_change_and_not_otherwise() -> None:
    async def run() -> None:
        sent, node = Sent(), AINodeManager("general", functions=[_named("one")])
        service = OfferService(SETTINGS, node, sent)  # type: ignore[arg-type]
        await service.start()
        topic, value, _ = await sent.next()
        assert (topic, _names(value)) == ("t-functions", ["get_node_status", "one"])
        service.changed()  # partitions, say
        node.registry.add(_named("two"))
        service.changed()
        assert _names((await sent.next())[1]) == ["get_node_status", "one", "two"]
        service.changed()
        await service.stop()
        assert (await sent.next())[:2] == ("t-functions", None)
        assert sent.records.empty()

    asyncio.run(run())


def test_functions_that_could_not_be_told_are_told_at_the_next_change() -> None:
    async def run() -> None:
        sent, node = Sent(failures=1), AINodeManager("general", functions=[_named("one")])
        service = OfferService(SETTINGS, node, sent)  # type: ignore[arg-type]
        await service.start()
        service.changed()
        assert _names((await sent.next())[1]) == ["get_node_status", "one"]
        await service.stop()

    asyncio.run(run())
