import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from easyremote.deploy import broker, jars, java
from easyremote.deploy.broker import BrokerState, EmbeddedBroker, has_ended
from easyremote.errors import ConfigError


def test_a_stale_state_file_is_removed(tmp_path: Path) -> None:
    home = tmp_path / "broker"
    home.mkdir()
    # This process lives, but it is no broker of that directory.
    state = BrokerState("127.0.0.1:1", 1, os.getpid(), 0, "4", "log")
    (home / "state.json").write_bytes(msgspec.json.encode(state))
    assert EmbeddedBroker(tmp_path).status() is None
    assert not (home / "state.json").exists()


def test_a_port_in_use_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "find_java", lambda: "java")
    monkeypatch.setattr(broker, "ensure_jars", lambda *_args, **_options: [])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            EmbeddedBroker(tmp_path, port=port).start()


def test_reset_deletes_only_what_it_made(tmp_path: Path) -> None:
    foreign = tmp_path / "broker"
    foreign.mkdir()
    (foreign / "precious").touch()
    with pytest.raises(ConfigError, match="was not made"):
        EmbeddedBroker(tmp_path).reset()
    assert (foreign / "precious").exists()


def test_a_jar_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    def forged(cache: Path) -> list[Path]:
        for name in json.loads(jars.PINS_FILE.read_text()):
            (cache / name).write_bytes(b"forged")
        return list(cache.iterdir())

    with pytest.raises(ConfigError, match="pinned is"):
        jars.ensure_jars(tmp_path / "kafka" / "jars", forged)


def test_no_java_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="install Java 17 or newer"):
        java.find_java()


def test_no_network_at_the_first_start_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # What Maven or jgo fetched before is under the home.
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="needs a network") as told:
        jars.ensure_jars(tmp_path / "kafka" / "jars")
    assert "EASYREMOTE_KAFKA" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_process_that_nobody_looks_after_counts_as_ended() -> None:
    careless = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", careless], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        orphan = psutil.Process(int(parent.stdout.readline()))
        assert not has_ended(orphan, 0.1)
        orphan.kill()
        assert has_ended(orphan, 5)
        assert parent.stdin is not None
        parent.stdin.close()


def test_a_process_whose_first_thread_ended_before_the_others_has_not_ended() -> None:
    half_gone = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); "
        "print(flush=True); ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen([sys.executable, "-c", half_gone], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = psutil.Process(child.pid)
        deadline = time.monotonic() + 10
        while process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            os.sched_yield()
        assert process.status() == psutil.STATUS_ZOMBIE
        assert not has_ended(process, 0.2)
        process.kill()
        assert has_ended(process, 5)
        assert not psutil.pid_exists(child.pid)  # looked after, as it is this process's own
