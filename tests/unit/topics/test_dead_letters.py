import pytest
from easyremote.errors import TopicError
from easyremote.settings import Settings
from easyremote.topics.catalog import DEAD_LETTERS, MALFORMED_READINGS, declarations, handled_topic
from easyremote.topics.dead_letters import DeadLetters, Wanted
from easyremote.topics.letters import DeadLetter
from easyremote.topics.records import RecordRef

LETTER = DeadLetter(
    place=RecordRef("requests.dlq", 0, 7), key=None, value=b"", headers=[], reason="r", error="KeyError", stack=None,
    attempts=None, failed_ms=1_000, node_id=None, call_id=None, function="f", source=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (Wanted(), True),
        (Wanted(function="f", error="KeyError", before_ms=1_001, after_ms=1_000), True),
        (Wanted(function="g"), False),
        (Wanted(error="ValueError"), False),
        (Wanted(before_ms=1_000), False),
        (Wanted(after_ms=1_001), False),
    ],
)
def test_letters_are_chosen_by_function_error_and_age(wanted: Wanted, matches: bool) -> None:
    assert wanted.matches(LETTER) is matches


def test_another_topic_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(TopicError, match="readings is no topic of dead letters"):
        DeadLetters(Settings(kafka="nowhere:1"), "readings")


@pytest.mark.parametrize("name", [DEAD_LETTERS, MALFORMED_READINGS])
def test_what_is_dealt_with_is_remembered_longer_than_the_letters_stay(name: str) -> None:
    kept = {topic.name: topic.retention_ms for topic in declarations()}
    a_segment_ms = 7 * 86_400_000
    assert kept[handled_topic(name)] > kept[name] + a_segment_ms
