"""Where large arguments and results lie: a directory, or whatever fsspec can reach, such as S3.

A blob's key is the SHA-256 of its content, so the same content is one blob and a key can name nothing but a blob.
Where the store is, only this process's own settings say.
"""

from __future__ import annotations

import importlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from easyremote.errors import ConfigError
from easyremote.folders import private_folder
from easyremote.topics.places import SecretPlace

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["BlobStore", "DirectoryStore", "FsspecStore", "open_store"]

_KEY = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".part"
_FILE_URL = "file://"
_OWNERS_FILE, _ANYBODYS_FILE = 0o600, 0o666
_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"})
"""Protocols whose objects appear whole or not at all; others are file systems, where a blob is written and renamed."""
_S3 = frozenset({"s3", "s3a"})
_S3_CONNECT_S = 1.0
_S3_SILENT_S = 2.0
"""Until the first byte of an answer, and between two: however large a blob is, it may take longer as a whole."""
_S3_TRIES = 2
"""The second, up to 1 s later, is for a server that is busy and a packet that is lost."""
_S3_PUT_S = 5.0
_S3_SLOWEST_BYTES_S = 131_072
"""A put that takes longer than both allow is given up: nothing else ends the wait for a server to say "continue"."""


class BlobStore(Protocol):
    """Keeps content by its key; used by several threads and processes at once.

    What goes wrong is an `OSError`, and a blob that is not there a `FileNotFoundError`.
    """

    place: str
    """Where it is, for people; without credentials."""

    def put(self, key: str, content: bytes) -> None:
        """Keep content, all of it or nothing; what is there already is as new again."""
        ...

    def get(self, key: str, most_bytes: int) -> bytes:
        """Return a blob, or its beginning of so many bytes."""
        ...

    def expired(self, before_s: float) -> Iterator[str]:
        """Yield the keys of the blobs that were last put before a time, s since the epoch."""
        ...

    def remove(self, key: str, before_s: float) -> bool:
        """Remove a blob unless it was put again since; say whether it was removed."""
        ...


def open_store(settings: Settings) -> BlobStore:
    """Return the store of these settings; nothing is created yet.

    Raises
    ------
    ConfigError
        If EASYREMOTE_BLOBS is a URL that fsspec cannot open here.
    """
    folder = f"{settings.namespace}calls"
    where = settings.blobs
    if where is None:
        return DirectoryStore(settings.data_dir / "blobs" / folder, is_private=True)
    if "://" in where and not where.startswith(_FILE_URL):
        return FsspecStore(where, folder)
    return DirectoryStore(Path(where.removeprefix(_FILE_URL)).expanduser() / folder)


