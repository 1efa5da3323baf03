"""What this package keeps on disk is its user's alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from easyremote.folders import private_folder
from easyremote.inference.begun import BegunJournal
from easyremote.settings import Settings
from easyremote.topics.blobs import open_store

KEY = "a" * 64


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def _open_to_others(folder: Path) -> list[str]:
    found = [folder, *folder.rglob("*")]
    return [str(path) for path in found if path.is_dir() and stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_a_folder_and_what_is_missing_above_it_are_its_owners_alone(tmp_path: Path) -> None:
    assert not _open_to_others(private_folder(tmp_path / "data" / "worker"))
    assert not _open_to_others(tmp_path / "data")


def test_one_that_was_open_is_closed_and_what_is_above_it_stays_as_it_was(tmp_path: Path) -> None:
    above = tmp_path / "shared"
    above.mkdir(mode=0o755)
    (above / "worker").mkdir(mode=0o755)
    private_folder(above / "worker")
    assert stat.S_IMODE(above.stat().st_mode) == 0o755
    assert not _open_to_others(above / "worker")


def test_the_data_directory_and_what_is_put_there_are_their_owners_alone(tmp_path: Path) -> None:
    settings = Settings(kafka="none:1", data_dir=tmp_path / "data", functions=(), models=())
    open_store(settings).put(KEY, b"secret")
    BegunJournal(settings.data_dir / "begun")
    program = "import os; os.umask(0); from easyremote.worker import build_app; build_app()"
    environment = os.environ | {"EASYREMOTE_DATA_DIR": str(settings.data_dir), "EASYREMOTE_KAFKA": "none:1"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert (settings.data_dir / "worker").is_dir()
    assert not _open_to_others(settings.data_dir)
    (blob,) = (path for path in (settings.data_dir / "blobs").rglob("*") if path.is_file())
    assert stat.S_IMODE(blob.stat().st_mode) == 0o600


def test_a_store_that_users_share_is_left_to_the_umask(tmp_path: Path) -> None:
    open_store(Settings(kafka="none:1", data_dir=tmp_path / "data", blobs=str(tmp_path / "shared"))).put(KEY, b"x")
    (blob,) = (path for path in (tmp_path / "shared").rglob("*") if path.is_file())
    assert stat.S_IMODE(blob.stat().st_mode) == 0o666
