"""What makes two sendings one call, and by what records are known again."""

from __future__ import annotations

from typing import Any

import pytest
from easyremote.topics.letters import dead_letter_headers
from easyremote.topics.marks import fingerprint_of, mark_of, reply_mark
from easyremote.topics.records import RecordRef, encode
from easyremote.topics.wire import SENT_MS, Call, Origin, parse_call

ORIGIN = Origin("requests", 1, 7, 1_000)
CLAIM = {"arg": 0, "sha256": "0" * 64, "bytes": 9}


def _call(headers: Any = (), **fields: Any) -> Call:
    return parse_call(encode({"function": "f", "args": [1, 23], "id": "a"} | fields), headers, ORIGIN)


def test_who_comes_back_asks_the_same_whatever_its_partition_and_deadline() -> None:
    again = _call([("kafka_replyPartition", bytes(4)), ("kafka_replyTopic", b"replies")], timeout_s=9, id="b")
    assert fingerprint_of(again) == fingerprint_of(_call())


@pytest.mark.parametrize(
    "other",
    [
        {"function": "g"},
        {"args": [12, 3]},
        {"args": [1], "kwargs": {"x": 23}},
        {"reply_to": "mine"},
        {"args": [None, 23], "claims": [CLAIM]},
    ],
)
def test_another_function_argument_or_reply_topic_is_another_call(other: dict[str, Any]) -> None:
    assert fingerprint_of(_call(**other)) != fingerprint_of(_call())


def test_arguments_by_name_have_no_order_and_what_is_claimed_counts() -> None:
    assert fingerprint_of(_call(kwargs={"x": 1, "y": 2})) == fingerprint_of(_call(kwargs={"y": 2, "x": 1}))
    one, two = ({"args": [None, 23], "claims": [CLAIM | {"sha256": digit * 64}]} for digit in "01")
    assert fingerprint_of(_call(**one)) != fingerprint_of(_call(**two))


def test_what_is_sent_on_because_of_a_record_and_its_dead_letter_are_known_by_its_place() -> None:
    sent_on = _call().headers(routed_ms=1.0, source=ORIGIN.source)
    letter = dead_letter_headers(sent_on, RecordRef("requests", 1, 7), ValueError())
    assert mark_of(None, sent_on) == mark_of(b"a", letter) == b"requests/1/7"


def test_a_reply_is_known_by_its_call_and_sending_and_an_item_of_a_stream_by_nothing() -> None:
    call = _call()
    assert mark_of("a", [(SENT_MS, dict(call.headers())[SENT_MS])]) == reply_mark(call)
    assert mark_of("a", []) is None


def test_two_sendings_in_one_millisecond_are_two_and_a_record_that_is_read_twice_is_one() -> None:
    body = encode({"function": "f", "id": "a"})
    first, again, second = (parse_call(body, None, Origin("requests", 1, offset, 1_000)) for offset in (7, 7, 8))
    assert reply_mark(first) == reply_mark(again) != reply_mark(second)
    assert {int(first.sent_ms), int(second.sent_ms)} == {1_000}
