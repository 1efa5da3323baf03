"""What somebody may write by hand is a reason, and never an exception of who reads it."""

from __future__ import annotations

from typing import Any

import hostile
import pytest
from easyremote.agents.arrived import decode_arrived
from easyremote.agents.streams import decode_readings
from easyremote.inference.results import answer_in
from easyremote.tally import Tally
from easyremote.topics import records
from easyremote.topics.dead_letters import _decode_handled
from easyremote.topics.deliveries import Output
from easyremote.topics.follower import each_of
from easyremote.topics.letters import dead_letter_headers, fitted, letter_of, redriven_headers
from easyremote.topics.limits import MAX_CORRELATION_BYTES, Unreadable, attempt, is_too_deep
from easyremote.topics.model_control import decode_order
from easyremote.topics.odd_records import LARGEST_VALUE_BYTES, Place, fitting, late_record
from easyremote.topics.records import RecordRef
from easyremote.topics.wire import Call, MalformedCall, Origin, headers_of, read_call
from hostile import Hostile, nameless, sent

DECODERS: dict[str, Any] = {
    "nodes": records.decode_heartbeat,
    "cancellations": records.decode_cancellation,
    "functions": records.decode_offer,
    "suspects": records.decode_death,
    "models": decode_order,
    "requests.dlq.handled": _decode_handled,
    "readings.dlq.handled": _decode_handled,
}
LETTER_BYTES = 4 * 1024 * 1024 - 1024


def _kind(one: Hostile) -> str:
    return f"{one.topic}: {one.kind}"


@pytest.mark.parametrize("one", hostile.calls("requests"), ids=_kind)
def test_what_is_wrong_with_a_call_is_a_reason_and_a_dead_letter(one: Hostile) -> None:
    call = read_call(one.value, one.headers, Origin("requests", 0, 7, hostile.NOW_MS))
    assert isinstance(call, MalformedCall)
    assert len(str(call)) < 1_200
    if call.address is not None and call.address.partition is not None:
        call.address.partition.to_bytes(4, "big")
    letter = _letter(one, call)
    assert letter.error == "MalformedRequest"
    redriven_headers(letter, 1, hostile.NOW_MS)
    (arrived,) = decode_arrived("requests", "")(0, [sent(one)])
    assert arrived.call is None


def test_of_a_call_whose_argument_is_no_text_the_caller_is_told_where_it_said() -> None:
    value = b'{"function": "f", "reply_to": "mine", "kwargs": {"' + hostile.LATIN + b'": 1}}'
    call = read_call(value, [("kafka_correlationId", b"c")], Origin("requests", 0, 7, 1))
    assert isinstance(call, MalformedCall)
    assert call.address is not None
    assert (call.address.topic, call.address.correlation_id, call.function) == ("mine", b"c", "f")


def test_headers_whose_names_are_no_text_are_told_and_the_record_is_no_call() -> None:
    message = nameless(Hostile("requests", "names", b'{"function": "f"}'))
    call = read_call(message.value(), headers_of(message), Origin("requests", 0, 7, 1))
    assert isinstance(call, MalformedCall)
    assert "no UTF-8" in str(call)


def test_what_a_call_says_travels_on_and_is_read_again() -> None:
    origin = Origin("requests", 0, 7, -1)  # a producer's clock may say anything
    call = read_call(b'{"function": "f", "timeout_s": 1e9}', [("kafka_correlationId", b"\xff" * 2_000)], origin)
    assert isinstance(call, Call)
    assert len(call.id) == 64
    again = read_call(b'{"function": "f"}', call.headers(routed_ms=1.0, attempt=2, avoid="n"), origin)
    assert isinstance(again, Call)
    assert (again.id, again.address, again.deadline_ms) == (call.id, call.address, call.deadline_ms)
    longest = read_call(b'{"function": "f"}', [("kafka_correlationId", b"c" * MAX_CORRELATION_BYTES)], origin)
    assert isinstance(longest, Call)


def test_of_readings_the_good_ones_go_on_and_each_other_one_has_its_reason() -> None:
    good = Hostile("readings", "good", b'{"device_id": "d", "metric": "m", "value": 1, "timestamp_ms": 1}')
    odd = hostile.readings()
    messages = [sent(one, offset) for offset, one in enumerate([good, *odd, good])]
    arrived = decode_readings(0, messages)
    deep = [place for place, one in enumerate(odd, 1) if "2,000 deep" in one.kind]
    bad = [place for place, _ in arrived.malformed]
    assert arrived.places[0] == 0
    assert arrived.places[-1] == len(messages) - 1
    # What nobody looks at may be as deep as the decoder can go.
    assert sorted([*bad, *arrived.places]) == list(range(len(messages)))
    assert set(range(1, len(odd) + 1)) - set(deep) <= set(bad)


