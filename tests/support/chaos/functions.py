"""What the nodes under test serve: functions that write down that they ran, and behave as their caller says."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import easyremote

_RUNS = Path(os.environ.get("CHAOS_JOURNAL", os.devnull))
_TRIES = Path(os.environ.get("CHAOS_TRIES", "."))


def append(file: Path, line: str) -> None:
    """Append a line so that those of several processes do not mix and outlive a kill: one write with O_APPEND."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)


def _begin(call: str) -> None:
    append(_RUNS, f"{call} {os.environ['EASYREMOTE_NODE_ID']} {os.getpid()} {time.time_ns() // 1_000_000}\n")


def _result(call: str, value: int) -> dict[str, Any]:
    # No other run says the same: a caller who is told of two runs of one call can see it.
    return {"call": call, "value": 2 * value, "run": uuid.uuid4().hex}


@easyremote.function
def note(call: str, value: int) -> dict[str, Any]:
    """Be done at once."""
    _begin(call)
    return _result(call, value)


@easyremote.function
def slow(call: str, value: int, busy_ms: int) -> dict[str, Any]:
    """Take a while, on a thread."""
    _begin(call)
    time.sleep(busy_ms / 1000)
    return _result(call, value)


@easyremote.function
async def later(call: str, value: int, wait_ms: int) -> dict[str, Any]:
    """Take a while, on the event loop."""
    _begin(call)
    await asyncio.sleep(wait_ms / 1000)
    return _result(call, value)


@easyremote.function
def fails(call: str) -> None:
    """Raise what nobody called retriable."""
    _begin(call)
    raise ValueError(f"{call} is to fail")


@easyremote.function(retry_on=(ConnectionError,))
def flaky(call: str, value: int, failures: int) -> dict[str, Any]:
    """Fail so many times in a way that another try may mend, by what the processes have tried so far."""
    _begin(call)
    tries = _TRIES / call
    append(tries, ".")
    if tries.stat().st_size <= failures:
        raise ConnectionError(f"try {tries.stat().st_size} of {call}")
    return _result(call, value)


@easyremote.function
def weighs(call: str, value: int, text: str, returned: bool) -> dict[str, Any]:
    """Say what a large text is, and give it back if that is wanted."""
    _begin(call)
    told = _result(call, value) | {"sha256": hashlib.sha256(text.encode()).hexdigest()}
    return told | ({"text": text} if returned else {})


@easyremote.function
def counts(call: str, value: int, items: int, pause_ms: int) -> Iterator[dict[str, Any]]:
    """Yield items, on a thread: the same ones in each run."""
    _begin(call)
    for number in range(items):
        time.sleep(pause_ms / 1000)
        yield {"call": call, "item": number, "value": value * number}


@easyremote.function
async def ticks(call: str, value: int, items: int, pause_ms: int) -> AsyncIterator[dict[str, Any]]:
    """Yield items, on the event loop: the same ones in each run."""
    _begin(call)
    for number in range(items):
        await asyncio.sleep(pause_ms / 1000)
        yield {"call": call, "item": number, "value": value * number}
