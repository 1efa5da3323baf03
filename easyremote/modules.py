"""A user's own modules, by name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from easyremote.errors import ConfigError

__all__ = ["import_module"]


def import_module(module: str, said_by: str) -> None:
    """Import a user's module from where this process was started.

    Parameters
    ----------
    module : str
        Its name.
    said_by : str
        What named it, for the error.

    Raises
    ------
    ConfigError
        If it cannot be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does: a user's modules stand where the worker is started
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{said_by}={module}: the module cannot be imported ({error})") from error
