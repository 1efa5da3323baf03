"""Functions that the worker of the integration tests serves."""

import threading
from pathlib import Path

import easyremote


@easyremote.function
def echo(text: str) -> str:
    return text


@easyremote.function
async def shout(text: str) -> str:
    return text.upper()


@easyremote.function
def fail(text: str) -> str:
    raise LookupError(text)


@easyremote.function
def hold(started: str, gate: str) -> str:
    """Say that it runs, then run until it is killed, unless the gate is open."""
    Path(started).write_text("running")
    if not Path(gate).exists():
        threading.Event().wait()
    return "done"
