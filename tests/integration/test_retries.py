"""Calls that fail and are tried again, on a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest
from easyremote import CallOptions, Client
from easyremote.errors import RemoteError
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.letters import letter_of
from workers import running, tail

pytestmark = pytest.mark.broker


@pytest.fixture
def prepared(settings: Settings) -> Settings:
    TopicAdmin(settings).ensure(declarations())
    return settings


@pytest.mark.parametrize("direct", [False, True])
def test_a_retriable_failure_is_tried_again_and_the_caller_gets_the_last_word(
    prepared: Settings, tmp_path: Path, direct: bool
) -> None:
    with running(prepared, "router", "inference"), Client(prepared, direct=direct) as client:
        failing = client.submit("flaky", str(tmp_path / "diary"), 1, options=CallOptions(timeout_s=30))
        # Meanwhile its partition goes on.
        assert client.call("echo", "x", options=CallOptions(timeout_s=30)) == "x"
        assert not failing.done()
        reply = failing.reply(30)
        assert (reply.status, reply.result, reply.attempts) == ("ok", 2, 2)
        with tail(prepared, "requests.retry.1s") as waiting:
            assert len(waiting.wait_for(bool)) == 1


def test_a_call_that_would_pass_its_deadline_is_answered_with_the_last_error_and_becomes_a_dead_letter(
    prepared: Settings, tmp_path: Path
) -> None:
    with running(prepared, "router", "inference") as _, Client(prepared) as client:
        diary = tmp_path / "diary"
        with pytest.raises(RemoteError, match="no luck at try 2") as caught:
            client.call("flaky", str(diary), 9, options=CallOptions(timeout_s=6, id="late"))
        assert (caught.value.type, caught.value.retriable) == ("ConnectionError", True)
        with tail(prepared, "requests.dlq") as letters:
            (message,) = letters.wait_for(bool)
    letter = letter_of(message)
    assert (letter.call_id, letter.function, letter.error, letter.attempts) == ("late", "flaky", "ConnectionError", 2)
    assert letter.reason == "no luck at try 2"
    assert letter.stack is not None
    assert "served.py" in letter.stack
    assert letter.node_id == diary.read_text().split()[0]
    assert (letter.source or "").startswith(prepared.namespace + "inference.general/")


def test_a_failure_that_nobody_called_retriable_is_answered_at_once_and_is_no_dead_letter(prepared: Settings) -> None:
    with running(prepared, "router", "inference"), Client(prepared) as client:
        reply = client.reply("fail", "lost", options=CallOptions(timeout_s=30))
        assert (reply.status, reply.attempts) == ("error", 1)
        assert client.call("echo", "x", options=CallOptions(timeout_s=30)) == "x"
        with tail(prepared, "requests.dlq") as letters, tail(prepared, "requests.retry.1s") as waiting:
            assert letters.caught_up()
            assert waiting.caught_up()
            assert not letters.messages
            assert not waiting.messages