@pytest.mark.parametrize("one", hostile.odd_readings()[1:], ids=_kind)
def test_a_late_reading_that_cannot_be_told_as_late_is_a_dead_letter(one: Hostile) -> None:
    arrived = decode_readings(0, [sent(one)])
    assert not arrived.malformed
    output = late_record((Place("late", "readings", 0), Place("dlq", "readings", 0)), sent(one), _Late(), (0, 1), "n")
    assert (output.topic, output.value) == ("dlq", one.value)


class _Late:
    lateness_ms = 1
    reason: Any = "late"


@pytest.mark.parametrize("one", [*hostile.heartbeats()[:-3], *hostile.controls()], ids=_kind)
def test_control_records_that_are_none_are_reasons(one: Hostile) -> None:
    assert isinstance(attempt(DECODERS[one.topic], one.value), Unreadable)


@pytest.mark.parametrize("one", hostile.answers(), ids=_kind)
def test_a_forged_answer_ends_nobody_who_looks_for_one(one: Hostile) -> None:
    answer_in_safely = attempt(lambda _: answer_in(sent(one), (one.key or b"") + b"\0"), b"")
    assert isinstance(answer_in_safely, Unreadable) or answer_in_safely is None or answer_in_safely.value == one.value
    assert isinstance(attempt(records.decode_reply, one.value), Unreadable)


def test_one_record_on_which_its_taker_raises_costs_the_others_nothing() -> None:
    taken = []

    def take(message: Any) -> None:
        if message.offset() == 1:
            raise RecursionError
        taken.append(message.offset())

    each_of([sent(Hostile("t", "any", b""), offset) for offset in range(3)], take)
    assert taken == [0, 2]


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"k", b"v" * 6_000_000, []),
        (b"k" * 3_000_000, b"v" * 3_000_000, []),
        (b"k", b"v" * 2_000_000, [("h", b"x" * 3_000_000), ("kept", b"1")]),
        (None, b"v", [(f"h{number}", b"x" * 100) for number in range(100_000)]),
    ],
    ids=["value", "key", "header", "headers"],
)
def test_a_dead_letter_has_as_much_as_fits_and_says_what_is_missing(
    key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]
) -> None:
    given = dead_letter_headers(headers, RecordRef("t", 0, 1), ValueError("x"))
    kept_key, kept_value, kept = fitted(key, value, given)
    size = len(kept_key or b"") + len(kept_value or b"") + sum(len(name) + len(content) + 10 for name, content in kept)
    assert size < LETTER_BYTES
    said = dict(kept)
    assert said["easyremote_source_offset"] == b"1"
    assert said["easyremote_reason"] == b"x"
    assert b" of " in said["easyremote_truncated"]
    assert ("kept" in said) == (("kept", b"1") in headers)


def test_what_fits_is_as_it_came() -> None:
    headers = dead_letter_headers([("a", b"1")], RecordRef("t", 0, 1), ValueError("x"))
    assert fitted(b"k", b"v", headers) == (b"k", b"v", headers)


def test_a_result_that_its_topic_has_no_room_for_is_a_dead_letter() -> None:
    origin = RecordRef("t", 0, 9)
    fine, large = Output("sink", b"k", b"v"), Output("sink", b"k", b"v" * (LARGEST_VALUE_BYTES + 1))
    assert fitting(fine, origin, "t.dlq", "n") is fine
    told = fitting(large, origin, "t.dlq", "n")
    assert told.topic == "t.dlq"
    assert b"sink" in dict(told.headers or [])["easyremote_reason"]


def test_depth_is_that_of_the_structure_and_not_of_its_texts() -> None:
    wide = b"[" + b",".join([b"[]"] * 1_000) + b"]"
    assert not is_too_deep(wide)
    assert not is_too_deep(b'{"a": "' + b"[" * 500 + b'", "b": "\\"[[' + b"{" * 500 + b'"}')
    assert is_too_deep(b'{"a": "[", "b": ' + b"[" * 100 + b"]" * 100 + b"}")
    assert is_too_deep(hostile.UNTERMINATED)


def test_dead_letters_alone_are_told_once_until_something_good_comes(capsys: pytest.CaptureFixture[str]) -> None:
    counted = Tally()
    for _ in range(250):
        counted.bury("requests", 1, 1)
    counted.well("requests")
    counted.bury("requests", 10, 1)
    assert counted.dead_letters == 251
    assert capsys.readouterr().out.count("nothing but dead letters") == 1
    for offset in range(1_000):
        counted.pass_over("nodes", 0, offset, "no JSON")
    assert counted.passed_over == 1_000
    assert counted.followed() == {}
    counted.read("nodes", 1_200)
    counted.read("models", 3)
    assert counted.followed() == {"nodes": (1_200, 1_000), "models": (3, 0)}
    assert capsys.readouterr().out.count("passed over") == 1


def _letter(one: Hostile, error: Exception) -> Any:
    headers = dead_letter_headers(list(one.headers), RecordRef(one.topic, 0, 7), error)
    key, value, kept = fitted(one.key, one.value, headers)
    return letter_of(
        sent(Hostile("requests.dlq", one.kind, value, key if isinstance(key, bytes) else None, tuple(kept)))
    )
