from pathlib import Path

import pytest
from easyremote.topics.catalog import LARGEST_RECORD_BYTES, declarations


def test_every_topic_is_declared_once_with_who_writes_and_reads_it() -> None:
    names = [topic.name for topic in declarations("mine")]
    assert len(names) == len(set(names))
    assert all(topic.written_by and topic.read_by and topic.key and topic.value for topic in declarations())
    assert "inference.mine" in names


@pytest.mark.parametrize("name", ["readings", "readings.late", "aggregates", "alerts", "streams.changelog"])
def test_what_carries_event_time_is_kept_by_the_brokers_clock(name: str) -> None:
    (topic,) = [one for one in declarations() if one.name == name]
    assert topic.config()["message.timestamp.type"] == "LogAppendTime"


def test_a_dead_letter_has_room_for_whatever_came_in() -> None:
    sizes = {topic.name: topic.max_message_bytes for topic in declarations()}
    assert sizes["requests.dlq"] == sizes["readings.dlq"] == LARGEST_RECORD_BYTES
    assert max(size for name, size in sizes.items() if not name.endswith(".dlq")) * 2 <= LARGEST_RECORD_BYTES


def test_state_lies_beside_the_readings_that_it_is_of() -> None:
    partitions = {topic.name: topic.partitions for topic in declarations()}
    assert partitions["streams.changelog"] == partitions["readings"]


def test_the_protocols_page_names_the_topics_that_people_use() -> None:
    page = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
    for name in (
        "requests",
        "replies",
        "functions",
        "requests.dlq",
        "readings",
        "readings.late",
        "aggregates",
        "alerts",
    ):
        assert f"`{name}`" in page
