"""The example client in Node calls real functions over a real broker, with a Kafka client from npm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from workers import running, tail

pytestmark = [pytest.mark.broker, pytest.mark.timeout(200)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "clients" / "call.mjs"
KAFKAJS = "kafkajs@2.2.4"
MOST_LINES = 80


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example, and with its one dependency as npm installs it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    shutil.copy(EXAMPLE, folder)
    (folder / "package.json").write_text("{}")
    said = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", KAFKAJS],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if said.returncode != 0:
        pytest.skip(f"npm cannot install {KAFKAJS} here: {said.stderr.strip()[-300:]}")
    return folder


@pytest.fixture
def system(settings: Settings) -> Iterator[Settings]:
    TopicAdmin(settings).ensure(declarations())
    with running(settings, "router", "inference"):
        yield settings


def _node(settings: Settings, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", *arguments],
        cwd=folder,
        env=os.environ | {"EASYREMOTE_KAFKA": settings.bootstrap_servers(), "EASYREMOTE_NAMESPACE": settings.namespace},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_node_client_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < MOST_LINES


def test_the_node_client_prints_results_and_errors(system: Settings, installed: Path) -> None:
    called = _node(system, installed, "call.mjs", "shout", '"héllo"')
    assert (called.returncode, called.stdout) == (0, '"HÉLLO"\n'), called.stderr
    failed = _node(system, installed, "call.mjs", "fail", '"lost"')
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "LookupError: lost\n"
    unknown = _node(system, installed, "call.mjs", "nowhere")
    assert unknown.stderr.startswith("UnknownFunction: ")
    refused = _node(system, installed, "call.mjs", "echo", "1")
    assert refused.stderr.startswith("InvalidArguments: ")


PROGRAM = """
import { Client } from "./call.mjs";
const client = await new Client([process.env.EASYREMOTE_KAFKA], process.env.EASYREMOTE_NAMESPACE).open();
const told = (call) => call.catch((error) => error.name);
const [started, stopped] = process.argv.slice(2);
const late = told(client.call("echo", ["x"], { target: "nobody", timeoutS: 0.5 }));
const withdrawn = told(client.call("linger", [started, stopped], { id: "long" }));
await client.cancel("long");
const many = await Promise.all([...Array(100).keys()].map((number) => client.call("echo", [`${number}`])));
const first = await client.call("echo", ["first"], { id: "same" });
const again = await client.call("echo", ["first"], { id: "same" });
const other = await client.call("echo", ["second"], { id: "same" });
console.log(JSON.stringify({ many, first, again, other, late: await late, withdrawn: await withdrawn }));
await client.close();
"""


def test_the_node_client_has_many_calls_deadlines_cancellation_and_one_result_for_an_id(
    system: Settings, installed: Path, tmp_path: Path
) -> None:
    (installed / "many.mjs").write_text(PROGRAM)
    ran = _node(system, installed, "many.mjs", str(tmp_path / "started"), str(tmp_path / "stopped"))
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "many": [str(number) for number in range(100)],
        "first": "first",
        "again": "first",
        "other": "second",  # an id is no way to the answer of another call
        "late": "NoNodeAvailable",
        "withdrawn": "CallCancelled",
    }
    with tail(system, "requests.dlq") as letters:
        assert letters.caught_up()
        assert letters.messages == []
