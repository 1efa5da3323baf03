import os
import threading

import pytest
from easyremote.topics import wire
from easyremote.topics.wire import MalformedCall, Origin, parse_call, uuid7

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


def test_ids_are_made_from_the_systems_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_entropy", [])
    monkeypatch.setattr(os, "urandom", lambda count: bytes(at // 10 % 256 for at in range(count)))
    assert {uuid7(1)[-12:] for _ in range(409)} == {f"{number:02x}" * 6 for number in range(256)}


def test_threads_make_no_id_twice() -> None:
    made: list[list[str]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda ids: ids.extend(uuid7(1) for _ in range(5_000)), args=(ids,)) for ids in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for ids in made for one in ids}) == 20_000


def test_a_child_that_was_forked_makes_other_ids_than_its_parent() -> None:
    uuid7(1)
    assert wire._entropy
    receives, sends = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sends, "".join(uuid7(1) for _ in range(100)).encode())
        os._exit(0)
    os.close(sends)
    with os.fdopen(receives, "rb") as pipe:
        theirs = pipe.read().decode()
    os.waitpid(child, 0)
    assert len(theirs) == 3_600
    assert not {theirs[start : start + 36] for start in range(0, 3_600, 36)} & {uuid7(1) for _ in range(500)}
