"""Functions that the worker of the integration tests serves."""

import asyncio
import os
import threading
import time
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
def picture(size: int, mask: bytes) -> dict[str, object]:
    return {"pixels": [bytes(size), mask], "name": "none"}


@easyremote.function
def hold(started: str, gate: str) -> str:
    """Say that it runs, then run until it is killed, unless the gate is open."""
    Path(started).write_text("running")
    if not Path(gate).exists():
        threading.Event().wait()
    return "done"


@easyremote.function(retry_on=(ConnectionError,))
def flaky(diary: str, failures: int) -> int:
    """Fail so many times, over all nodes; note in the diary which node ran it."""
    with Path(diary).open("a") as file:
        file.write(os.environ["EASYREMOTE_NODE_ID"] + "\n")
    tried = len(Path(diary).read_text().splitlines())
    if tried <= failures:
        raise ConnectionError(f"no luck at try {tried}")
    return tried


@easyremote.function
async def linger(started: str, stopped: str) -> None:
    """Say that it runs, then wait until it is cancelled, and say that it was."""
    try:
        # Whoever reads this may cancel before this coroutine goes on.
        await asyncio.to_thread(Path(started).write_text, "running")
        await asyncio.Event().wait()
    finally:
        Path(stopped).write_text("stopped")  # noqa: ASYNC240  # the loop may wait: who reads it waits already


@easyremote.function
def hang() -> None:
    threading.Event().wait()


@easyremote.function
def pass_gate(gate: str) -> str:
    """Return at once while the gate stands open, else when it is opened."""
    while not Path(gate).exists():
        time.sleep(0.01)  # a file tells nobody that it came
    return "passed"
