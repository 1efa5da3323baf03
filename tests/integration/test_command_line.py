"""The command line as a person uses it: two terminals, one system."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from easyremote.settings import user_data_dir
from workers import producer_to

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

EASYREMOTE = Path(sys.executable).with_name("easyremote")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    # The jars are fetched once for all tests; everything else is new.
    (user_data_dir() / "kafka").mkdir(parents=True, exist_ok=True)
    (tmp_path / "kafka").symlink_to(user_data_dir() / "kafka")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EASYREMOTE_")}
    return inherited | {
        "EASYREMOTE_DATA_DIR": str(tmp_path),
        "EASYREMOTE_FUNCTIONS": "served",
        "EASYREMOTE_MODELS": "",
        "PYTHONPATH": str(Path(__file__).parents[1] / "support"),
    }


def _run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EASYREMOTE, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@dataclass
class System:
    """What `easyremote up` started, and what it says."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Return the end of what `up` and its worker said."""
        files = [self.log, self.log.parent / "worker" / "worker.log"]
        return "\n".join(f"{file.name}: {file.read_text()[-4_000:]}" for file in files if file.exists())


def _await_status(environment: Mapping[str, str], system: System, timeout_s: float = 120) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while True:
        assert system.process.poll() is None, f"`up` ended with code {system.process.returncode}: {system.said()}"
        said = _run(environment, "status", "--json")
        status: dict[str, Any] = json.loads(said.stdout)
        assert said.returncode == (0 if status["ready"] else 1)
        if status["ready"]:
            return status
        assert time.monotonic() < deadline, f"{status['reason']} after {timeout_s:g} s: {system.said()}"


@pytest.fixture
def system(environment: dict[str, str], tmp_path: Path) -> Iterator[System]:
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen([EASYREMOTE, "up"], env=environment, stdout=output, stderr=output)
    try:
        yield System(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)


@pytest.mark.faults
def test_up_serves_calls_and_alerts_restarts_what_dies_and_leaves_nothing(
    environment: dict[str, str], system: System
) -> None:
    status = _await_status(environment, system)
    assert {"router", "streams", "inference"} <= set(status["workers"][0]["ready"])
    broker = json.loads(_run(environment, "broker", "status", "--json").stdout)
    assert broker["bootstrap_servers"] == status["kafka"]

    called = _run(environment, "call", "echo", "hello")
    assert (called.returncode, called.stdout) == (0, '"hello"\n'), called.stderr
    refused = _run(environment, "call", "nowhere")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: no node has ever offered")
    assert refused.stdout == ""

    tail = subprocess.Popen(
        [EASYREMOTE, "tail", "alerts", "-n", "1"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert tail.stderr is not None
    assert tail.stderr.readline() == b"following alerts\n"
    producer = producer_to(broker["bootstrap_servers"])
    producer.produce("alerts", b'{"message": "a leak"}')
    assert producer.flush(10) == 0
    assert tail.communicate(timeout=30)[0] == b'{"message": "a leak"}\n'

    children = psutil.Process(system.process.pid).children(recursive=True)
    worker = next(child for child in children if "worker" in child.cmdline())
    worker.kill()
    assert psutil.wait_procs([worker], timeout=10)[0]
    again = _run(environment, "call", "echo", "once more", "--timeout", "50")
    assert again.stdout == '"once more"\n', f"{again.stderr}\n{system.said()}"

    children = psutil.Process(system.process.pid).children(recursive=True)
    system.process.send_signal(signal.SIGTERM)
    assert system.process.wait(20) == 0
    assert not psutil.wait_procs(children, timeout=1)[1]
    assert _run(environment, "broker", "status").returncode == 1


def test_without_a_system_each_command_says_what_to_start(environment: dict[str, str]) -> None:
    status = _run(environment, "status", "--json")
    assert status.returncode == 1
    assert "easyremote up" in json.loads(status.stdout)["reason"]
    called = _run(environment, "call", "echo", "x")
    assert called.returncode == 1
    assert "easyremote broker start" in called.stderr
    assert "Traceback" not in called.stderr
    assert "not running" in _run(environment, "broker", "status").stdout


def test_help_is_quick_and_names_every_command(environment: dict[str, str]) -> None:
    said = _run(environment, "--help").stdout
    assert all(name in said for name in ("up", "status", "call", "tail", "functions", "broker", "dlq", "bench"))
    program = "import sys, easyremote.cli; print(*{'torch', 'faust', 'confluent_kafka'} & set(sys.modules))"
    heavy = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert heavy.stdout.strip() == ""
