"""Models are loaded, swapped and unloaded while calls run."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from callers import OPTIONS, Callers
from easyremote import Client, DeadlineExceeded, NoNodeAvailable
from easyremote.cli import app
from easyremote.inference.nodes import NodeWatch
from easyremote.settings import Settings, load_settings
from easyremote.topics.records import Reply
from system import System, system
from typer.testing import CliRunner, Result
from workers import tail

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

SWAPS = 20
MODELS = {
    "EASYREMOTE_MODELS": "versioned:Versioned",
    "EASYREMOTE_MODEL_CLASSES": "versioned:Gated,versioned:NoWeights,versioned:FailsCold,versioned:NoSuchClass,"
    "versioned:Another",
}


@pytest.fixture(autouse=True)
def _this_system(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EASYREMOTE_KAFKA", settings.bootstrap_servers())
    monkeypatch.setenv("EASYREMOTE_NAMESPACE", settings.namespace)
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def models(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments])


def done(*arguments: str) -> str:
    said = models(*arguments)
    assert said.exit_code == 0, said.output
    return said.output


@contextmanager
def nodes(settings: Settings, *names: str) -> Iterator[System]:
    with system(settings) as running:
        running.launch("router", "router")
        for name in names:
            running.launch(name, "inference", **MODELS)
        running.await_up("router", *names)
        yield running


def await_beats(settings: Settings, node_id: str, count: int) -> None:
    """Wait until a node has told its state so many times from now on."""
    told: set[int] = set()
    beat = threading.Event()
    watch = NodeWatch(settings, changed=beat.set)
    try:
        assert watch.wait_caught_up(30)
        for _ in range(count * 20):
            beat.clear()
            told |= {one.sent_ms for one in watch.live() if one.node_id == node_id}
            if len(told) > count:
                return
            beat.wait(5)
        pytest.fail(f"{node_id} told its state {len(told)} times")
    finally:
        watch.close()


def said_by(replies: list[Reply]) -> set[tuple[str, object, str | None]]:
    return {
        (one.status, one.result["result"] if one.status == "ok" else one.error, one.model_version) for one in replies
    }


def test_twenty_swaps_under_load_fail_no_call_and_each_reply_names_the_version_that_made_it(settings: Settings) -> None:
    with nodes(settings, "one", "two"), Callers(settings, "which_version", ["x"]) as callers:
        callers.await_version("configured")
        for number in range(SWAPS):
            done("swap", "versioned", f"v{number}")
            callers.await_version(f"v{number}")
    assert not callers.errors
    assert {one.status for one in callers.replies} == {"ok"}
    wrong = [one for one in callers.replies if one.result["result"] != one.model_version]
    assert not wrong
    assert {one.model_version for one in callers.replies} == {"configured", *(f"v{number}" for number in range(SWAPS))}


def test_a_version_that_fails_to_load_or_to_warm_up_leaves_the_old_one_answering(settings: Settings) -> None:
    with nodes(settings, "one"), Client(settings, direct=True) as client:
        done("swap", "versioned", "good")
        for path, why in (
            ("versioned:NoWeights", "its weights are missing"),
            ("versioned:FailsCold", "its first pass failed"),
            ("versioned:NoSuchClass", "write module:Class"),
        ):
            said = models("swap", "versioned", "bad", "--class", path)
            assert said.exit_code == 1
            assert why in said.output
            assert client.reply("which_version", "x", options=OPTIONS).model_version == "good"
        [listed] = json.loads(done("list", "--json"))
        assert (listed["node"], listed["name"], listed["version"]) == ("one", "versioned", "good")


def test_why_an_order_failed_on_every_node_is_listed_until_something_else_is_ordered(settings: Settings) -> None:
    with nodes(settings, "one"):
        for before in (None, "good"):
            if before is not None:
                done("swap", "versioned", before)
            assert models("swap", "versioned", "bad", "--class", "versioned:NoWeights").exit_code == 1
            await_beats(settings, "one", 4)  # long after the node has heard that the order is taken back
            [listed] = json.loads(done("list", "--json"))
            assert (listed["state"], listed["coming"]) == ("failed", "bad")
            assert "its weights are missing" in listed["reason"]
            assert listed["version"] == (before or "configured")
            assert "one: versioned bad failed, ModelError: its weights are missing" in done("list")
        done("swap", "versioned", "better")
        [listed] = json.loads(done("list", "--json"))
        assert (listed["state"], listed["version"], listed["reason"]) == ("ready", "better", None)


def test_going_back_is_one_command_and_a_node_comes_back_with_what_was_ordered(settings: Settings) -> None:
    with nodes(settings, "one") as running, Client(settings) as client:

        def version() -> str | None:
            return client.reply("which_version", "x", options=OPTIONS).model_version

        done("swap", "versioned", "new")
        assert version() == "new"
        running.kill("one")
        running.start("one", "inference", **MODELS)
        assert version() == "new"
        done("rollback", "versioned")
        assert version() == "configured"
        done("rollback", "versioned")
        assert version() == "new"
        [state] = json.loads(done("list", "--json"))
        assert state["previous"] == "configured"
        assert state["since"], "from which offsets on it answers"


def test_a_node_that_comes_back_answers_nothing_until_what_was_ordered_is_warm(
    settings: Settings, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with nodes(settings, "one") as running, Client(settings) as client, tail(settings, "requests.retry.1s") as waiting:
        opener = threading.Thread(target=gate.write_text, args=("open",), daemon=True)  # blocks until it is read
        opener.start()
        done("swap", "versioned", "new", "--class", "versioned:Gated", "--param", f"gate={gate}")
        running.kill("one")
        running.start("one", "inference", **MODELS)
        future = client.submit("which_version", "x", options=OPTIONS)
        waiting.wait_for(bool)  # though the version of the settings is in memory
        gate.write_text("open")
        assert future.reply(60).model_version == "new"


def test_a_model_is_loaded_where_it_was_not_and_unloaded_where_another_node_has_it(settings: Settings) -> None:
    with nodes(settings, "one", "two"), Client(settings) as client:
        done("load", "another", "1", "--class", "versioned:Another", "--node", "one")
        reply = client.reply("which_other", "x", options=OPTIONS)
        assert (reply.node_id, reply.model, reply.model_version) == ("one", "another", "1")
        done("rollback", "another", "--node", "one")  # to there being none
        for _ in range(5):  # where the machine is busy the word may come after the client's last one
            with pytest.raises((NoNodeAvailable, DeadlineExceeded)) as told:
                client.call("which_other", "x", timeout=2)
            if isinstance(told.value, NoNodeAvailable):
                break
        else:
            pytest.fail("in five calls no node's absence was told")
        with Callers(settings, "which_version", ["x"]) as callers:
            callers.await_version("configured")
            done("unload", "versioned", "--node", "one")
            answered = len(callers.replies)
            callers.await_more(100)
        assert not callers.errors
        assert said_by(callers.replies) == {("ok", "configured", "configured")}
        assert {one.node_id for one in callers.replies[answered + 50 :]} == {"two"}


def test_orders_that_mean_nobody_or_go_back_to_nothing_say_so(settings: Settings) -> None:
    with nodes(settings, "one"):
        assert "no live node is meant by --node nobody" in models("swap", "versioned", "2", "--node", "nobody").output
        assert "nothing was ordered of 'versioned'" in models("rollback", "versioned").output
        assert "--class module:Class" in models("swap", "unheard-of", "2").output
