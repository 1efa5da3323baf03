"""Functions that write down that they ran, so that a test can count executions across processes that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from pathlib import Path

import easyremote


def note(journal: str, call: str) -> None:
    # One write with O_APPEND: lines of several processes do not mix, and outlive the process.
    line = f"{call} {os.environ['EASYREMOTE_NODE_ID']}\n".encode()
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)
    finally:
        os.close(file)


@easyremote.function
def mark(journal: str, call: str, busy_ms: float = 0) -> str:
    """Write the call down, be busy for a while, return its name."""
    note(journal, call)
    if busy_ms:
        time.sleep(busy_ms / 1000)
    return call


@easyremote.function
async def mark_and_wait(journal: str, call: str, wait_ms: float) -> str:
    """Do as `mark` does, on the event loop: hundreds at once."""
    note(journal, call)
    await asyncio.sleep(wait_ms / 1000)
    return call


@easyremote.function
async def stamp(journal: str, call: str, wait_ms: float) -> str:
    """Do as `mark_and_wait` does, and return what no other run returns."""
    note(journal, call)
    await asyncio.sleep(wait_ms / 1000)
    return uuid.uuid4().hex


@easyremote.function
def mark_and_die(journal: str, call: str, deadly: str) -> str:
    """Do as `mark` does; end the process, as a fault in native code would, if this is the deadly call."""
    note(journal, call)
    if call == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    return call


_begun: set[str] = set()
_all_begun = asyncio.Event()


@easyremote.function
async def mark_with_others(journal: str, call: str, deadly: str, calls: int) -> str:
    """Write the call down, wait until `calls` of them are under way here, end the process if this is the deadly one.

    Once a file `again` is beside the journal, a call waits for no other.
    """
    note(journal, call)
    if not Path(journal).with_name("again").exists():
        _begun.add(call)
        if len(_begun) == calls:
            _all_begun.set()
        await _all_begun.wait()
    if call == deadly:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(0.04)
    return call
