"""What others wait for while one call takes long, or while several threads wait in one client."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from easyremote import CallOptions, Client
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.records import decode_reply
from workers import running, tail

pytestmark = pytest.mark.broker

OPTIONS = CallOptions(timeout_s=60)
QUICK = 100
"""Calls after which the node knows that a function is quick."""


def test_calls_go_on_while_a_quick_function_takes_long_and_each_is_answered_once(
    settings: Settings, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    TopicAdmin(settings).ensure(declarations())
    with tail(settings, "replies") as replies, running(settings, "router", "inference"):
        with Client(settings, direct=True) as client:
            for _ in range(QUICK):
                assert client.call("pass_gate", str(gate), options=OPTIONS) == "passed"
            gate.unlink()
            slow = client.submit("pass_gate", str(gate), options=OPTIONS)
            for number in range(QUICK):
                assert client.call("echo", str(number), options=OPTIONS) == str(number)
            assert not slow.done()
            gate.touch()
            assert slow.result(60) == "passed"
            for number in range(QUICK):
                assert client.call("echo", str(number), options=OPTIONS) == str(number)
        told = replies.wait_for(lambda came: len(came) >= 3 * QUICK + 1)
    assert set(Counter(decode_reply(one.value() or b"").id for one in told).values()) == {1}


def test_threads_that_wait_and_futures_of_one_client_get_each_reply(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    with running(settings, "router", "inference"), Client(settings, direct=True) as client:

        def call(number: int) -> list[str]:
            text = f"waited for {number}"
            sent = client.submit("echo", f"sent {number}", options=OPTIONS)
            waited_for = client.call("echo", text, options=OPTIONS)
            return [waited_for, str(sent.result(60))]

        assert call(-1) == ["waited for -1", "sent -1"]
        for threads in (1, 4):
            with ThreadPoolExecutor(threads) as callers:
                got = list(callers.map(call, range(200)))
            assert got == [[f"waited for {number}", f"sent {number}"] for number in range(200)]
