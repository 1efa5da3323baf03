import pytest
from easyremote.topics.wire import MalformedCall, Origin, parse_call

ORIGIN = Origin("requests", 1, 7, 1_700_000_000_000)


def test_headers_win_over_the_body() -> None:
    call = parse_call(
        b'{"function": "f", "id": "body", "reply_to": "there"}',
        [
            ("kafka_correlationId", b"\x00\xff"),
            ("kafka_replyTopic", b"here"),
            ("kafka_replyPartition", b"\x00\x00\x00\x05"),
        ],
        ORIGIN,
    )
    assert call.id == "00ff"
    assert (call.address.topic, call.address.partition, call.address.correlation_id) == (
        "here",
        5,
        b"\x00\xff",
    )


def test_a_call_travels_on_by_its_headers_unchanged() -> None:
    value = b'{"function": "f", "timeout_s": 2}'
    first = parse_call(value, None, ORIGIN)
    second = parse_call(value, first.headers(), Origin("inference.nlp", 0, 0, 1_700_000_009_999))
    assert second == first
    assert first.deadline_ms == 1_700_000_002_000


def test_a_redelivered_record_without_an_id_is_the_same_call() -> None:
    assert parse_call(b'{"function": "f"}', None, ORIGIN).id == parse_call(b'{"function": "f"}', None, ORIGIN).id
    other = Origin("requests", 1, 8, ORIGIN.timestamp_ms)
    assert parse_call(b'{"function": "f"}', None, other).id != parse_call(b'{"function": "f"}', None, ORIGIN).id


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"function": 1}',
        b'{"function": ""}',
        b'{"function": "f", "args": {}}',
        b"\xff",
    ],
)
def test_what_is_no_request_is_told_apart_and_keeps_its_address(value: bytes | None) -> None:
    with pytest.raises(MalformedCall, match="not a request") as caught:
        parse_call(value, [("kafka_replyTopic", b"mine"), ("kafka_correlationId", b"c1")], ORIGIN)
    assert caught.value.address is not None
    assert caught.value.address.topic == "mine"
    assert caught.value.call_id == "c1"