def _checked(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise ValueError(f"{key!r} is no key of a blob: it is a SHA-256 in 64 lower-case hexadecimal digits")
    return key


class DirectoryStore:
    """A store in a directory, which several machines may share.

    Parameters
    ----------
    root : Path
        The directory; made when the first blob comes.
    is_private : bool
        Whether only this user may look into it; else that is left to the umask, as where users share one.
    """

    def __init__(self, root: Path, *, is_private: bool = False) -> None:
        self._root = root
        self._is_private = is_private
        self.place = str(root)

    def put(self, key: str, content: bytes) -> None:
        """Write beside and rename, so that nobody ever reads half of it."""
        path = self._path(key)
        if self._is_private:
            private_folder(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{key}.{uuid.uuid4().hex}{_UNFINISHED}")
        try:
            unfinished.touch(_OWNERS_FILE if self._is_private else _ANYBODYS_FILE)
            unfinished.write_bytes(content)
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise

    def get(self, key: str, most_bytes: int) -> bytes:
        """Read a blob."""
        with self._path(key).open("rb") as file:
            return file.read(most_bytes)

    def expired(self, before_s: float) -> Iterator[str]:
        """Yield old keys by the files' times; what a writer that died left unfinished is removed on the way."""
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                if not self._is_older(path, before_s):
                    continue
                if _KEY.fullmatch(name):
                    yield name
                elif name.endswith(_UNFINISHED) and _KEY.match(name):
                    path.unlink(missing_ok=True)

    def remove(self, key: str, before_s: float) -> bool:
        """Remove a file; one that is put again at the very moment stays."""
        path = self._path(key)
        # Out of the way first: a file that is renamed to this name meanwhile is another one.
        aside = path.with_name(f"{key}.{uuid.uuid4().hex}{_UNFINISHED}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return False  # another sweep was quicker
        if not self._is_older(aside, before_s):
            aside.rename(path)
            return False
        aside.unlink(missing_ok=True)
        return True

    def _path(self, key: str) -> Path:
        return self._root / _checked(key)[:2] / key

    @staticmethod
    def _is_older(path: Path, before_s: float) -> bool:
        try:
            return path.stat().st_mtime < before_s
        except FileNotFoundError:
            return False


class FsspecStore:
    """A store at a URL of fsspec: `s3://bucket/prefix` and many more; credentials are its protocol's own affair.

    Parameters
    ----------
    url : str
        Where.
    folder : str
        Below it.

    Raises
    ------
    ConfigError
        If fsspec or the protocol's package is not installed, or the URL is none.
    """

    def __init__(self, url: str, folder: str) -> None:
        self._secret = SecretPlace(url)
        self.place = f"{self._secret.shown.rstrip('/')}/{folder}"
        protocol = url.partition("://")[0]
        try:
            fsspec: Any = importlib.import_module("fsspec.core")  # Any: its types leave everything open
            # Listings must be asked for each time: other processes put and remove.
            options = {"config_kwargs": _s3_config(protocol)} if protocol in _S3 else {}
            self._files, path = fsspec.url_to_fs(url, use_listings_cache=False, **options)
        except (ImportError, ValueError, TypeError, OSError) as error:
            raise ConfigError(
                f"EASYREMOTE_BLOBS={self.place} cannot be opened: {self._secret.kept_out_of(str(error))}; "
                "pip install 'easyremote-kafka[blobs]' brings fsspec and S3"
            ) from None  # its own text may say the URL whole
        self._is_s3 = protocol in _S3
        if self._is_s3:
            self._files.retries = 1  # by s3fs, of all that boto has tried
        self._root = f"{path.rstrip('/')}/{folder}"
        self._has_objects = protocol in _OBJECTS

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or a file beside and rename it; what the URL names must be there."""
        path = self._path(key)
        with self._os_errors():
            if self._has_objects:
                self._pipe(path, content)
                return
            for folder in (self._root, path.rpartition("/")[0]):
                with suppress(FileExistsError):
                    self._files.mkdir(folder, create_parents=False)
            unfinished = f"{path}.{uuid.uuid4().hex}{_UNFINISHED}"
            try:
                self._files.pipe_file(unfinished, content)
                self._files.mv(unfinished, path)
            except Exception:
                with suppress(Exception):  # what went wrong first is told
                    self._files.rm_file(unfinished)
                raise

    def _pipe(self, path: str, content: bytes) -> None:
        if not self._is_s3:
            self._files.pipe_file(path, content)
            return
        asyn: Any = importlib.import_module("fsspec.asyn")  # Any: as above
        most_s = _S3_PUT_S + len(content) / _S3_SLOWEST_BYTES_S
        try:
            asyn.sync(self._files.loop, self._files._pipe_file, path, content, timeout=most_s)  # noqa: SLF001  # fsspec's own way
        except TimeoutError as error:
            raise OSError(f"it did not take {len(content)} bytes within {most_s:.0f} s") from error

    def get(self, key: str, most_bytes: int) -> bytes:
        """Read an object."""
        path = self._path(key)
        with self._os_errors():
            return bytes(self._files.cat_file(path, start=0, end=most_bytes))

    def expired(self, before_s: float) -> Iterator[str]:
        """Yield old keys by the objects' times; what a writer that died left unfinished is removed on the way."""
        with self._os_errors():
            found = list(self._files.find(self._root))
        for path in found:
            name = path.rpartition("/")[2]
            if _KEY.match(name) is None or not self._is_older(path, before_s):
                continue
            if _KEY.fullmatch(name):
                yield name
            elif name.endswith(_UNFINISHED):
                with self._os_errors(), suppress(FileNotFoundError):
                    self._files.rm_file(path)

    def remove(self, key: str, before_s: float) -> bool:
        """Remove an object unless it has just been put again."""
        path = self._path(key)
        if not self._is_older(path, before_s):
            return False
        try:
            with self._os_errors():
                self._files.rm_file(path)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        # Each protocol's package raises what it likes, with whatever it was given in its text.
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(self._secret.kept_out_of(str(error))) from None
        except OSError as error:
            raise OSError(self._secret.kept_out_of(str(error))) from None
        except Exception as error:  # noqa: BLE001
            raise OSError(f"{type(error).__name__}: {self._secret.kept_out_of(str(error))}") from None

    def _path(self, key: str) -> str:
        return f"{self._root}/{_checked(key)[:2]}/{key}"

    def _is_older(self, path: str, before_s: float) -> bool:
        try:
            with self._os_errors():
                return bool(self._files.modified(path).timestamp() < before_s)
        except FileNotFoundError:
            return False


def _s3_config(protocol: str) -> dict[str, Any]:  # Any: boto's own options
    # What is given to fsspec here replaces what its own configuration says, which may be how the server is spoken to.
    core: Any = importlib.import_module("fsspec.core")  # Any: as above
    config: Any = importlib.import_module("fsspec.config")
    told: dict[str, Any] = config.apply_config(core.get_filesystem_class(protocol), {}).get("config_kwargs", {})
    return {
        "connect_timeout": _S3_CONNECT_S,
        "read_timeout": _S3_SILENT_S,
        "retries": {"total_max_attempts": _S3_TRIES},
    } | told
