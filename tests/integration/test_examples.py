"""Each numbered example, served by a real worker as its first lines say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from easyremote import CallOptions, Client
from easyremote.errors import InvalidArguments, RemoteError
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from workers import running

pytestmark = pytest.mark.broker
SOON = CallOptions(timeout_s=20)
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_model_of_ones_own_in_twenty_lines_is_served(settings: Settings) -> None:
    source = (EXAMPLES / "01_own_model.py").read_text()
    written = source[source.index("class ReadingEase") :]
    assert sum(bool(line.strip()) for line in written.splitlines()) <= 20
    TopicAdmin(settings).ensure(declarations())
    with (
        running(
            settings,
            "router",
            "inference",
            EASYREMOTE_MODELS="01_own_model:ReadingEase",
            EASYREMOTE_FUNCTIONS="02_own_functions",
            PYTHONPATH=str(EXAMPLES),
        ),
        Client(settings) as client,
    ):
        _model(client)
        _functions(client)


def test_the_streaming_example_prints_items_and_leaves_early(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    with running(settings, "router", "inference", EASYREMOTE_FUNCTIONS="03_streaming", PYTHONPATH=str(EXAMPLES)):
        environment = os.environ | {
            "EASYREMOTE_KAFKA": settings.bootstrap_servers(),
            "EASYREMOTE_NAMESPACE": settings.namespace,
        }
        said = subprocess.run(
            [sys.executable, EXAMPLES / "03_streaming.py"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert said.stdout.split() == ["1000000", "999999", "999998", "one", "by", "one"]


def _model(client: Client) -> None:
    reply = client.reply("reading_ease", "The cat sat on the mat.", options=SOON)
    assert reply.model == "flesch"
    assert reply.result["result"] == 116.1
    assert set(reply.result) == {"result", "model_name", "inference_time", "confidence"}
    with pytest.raises(RemoteError, match="flesch takes a text of one word or more, not 5") as refused:
        client.call("reading_ease", 5, options=SOON)
    assert refused.value.type == "InvalidInput"
    together = [client.submit("reading_ease", text, options=SOON) for text in ("Go.", "", "Go on.")]
    assert [one.reply().status for one in together] == ["ok", "error", "ok"]


def _functions(client: Client) -> None:
    assert client.call("mean", [1, 2, 6], options=SOON) == 3.0
    assert client.call("between", {"x": 0, "y": 2}, second={"x": 4, "y": 2}, options=SOON) == {"x": 2.0, "y": 2.0}
    assert client.call("text.later", "hello", options=SOON) == "hello"
    with pytest.raises(InvalidArguments, match="argument 'first': Object missing required field `y`"):
        client.call("between", {"x": 0}, {"x": 1, "y": 1}, options=SOON)
