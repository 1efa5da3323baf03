"""Folders that hold what is nobody else's to read: calls, states, blobs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["private_folder"]

_OWNER_ONLY = 0o700


def private_folder(path: Path) -> Path:
    """Make a folder, and those above it that are missing, for their owner alone; return it.

    One that is there already, and this user's, is closed to others. Those above it that were there stay as they are:
    they may be anybody's, such as `/tmp`.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        folder.mkdir(mode=_OWNER_ONLY, exist_ok=True)
    about = path.stat()
    if about.st_uid == os.geteuid() and stat.S_IMODE(about.st_mode) & 0o077:
        path.chmod(_OWNER_ONLY)
    return path
