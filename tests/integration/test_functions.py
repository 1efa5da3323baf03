"""The list of functions on a compacted topic, as anyone may read it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Message
from easyremote.inference.directory import list_functions
from easyremote.settings import Settings
from system import system
from workers import tail

pytestmark = pytest.mark.broker


def _nodes_of(settings: Settings, function: str) -> list[str]:
    return [node for one in list_functions(settings) if one.function.name == function for node in one.nodes]


def _left(messages: list[Message], node_id: str) -> bool:
    return any(one.key() == node_id.encode() and one.value() is None for one in messages)


def test_functions_are_listed_with_their_schemas_while_their_node_lives(settings: Settings) -> None:
    with system(settings, "served") as running, tail(settings, "functions") as followed:
        running.launch("leaves", "inference")
        running.launch("dies", "inference")
        running.await_up("leaves", "dies")
        (record, *_) = followed.wait_for(lambda messages: len(messages) >= 2)
        offer = json.loads(record.value() or b"")
        assert record.key() == offer["node_id"].encode()
        (flaky,) = [one for one in offer["functions"] if one["name"] == "flaky"]
        assert flaky["arguments"] == {
            "type": "object",
            "properties": {"diary": {"type": "string"}, "failures": {"type": "integer"}},
            "required": ["diary", "failures"],
            "additionalProperties": False,
        }
        assert flaky["result"] == {"type": "integer"}
        assert flaky["doc"].startswith("Fail so many times")
        assert _nodes_of(settings, "echo") == ["dies", "leaves"]

        running.stop("leaves")
        followed.wait_for(lambda messages: _left(messages, "leaves"))
        assert _nodes_of(settings, "echo") == ["dies"]
        running.kill("dies")
        running.await_view(lambda view: "dies" not in view)
        assert not _left(followed.messages, "dies")
        assert _nodes_of(settings, "echo") == []


def test_the_command_lists_functions_for_people_and_for_programs(settings: Settings) -> None:
    environment = os.environ | {
        "EASYREMOTE_KAFKA": settings.bootstrap_servers(),
        "EASYREMOTE_NAMESPACE": settings.namespace,
        "COLUMNS": "200",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("easyremote")
        return subprocess.run(
            [program, "functions", *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    with system(settings, "served") as running:
        running.start("one", "inference")
        shown = run().stdout
        assert "flaky(diary, failures) -> integer" in shown
        (echo,) = [one for one in json.loads(run("--json").stdout) if one["name"] == "echo"]
        assert echo["nodes"] == ["one"]
        assert echo["arguments"]["properties"] == {"text": {"type": "string"}}
