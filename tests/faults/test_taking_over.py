"""What a process had sent when it was killed is not done again by who takes over; the test plays the one that died.

It leaves what the dead one would have left, with nothing committed: so each case is met, and not by chance.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from easyremote.settings import Settings
from easyremote.topics.records import Reply, decode_reply, encode
from easyremote.topics.replying import NO_TIME
from easyremote.topics.wire import headers_of
from history import await_drained, everything, executions, id_of
from system import system
from workers import make_topic, producer_to

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]

WAIT_S = 30


class Dead:
    """Writes what processes had written before they died."""

    def __init__(self, settings: Settings, journal: Path) -> None:
        self._prefix, self._journal = settings.namespace, journal
        self._producer = producer_to(settings.bootstrap_servers())
        self.own = settings.namespace + "own"
        make_topic(settings, "own", partitions=3)
        self._sent_ms = int(time.time() * 1000)

    def call(self, call_id: str, topic: str, offset: int, **headers: str) -> dict[str, str]:
        """Put a call into partition 0 of a topic, where it gets that offset; return its headers."""
        given = {
            "easyremote_id": call_id,
            "easyremote_sent_ms": f"{self._sent_ms}.{offset:03}",
            "kafka_replyTopic": self.own,
            **headers,
        }
        value = f'{{"function": "mark", "args": ["{self._journal}", "{call_id}"]}}'
        self.write(topic, call_id, value, given, partition=0)
        return given

    def write(self, topic: str, key: str, value: str, headers: dict[str, str], partition: int = 1) -> None:
        given: list[tuple[str, str | bytes | None]] = [(name, content.encode()) for name, content in headers.items()]
        self._producer.produce(self._prefix + topic, value.encode(), key, headers=given, partition=partition)
        assert self._producer.flush(WAIT_S) == 0

    def reply(self, call_id: str) -> str:
        return encode(
            Reply(
                id=call_id,
                function="mark",
                status="ok",
                result="before",
                node_id="dead",
                model=None,
                model_version=None,
                attempts=1,
                timings_ms=NO_TIME,
            )
        ).decode()


def _replies(settings: Settings) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for message in everything(settings, "own"):
        reply = decode_reply(message.value() or b"")
        error = getattr(reply.error, "type", "")
        found.setdefault(reply.id, []).append(error or f"{reply.result}")
    return found


def test_what_stands_in_the_topics_already_is_not_done_again(settings: Settings, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with system(settings) as running:
        dead = Dead(settings, journal)
        place = settings.namespace + "inference.general/0/"
        answered = dead.call("answered", "inference.general", 0)  # and its copy in `results` was not written
        sent = {"easyremote_sent_ms": answered["easyremote_sent_ms"]}
        dead.write("own", "answered", dead.reply("answered"), sent)
        dead.call("retried", "inference.general", 1)
        dead.call("retried", "requests.retry.1s", 0, easyremote_attempt="2", easyremote_source=place + "1")
        dead.call("buried", "inference.general", 2)
        letter = {"easyremote_error": "KeyError", "easyremote_reason": "'x'", "easyremote_source_offset": "2"} | {
            "easyremote_source_topic": settings.namespace + "inference.general",
            "easyremote_source_partition": "0",
        }
        dead.write("requests.dlq", "buried", "{}", letter, partition=0)
        dead.call("open", "inference.general", 3)
        routed = settings.namespace + "requests/0/"
        dead.call("routed", "requests", 0)
        dead.call("routed", "inference.general", 4, easyremote_source=routed + "0", easyremote_sent_ms="1.000")
        dead.call("new", "requests", 1)
        running.start("alive", "router", "inference")
        await_drained(settings)
        replies = _replies(settings)
        sources = Counter(
            dict(headers_of(message)).get("easyremote_source")
            for message in everything(settings, "inference.", "requests")
        )
        copies = {id_of(message) or (message.key() or b"").decode() for message in everything(settings, "results")}
    assert replies.pop("answered") == ["before"]
    assert replies.pop("buried") == ["KeyError"]
    assert {call_id: len(found) for call_id, found in replies.items()} == dict.fromkeys(
        ("retried", "open", "routed", "new"), 1
    )
    assert executions(journal) == dict.fromkeys(("retried", "open", "routed", "new"), 1)
    assert "answered" in copies  # so that it is known to all
    assert {source for source, count in sources.items() if source and count > 1} == set()
