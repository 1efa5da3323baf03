"""Which calls a node passes on, and where to."""

from __future__ import annotations

from typing import Any, cast

import pytest
from easyremote.errors import NotOfferedHere
from easyremote.inference.functions import Function, Registry
from easyremote.inference.jobs import Job
from easyremote.inference.passing import refuse_stray
from easyremote.inference.retrying import FailedCalls
from easyremote.settings import Settings
from easyremote.topics.records import encode
from easyremote.topics.wire import AVOID, Call, Origin, parse_call

ORIGIN = Origin("inference.nlp", 0, 0, 0)


def _call(headers: Any = None, **fields: Any) -> Call:
    return parse_call(encode({"function": "sentiment"} | fields), headers or [], ORIGIN)


def _registry(version: str = "1") -> Registry:
    registry = Registry()
    registry.replace_model("mine", [Function("sentiment", lambda text: text, model="mine", version=version)])
    return registry


@pytest.mark.parametrize("fields", [{}, {"target": "here"}, {"model": "mine"}])
def test_a_call_for_this_node_is_kept(fields: dict[str, str]) -> None:
    refuse_stray(_call(**fields), "here", _registry())


@pytest.mark.parametrize("fields", [{"target": "there"}, {"model": "other"}, {"function": "gone"}])
def test_a_call_for_another_node_model_or_function_is_not(fields: dict[str, str]) -> None:
    with pytest.raises(NotOfferedHere):
        refuse_stray(_call(**fields), "here", _registry())


@pytest.mark.parametrize(
    ("avoid", "topic"), [(None, "t-requests"), (b"other", "t-requests"), (b"here", "t-requests.retry.1s")]
)
def test_what_is_passed_on_a_second_time_waits_first(avoid: bytes | None, topic: str) -> None:
    sent: list[tuple[str, bytes, dict[str, Any]]] = []

    class Producer:
        def send(self, topic: str, value: bytes, **rest: Any) -> None:
            sent.append((topic, value, rest))

    settings = Settings(kafka="none:1", namespace="t-", node_id="here")
    calls = FailedCalls(settings, cast(Any, Producer()), "t-inference.nlp", lambda _job: True)
    call = _call([] if avoid is None else [(AVOID, avoid)])
    calls.pass_on(Job(call, 0, 1, 0, 0.0, value=b"as it came"), lambda _error, _message: None)
    ((to, value, rest),) = sent
    assert (to, value) == (topic, b"as it came")
    assert dict(rest["headers"])[AVOID] == b"here"
    assert dict(rest["headers"])["easyremote_attempt"] == b"1"


def test_a_function_in_hand_keeps_its_version_when_another_takes_its_place() -> None:
    registry = _registry("1")
    in_hand = registry.get("sentiment")
    registry.replace_model("mine", [Function("sentiment", lambda text: text, model="mine", version="2")])
    assert (in_hand.version, registry.get("sentiment").version) == ("1", "2")
