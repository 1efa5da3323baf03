from typing import Any

import pytest
from easyremote.topics.letters import DeadLetter, Failure, dead_letter_headers, letter_of, redriven_headers, stack_of
from easyremote.topics.records import RecordRef
from easyremote.topics.wire import Origin, parse_call

ORIGIN = RecordRef("requests", 2, 41)
CALL = b'{"function": "f", "timeout_s": 20, "reply_to": "mine"}'


class _Message:
    def __init__(self, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        self._value, self._headers = value, headers

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes:
        return b"k"

    def topic(self) -> str:
        return "requests.dlq"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 1, 5_000


def _letter(value: bytes | None, headers: list[tuple[str, bytes]]) -> DeadLetter:
    message: Any = _Message(value, headers)
    return letter_of(message)


def test_a_letter_says_all_that_was_put_into_it() -> None:
    failure = Failure(node_id="n", call_id="c-1", attempts=3, stack="at line 1")
    letter = _letter(CALL, dead_letter_headers([("mine", b"kept")], ORIGIN, KeyError("x"), failure))
    assert (letter.id, letter.error, letter.reason, letter.stack) == ("0/7", "KeyError", "'x'", "at line 1")
    assert (letter.attempts, letter.node_id, letter.call_id, letter.function) == (3, "n", "c-1", "f")
    assert letter.source == "requests/2/41"
    assert letter.headers == [("mine", b"kept"), ("easyremote_id", b"c-1")]
    assert letter.failed_ms > 1_700_000_000_000


def test_a_second_death_does_not_keep_the_first_ones_reason() -> None:
    first = dead_letter_headers([], ORIGIN, KeyError("x"), Failure(stack="old", attempts=2))
    second = _letter(CALL, dead_letter_headers(first, ORIGIN, ValueError("y")))
    assert (second.error, second.stack, second.attempts) == ("ValueError", None, None)


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"[1]", b'{"function": 3}', b"{not json"])
def test_any_record_is_a_letter_however_little_it_says(value: bytes | None) -> None:
    hostile = [("easyremote_attempts", b"many"), ("easyremote_failed_ms", b"\xff"), ("easyremote_reason", b"\xff\xfe")]
    letter = _letter(value, hostile)
    assert (letter.function, letter.attempts, letter.failed_ms, letter.source) == (None, None, 5_000, None)
    assert redriven_headers(letter, 1, 9_000) == []


def test_stack_and_reason_are_bounded() -> None:
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise LookupError("y" * 20_000 + "the end")

    with pytest.raises(LookupError) as caught:
        deep(50)
    stack = stack_of(caught.value)
    assert len(stack.encode()) <= 8 * 1024
    assert stack.endswith("the end\n")
    headers = dict(dead_letter_headers([], ORIGIN, caught.value))
    assert len(headers["easyremote_reason"]) <= 4 * 1024


def test_a_redriven_call_begins_anew_with_as_much_time_and_answers_to_the_same_place() -> None:
    call = parse_call(CALL, [("kafka_correlationId", b"c-1")], Origin("requests", 0, 0, 1_000))
    died = call.headers(attempt=4, avoid="node-1", routed_ms=1_001.0)
    headers = redriven_headers(_letter(CALL, dead_letter_headers(died, ORIGIN, OSError())), 1, 900_000)
    again = parse_call(CALL, headers, Origin("requests", 0, 1, 900_000))
    assert (again.attempt, again.avoid, again.routed_ms, int(again.sent_ms)) == (1, None, None, 900_000)
    assert again.deadline_ms == 920_000
    assert again.address == call.address
    assert (again.id, again.address.correlation_id) == ("c-1~1", b"c-1")
    assert not any(name.startswith("easyremote_source") for name, _ in headers)


def test_each_redrive_of_a_letter_is_a_call_of_its_own() -> None:
    letter = _letter(CALL, [("easyremote_id", b"c-1")])
    ids = [dict(redriven_headers(letter, times, 0))["easyremote_id"] for times in (1, 2)]
    assert ids == [b"c-1~1", b"c-1~2"]
