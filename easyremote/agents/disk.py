"""State that memory has no room for, in RocksDB: scratch of this process, for the changelog has all of it."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyremote.errors import ConfigError
from easyremote.folders import private_folder
from easyremote.windows.resting import Rested

if TYPE_CHECKING:
    from rocksdict import Rdict

__all__ = ["DiskCopy", "DiskShelf", "Scratch", "need_rocksdict"]

_KEY, _TIME = b"k", b"t"
"""What a record of a shelf is of: a key's time and state; or a time and a key, in the order of time."""
_LOCK = "lock"
_NUMBER_BYTES = 8
_OFFSET = 1 << 63
"""Added to a time, so that bytes are in the order of numbers, below 0 too."""


def need_rocksdict() -> Any:  # Any: a module of an optional package
    """Return the package.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        import rocksdict
    except ImportError as error:
        raise ConfigError(
            "EASYREMOTE_STATE_KEYS keeps state on disk, which needs RocksDB: pip install 'easyremote-kafka[rocksdb]'"
        ) from error
    return rocksdict


class Scratch:
    """A folder of this process alone; those whose process has died are deleted when another one is made.

    Parameters
    ----------
    parent : Path
        Where such folders are.
    """

    def __init__(self, parent: Path) -> None:
        private_folder(parent)
        with (parent / _LOCK).open("w") as all_of_them:
            # Nobody takes a folder for a dead one's that is not locked yet.
            fcntl.flock(all_of_them, fcntl.LOCK_EX)
            for folder in parent.iterdir():
                if folder.is_dir() and _is_left(folder):
                    shutil.rmtree(folder, ignore_errors=True)
            self.folder = Path(tempfile.mkdtemp(dir=parent))
            self._lock = (self.folder / _LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def new(self, kind: str, partition: int) -> Path:
        """Return a folder in it that nobody has: what a partition had may be open still when it comes back."""
        return Path(tempfile.mkdtemp(prefix=f"{kind}-{partition}-", dir=self.folder))

    def close(self) -> None:
        """Delete it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _is_left(folder: Path) -> bool:
    try:
        with (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # gone, or nobody's yet
        return True
    return True


class _Database:
    """A database that is new, and deleted when it is closed.

    Parameters
    ----------
    folder : Path
        What is there is deleted; it is made anew.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = _opened(folder)

    def close(self) -> None:
        """Delete it."""
        self._data.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _opened(folder: Path) -> Rdict:
    rocksdict = need_rocksdict()
    shutil.rmtree(folder, ignore_errors=True)
    private_folder(folder.parent)
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    # Most keys that are asked for are new ones, which a filter tells without a read.
    blocks = rocksdict.BlockBasedOptions()
    blocks.set_bloom_filter(10, False)
    options.set_block_based_table_factory(blocks)
    database: Rdict = rocksdict.Rdict(str(folder), options)
    # What is here is worth nothing after a crash, so nothing is logged ahead.
    writes = rocksdict.WriteOptions()
    writes.disable_wal = True
    database.set_write_options(writes)
    return database


class DiskCopy(_Database, MutableMapping[bytes, bytes]):
    """The last value of each key of a changelog's partition, while a task is restored from it."""

    def __getitem__(self, key: bytes) -> bytes:
        value: bytes | None = self._data.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._data[key] = value

    def __delitem__(self, key: bytes) -> None:
        _ = self[key]
        del self._data[key]

    def __iter__(self) -> Iterator[bytes]:
        keys: Any = self._data.keys()  # Any: they are bytes, of which the stub knows nothing
        yield from keys

    def __len__(self) -> int:
        return sum(1 for _ in self._data.keys())  # noqa: SIM118  # iterating it is something else

    def clear(self) -> None:
        """Forget everything."""
        self.close()
        self._data = _opened(self._folder)


class DiskShelf(_Database):
    """Keys of one partition that rest until a record of theirs comes or their time has: `easyremote.windows.Shelf`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._batch: type[Any] = need_rocksdict().WriteBatch  # Any: the package's own class

    def put(self, rested: Iterable[Rested]) -> None:
        """Take keys in; none of them is there."""
        batch = self._batch(raw_mode=True)
        for key, content, wake in rested:
            time = (wake + _OFFSET).to_bytes(_NUMBER_BYTES)
            batch.put(_KEY + key, time + content)
            batch.put(_TIME + time + key, b"")
        self._data.write(batch)

    def take(self, key: bytes) -> bytes | None:
        """Return a key's state, which is no more on the shelf; None if it was not."""
        found: bytes | None = self._data.get(_KEY + key)
        if found is None:
            return None
        del self._data[_KEY + key]
        del self._data[_TIME + found[:_NUMBER_BYTES] + key]
        return found[_NUMBER_BYTES:]

    def due(self, limit: int, most: int) -> list[tuple[bytes, bytes]]:
        """Return keys whose time is at or before a limit, the earliest first, which are no more on the shelf."""
        end = _TIME + (limit + 1 + _OFFSET).to_bytes(_NUMBER_BYTES)
        keys: list[bytes] = []
        entries: Any = self._data.keys(from_key=_TIME)  # Any: they are bytes, of which the stub knows nothing
        for entry in entries:
            if len(keys) == most or entry >= end:
                break
            keys.append(entry[1 + _NUMBER_BYTES :])
        return [(key, self.take(key) or b"") for key in keys]
