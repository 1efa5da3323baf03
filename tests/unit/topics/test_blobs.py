"""The stores of large arguments: the same tests on a directory and on a file system of fsspec, which S3 is one of."""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from easyremote.agents.retention import sweep
from easyremote.errors import ConfigError
from easyremote.settings import Settings
from easyremote.topics.blobs import BlobStore, DirectoryStore, FsspecStore, open_store
from fsspec.config import conf
from fsspec.implementations.memory import MemoryFileSystem
from s3fs import S3FileSystem

CONTENT = b'"' + bytes(range(32, 33)) * 10_000 + b'"'
KEY = hashlib.sha256(CONTENT).hexdigest()
HOSTILE = ["../" * 8 + "etc/passwd", "/etc/passwd", "..", "", f"{KEY}/../x", f"{KEY}\n", KEY.upper(), "s3://b/" + KEY]

Age = Callable[[str, float], None]


@pytest.fixture(params=["directory", "object store", "folders of fsspec"])
def aged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[BlobStore, Age]:
    """A store, and how to say when one of its blobs was put."""
    if request.param == "directory":
        root = tmp_path / "store"
        return DirectoryStore(root), lambda key, at_s: os.utime(root / key[:2] / key, (at_s, at_s))
    if request.param == "folders of fsspec":
        root = tmp_path / "calls"
        return FsspecStore(f"local://{tmp_path}", "calls"), lambda key, at_s: os.utime(
            root / key[:2] / key, (at_s, at_s)
        )
    prefix = uuid.uuid4().hex

    def age(key: str, at_s: float) -> None:
        MemoryFileSystem.store[f"/{prefix}/calls/{key[:2]}/{key}"].modified = datetime.fromtimestamp(at_s, UTC)

    return FsspecStore(f"memory://{prefix}", "calls"), age


@pytest.fixture
def store(aged: tuple[BlobStore, Age]) -> BlobStore:
    return aged[0]


def test_what_is_put_is_read_back_and_what_is_not_there_is_told(store: BlobStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.get(KEY, 10)
    store.put(KEY, CONTENT)
    store.put(KEY, CONTENT)
    assert store.get(KEY, len(CONTENT) + 1) == CONTENT
    assert store.get(KEY, 5) == CONTENT[:5]


@pytest.mark.parametrize("key", HOSTILE)
def test_only_a_hash_is_a_key(store: BlobStore, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        store.put(key, b"x")
    with pytest.raises(ValueError, match="no key"):
        store.get(key, 1)
    with pytest.raises(ValueError, match="no key"):
        store.remove(key, 0)


def test_a_sweep_removes_what_is_old_and_not_needed(aged: tuple[BlobStore, Age]) -> None:
    store, age = aged
    keys = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("old", "new", "needed", "again")}
    for name, key in keys.items():
        store.put(key, name.encode())
        age(key, 500 if name == "new" else 100)
    store.put(keys["again"], b"again")
    age(keys["again"], 500)
    assert sweep(store, 300, lambda: {keys["needed"]}) == 1
    assert sweep(store, 300, lambda: {keys["needed"]}) == 0
    with pytest.raises(FileNotFoundError):
        store.get(keys["old"], 9)
    assert {store.get(keys[name], 9) for name in ("new", "needed", "again")} == {b"new", b"needed", b"again"}


def test_a_blob_put_again_during_a_sweep_stays(aged: tuple[BlobStore, Age]) -> None:
    store, age = aged
    store.put(KEY, CONTENT)
    age(KEY, 100)

    def put_again() -> set[str]:
        store.put(KEY, CONTENT)  # after the sweep has seen that it is old
        return set()

    assert sweep(store, 300, put_again) == 0
    assert store.get(KEY, len(CONTENT)) == CONTENT


def test_a_sweep_that_cannot_tell_what_is_needed_removes_nothing(aged: tuple[BlobStore, Age]) -> None:
    store, age = aged
    store.put(KEY, CONTENT)
    age(KEY, 100)

    def unknown() -> set[str]:
        raise OSError("no broker")

    with pytest.raises(OSError, match="no broker"):
        sweep(store, 300, unknown)
    assert store.get(KEY, 1) == CONTENT[:1]


def test_several_writers_of_the_same_blob_leave_one_whole(store: BlobStore) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                store.put(KEY, CONTENT)
                assert store.get(KEY, len(CONTENT) + 1) == CONTENT
        except BaseException as error:  # noqa: BLE001  # told to the test
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_directory_without_room_keeps_no_half_of_a_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        self.open("wb").close()
        raise OSError(28, "No space left on device")

    store = DirectoryStore(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        store.put(KEY, CONTENT)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_sweep_removes_what_a_writer_that_died_left_and_touches_nothing_else(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    left, foreign = tmp_path / KEY[:2] / f"{KEY}.0123.part", tmp_path / "notes.txt"
    left.parent.mkdir()
    for path in (left, foreign):
        path.write_bytes(b"x")
        os.utime(path, (100, 100))
    assert sweep(store, 300, set) == 0
    assert (left.exists(), foreign.exists()) == (False, True)


def _settings(**fields: Any) -> Settings:
    return Settings(kafka="none:1", **fields)


def test_the_settings_say_where_the_store_is(tmp_path: Path) -> None:
    assert open_store(_settings(data_dir=tmp_path)).place == str(tmp_path / "blobs" / "calls")
    assert open_store(_settings(blobs=f"file://{tmp_path}", namespace="a-")).place == str(tmp_path / "a-calls")
    assert open_store(_settings(blobs="memory://bucket/x/", namespace="..")).place == "memory://bucket/x/..calls"


def test_what_the_url_names_is_not_made_by_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FsspecStore(f"local://{tmp_path}/misspelt", "calls").put(KEY, CONTENT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("told", "times"), [({}, 2), ({"retries": {"total_max_attempts": 1}}, 1)])
def test_s3_that_is_busy_is_asked_twice_and_no_more_unless_fsspecs_configuration_says_so(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], times: int
) -> None:
    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(503)

        def log_message(self, format: str, *args: object) -> None:
            """Into the test's own list."""

    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {"ACCESS_KEY_ID": "a-key", "SECRET_ACCESS_KEY": "a-secret", "DEFAULT_REGION": "r"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setitem(conf, "s3", {"config_kwargs": told})
    S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match="Service Unavailable"):
        FsspecStore(f"s3://bucket/{uuid.uuid4().hex}", "calls").get(KEY, 10)
    S3FileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()
    assert len(asked) == times


def test_a_store_that_cannot_be_opened_says_what_to_install_and_hides_a_password() -> None:
    with pytest.raises(ConfigError, match=r"easyremote-kafka\[blobs\]") as told:
        open_store(_settings(blobs="nosuch://me:secret@host/x"))
    assert "secret" not in str(told.value)
