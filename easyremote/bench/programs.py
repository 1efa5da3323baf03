"""Programs that a measurement starts beside itself, and stops."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["log_of", "worker"]

_STOP_S = 10.0


def log_of(settings: Settings) -> Path:
    """Return the file that takes the worker's output."""
    return settings.data_dir / "bench.log"


@contextmanager
def worker(
    settings: Settings, environment: Mapping[str, str], app: str = "easyremote"
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `faust -A <app> worker` on the measured Kafka until the block ends."""
    with log_of(settings).open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("faust"), "-A", app, "worker", "-l", "warn"],
            env=os.environ
            | {
                "EASYREMOTE_KAFKA": settings.bootstrap_servers(),
                "EASYREMOTE_NAMESPACE": settings.namespace,
                "EASYREMOTE_DATA_DIR": str(settings.data_dir),
                "EASYREMOTE_LOG_LEVEL": "WARNING",
            }
            | dict(environment),
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
