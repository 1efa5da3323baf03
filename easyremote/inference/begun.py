"""Which calls a process has begun and not ended, in a file that outlives it: what was in its hands when it died."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import uuid
from pathlib import Path

from easyremote.folders import private_folder

__all__ = ["BegunJournal", "left_behind", "mark_of"]

_SLOT_BYTES = 128
_SLOTS = 4_096
"""More calls than a node has in hand at a time; what finds no slot is not noted."""
_SUFFIX = ".begun"


def mark_of(call_id: str) -> bytes:
    """Return what a call is noted by: its id, or a hash of one that is too long for a slot.

    Examples
    --------
    >>> mark_of("order-1"), len(mark_of("x" * 1_000))
    (b'order-1', 64)
    """
    mark = call_id.encode()
    return mark if 0 < len(mark) < _SLOT_BYTES else hashlib.sha256(mark).hexdigest().encode()


class BegunJournal:
    """Notes calls by a write into mapped memory each: no system call, and the kernel keeps it when the process dies.

    The file is locked as long as this process lives; so whoever can lock it knows that its process is dead.

    Parameters
    ----------
    directory : Path
        Where the journals of this machine's nodes are; made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        private_folder(directory)
        self.path = directory / f"{uuid.uuid4().hex}{_SUFFIX}"
        unnamed = self.path.with_suffix(".new")
        self._file = unnamed.open("x+b")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._file.truncate(_SLOTS * _SLOT_BYTES)
        self._map = mmap.mmap(self._file.fileno(), _SLOTS * _SLOT_BYTES)
        unnamed.rename(self.path)  # named only when it is locked, or it would be taken for a dead one's
        # `pop` and `append` of a list are atomic, so threads need no lock.
        self._free = list(range(0, _SLOTS * _SLOT_BYTES, _SLOT_BYTES))

    def begin(self, call_id: str) -> int | None:
        """Note that a call is about to run; return its slot, or None if there is none."""
        try:
            slot = self._free.pop()
        except IndexError:
            return None
        mark = mark_of(call_id)
        self._map[slot + 1 : slot + 1 + len(mark)] = mark
        self._map[slot] = len(mark)  # last: a slot without a length is free
        return slot

    def end(self, slot: int) -> None:
        """Note that the call of a slot has ended."""
        self._map[slot] = 0
        self._free.append(slot)

    def close(self) -> None:
        """Leave nothing behind."""
        self.path.unlink(missing_ok=True)
        self._map.close()
        self._file.close()


def left_behind(directory: Path) -> dict[Path, list[bytes]]:
    """Return the journals of processes that died, each with the marks of what they had in hand."""
    found = {}
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        try:
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                content = file.read()
        except (BlockingIOError, FileNotFoundError):
            continue  # its process lives, or another one has just dealt with it
        slots = range(0, len(content) - _SLOT_BYTES + 1, _SLOT_BYTES)
        found[path] = [content[slot + 1 : slot + 1 + content[slot]] for slot in slots if content[slot]]
    return found
