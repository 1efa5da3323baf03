"""A call that is sent again under its id is answered with the first result, whoever answered that and wherever."""

from __future__ import annotations

from pathlib import Path

import pytest
from easyremote import CallOptions, Client
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.records import Reply, decode_reply
from history import executions
from system import system
from workers import producer_to, tail

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]

IDS = [f"order-{number}" for number in range(60)]


def _send(settings: Settings, journal: Path, *, direct: bool) -> dict[str, Reply]:
    # Its own client each time, as a program that was killed and started again has.
    with Client(settings, direct=direct) as client:
        futures = {
            one: client.submit(
                "mark", str(journal), one, options=CallOptions(id=one, timeout_s=60, strategy="round_robin")
            )
            for one in IDS
        }
        return {one: future.reply(60) for one, future in futures.items()}


def test_a_client_started_again_with_the_same_ids_is_answered_from_the_first_results(
    settings: Settings, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    with system(settings) as running:
        running.launch("router", "router")
        running.launch("one", "inference")
        running.launch("two", "inference")
        running.await_up("router", "one", "two")
        first = _send(settings, journal, direct=True)
        assert {reply.node_id for reply in first.values()} == {"one", "two"}
        assert _send(settings, journal, direct=True) == first  # in turn: some land on the other node
        assert _send(settings, journal, direct=False) == first

        # Killed at once, so that nobody has what it answered but the topics.
        running.kill("one")
        running.kill("two")
        running.start("one", "inference")
        assert _send(settings, journal, direct=False) == first
        running.kill("router")
        running.start("router", "router")
        assert _send(settings, journal, direct=False) == first
    assert set(executions(journal).values()) == {1}
    assert executions(journal).keys() == set(IDS)


def test_a_call_sent_again_while_it_runs_is_not_run_twice(settings: Settings, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with system(settings) as running:
        running.launch("router", "router")
        running.launch("one", "inference")
        running.launch("two", "inference")
        running.await_up("router", "one", "two")
        clients = [Client(settings), Client(settings)]
        try:
            futures = [
                client.submit(
                    "mark_and_wait",
                    str(journal),
                    one,
                    1_000,
                    options=CallOptions(id=one, timeout_s=60, strategy="round_robin"),
                )
                for one in IDS
                for client in clients
            ]
            replies = [future.reply(60) for future in futures]
        finally:
            for client in clients:
                client.close()
    assert replies[::2] == replies[1::2]
    assert set(executions(journal).values()) == {1}


def test_what_went_to_a_topic_of_the_callers_own_is_known_after_a_restart_too(
    settings: Settings, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    producer = producer_to(settings.bootstrap_servers())

    def send() -> None:
        producer.produce(
            settings.namespace + "requests",
            b'{"function": "mark", "args": ["%s", "mine"], "id": "mine"}' % str(journal).encode(),
            headers=[("kafka_replyTopic", (settings.namespace + "mine").encode())],
        )
        assert producer.flush(10) == 0

    TopicAdmin(settings).create(settings.namespace + "mine", 1)
    with system(settings) as running:
        running.start("first", "router", "inference")
        with tail(settings, "mine") as answers, tail(settings, "results") as results:
            send()
            answers.wait_for(bool)
            results.wait_for(bool)
            running.kill("first")
            running.start("second", "router", "inference")
            send()
            values = [message.value() or b"" for message in answers.wait_for(lambda came: len(came) >= 2)]
    assert len(values) == 2
    assert values[0] == values[1]
    assert decode_reply(values[0]).node_id == "first"
    assert executions(journal) == {"mine": 1}
