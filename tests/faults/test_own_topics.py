"""Replies to topics of the callers' own: one for each sending, whatever dies; sent and counted by plain clients."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer
from easyremote.deploy.broker import EmbeddedBroker
from easyremote.deploy.jars import KAFKA_VERSION
from easyremote.settings import Settings, user_data_dir
from easyremote.topics.records import decode_reply
from history import DRAIN_S, await_drained, everything
from system import system
from workers import kill_broker, make_topic, producer_to, tail

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]

EVERY_S = 0.01
AGAIN = 10
"""Every so many calls one is sent a second time, a while later."""
SOME = 200
"""Calls between one trouble and the next: two seconds of them."""
PATIENCE_S = 60


class Sendings:
    """Calls at an even rate, of which some come twice under their ids."""

    def __init__(self, settings: Settings, journal: Path) -> None:
        self.taken: Counter[str] = Counter()
        """How often the broker has each id."""
        self.unclear: set[str] = set()
        self._topic, self._own = settings.namespace + "requests", settings.namespace + "own"
        self._journal = journal
        self._producer: Producer = producer_to(settings.bootstrap_servers())
        self._told = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def await_more(self, count: int = SOME) -> None:
        """Wait until the broker has so many more."""
        with self._told:
            enough = self.taken.total() + count
            assert self._told.wait_for(lambda: self.taken.total() >= enough, PATIENCE_S), self.taken.total()

    def wrong(self, replies: Iterable[Message]) -> dict[str, tuple[int, int]]:
        """Return how often each call was taken and answered, where that is not the same."""
        answered = Counter(decode_reply(reply.value() or b"").id for reply in replies)
        return {
            call_id: (count, answered[call_id])
            for call_id, count in self.taken.items()
            if answered[call_id] != count and call_id not in self.unclear
        }

    def _run(self) -> None:
        number = 0
        while not self._stopping.wait(EVERY_S):
            self._send(f"c-{number}")
            if number >= 100 and number % AGAIN == 0:
                self._send(f"c-{number - 100}")
            number += 1
            self._producer.poll(0)

    def _send(self, call_id: str) -> None:
        def told(error: object, _message: object) -> None:
            with self._told:
                if error is None:
                    self.taken[call_id] += 1
                else:
                    self.unclear.add(call_id)
                self._told.notify_all()

        value = f'{{"function": "mark", "args": ["{self._journal}", "{call_id}", 2], "id": "{call_id}"}}'
        self._producer.produce(
            self._topic, value.encode(), call_id, headers=[("kafka_replyTopic", self._own.encode())], on_delivery=told
        )

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Send until the block ends, and until the broker has all."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._thread.join()
            assert self._producer.flush(60) == 0


def test_each_sending_has_one_reply_though_nodes_the_router_and_the_broker_die(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "kafka", jars_dir=user_data_dir() / "kafka" / KAFKA_VERSION)
    try:
        servers = broker.start().bootstrap_servers
        settings = Settings(kafka=servers, namespace="own-", data_dir=tmp_path, node_id="test")
        make_topic(settings, "own", partitions=3)
        with system(settings) as running:
            running.launch("router", "router")
            running.launch("one", "inference")
            running.launch("two", "inference")
            running.await_up("router", "one", "two")
            sendings = Sendings(settings, tmp_path / "journal")
            with sendings.under_way():
                sendings.await_more()
                running.kill("one")
                running.start("one", "inference")
                running.kill("router")
                running.start("router", "router")
                sendings.await_more()
                running.pause("two")
                sendings.await_more(2 * SOME)
                running.resume("two")
                kill_broker(broker)
                broker.start()
                sendings.await_more()
            # A group that the new broker has not loaded yet would seem to be drained.
            with tail(settings, "own") as replies:
                replies.wait_for(lambda came: not sendings.wrong(came), DRAIN_S)
            await_drained(settings)
        assert len(sendings.taken) > 500
        assert not sendings.wrong(everything(settings, "own"))
    finally:
        broker.reset()
