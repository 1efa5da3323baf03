from typing import Any, cast

import pytest
from easyremote.errors import InvalidArguments, NoNodeAvailable
from easyremote.inference.functions import Function
from easyremote.inference.jobs import Job
from easyremote.inference.retrying import FailedCalls, next_delay_ms
from easyremote.settings import Settings
from easyremote.topics.causes import is_retriable
from easyremote.topics.wire import Origin, parse_call

ORIGIN = Origin("inference.general", 3, 17, 1_000)
VALUE = b'{"function": "f", "args": [1], "id": "c-1", "timeout_s": 30, "unknown": true}'


class _Producer:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, Any, dict[str, bytes]]] = []

    def send(self, topic: str, value: bytes, *, key: Any, headers: Any, on_delivery: Any, wanted: Any) -> None:
        self.sent.append((topic, value, key, dict(headers)))


def _failed_calls() -> tuple[FailedCalls, _Producer, Job]:
    producer = _Producer()
    settings = Settings(namespace="n-", node_id="node-1")
    job = Job(parse_call(VALUE, None, ORIGIN), 3, 1, 17, 1_001.0, value=VALUE)
    return FailedCalls(settings, cast(Any, producer), "n-inference.general", lambda _job: True), producer, job


class _Busy(Exception):
    retriable = True


def test_only_what_says_so_is_retriable() -> None:
    once = ValueError("this one may be tried again")
    once.retriable = True  # type: ignore[attr-defined]  # as a user may set it
    assert is_retriable(_Busy())
    assert is_retriable(once)
    assert is_retriable(NoNodeAvailable())
    assert is_retriable(TimeoutError(), (ConnectionError, TimeoutError))
    for error in (ValueError(), ConnectionError(), TimeoutError(), InvalidArguments(), KeyError("retriable")):
        assert not is_retriable(error)


@pytest.mark.parametrize(
    ("attempt", "deadline_ms", "delay_ms"),
    [
        (1, None, 1_000),
        (2, None, 10_000),
        (3, None, 60_000),
        (4, None, None),
        (99, None, None),
        (0, None, None),  # a header that somebody made up
        (1, 51_001, 1_000),
        (1, 51_000, None),
        (2, 60_000, None),
    ],
)
def test_delays_grow_and_end_with_the_attempts_or_before_the_deadline(
    attempt: int, deadline_ms: int | None, delay_ms: int | None
) -> None:
    assert next_delay_ms(attempt, 50_000.0, deadline_ms) == delay_ms


def test_a_retried_call_travels_as_it_came_with_its_attempt_and_the_node_to_avoid() -> None:
    calls, producer, job = _failed_calls()
    calls.retry(job, 10_000, lambda _error, _message: None)
    topic, value, key, headers = producer.sent[0]
    assert (topic, value, key) == ("n-requests.retry.10s", VALUE, "c-1")
    assert (headers["easyremote_attempt"], headers["easyremote_avoid"]) == (b"2", b"node-1")
    again = parse_call(value, list(headers.items()), Origin("requests", 0, 0, 9_999))
    assert (again.id, again.attempt, again.avoid) == ("c-1", 2, "node-1")
    assert (again.deadline_ms, again.sent_ms) == (31_000, job.call.sent_ms)


def test_a_buried_call_says_why_where_and_how_often() -> None:
    calls, producer, job = _failed_calls()
    calls.bury(job, _Busy("too many"), lambda _error, _message: None, stack="line 1")
    topic, value, _, headers = producer.sent[0]
    assert (topic, value) == ("n-requests.dlq", VALUE)
    assert headers["easyremote_reason"] == b"too many"
    assert headers["easyremote_error"] == b"_Busy"
    assert headers["easyremote_stack"] == b"line 1"
    assert (headers["easyremote_attempts"], headers["easyremote_node"]) == (b"1", b"node-1")
    assert headers["easyremote_id"] == b"c-1"
    assert headers["easyremote_source_topic"] == b"n-inference.general"
    assert (headers["easyremote_source_partition"], headers["easyremote_source_offset"]) == (b"3", b"17")


def test_a_function_says_after_what_it_is_tried_again() -> None:
    def f() -> None: ...

    assert Function("f", f).retry_on == ()
    assert Function("f", f, retry_on=(OSError,)).retry_on == (OSError,)
