"""Generators that the workers of the streaming tests serve."""

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import easyremote


@easyremote.function
def gated(gate: str, items: list[str]) -> Iterator[str]:
    """Make the first item, then wait until somebody writes into the gate, which is a FIFO."""
    yield items[0]
    Path(gate).read_text()
    yield from items[1:]


@easyremote.function
async def gated_later(gate: str, items: list[str]) -> AsyncIterator[str]:
    """Do as `gated` does, on the event loop."""
    yield items[0]
    await asyncio.to_thread(Path(gate).read_text)
    for item in items[1:]:
        yield item


@easyremote.function
def endless(stopped: str) -> Iterator[int]:
    """Make items until nobody wants them, and say so."""
    try:
        yield from itertools.count()
    finally:
        Path(stopped).write_text("stopped")


@easyremote.function
async def endless_later(stopped: str) -> AsyncIterator[int]:
    """Do as `endless` does, on the event loop."""
    try:
        for number in itertools.count():
            yield number
    finally:
        # A thread of its own: who reads it must be there before the write comes back.
        threading.Thread(target=Path(stopped).write_text, args=("stopped",)).start()


@easyremote.function
def halting(diary: str, gate: str, count: int) -> Iterator[int]:
    """Note which node runs it; make items, and halfway wait until it is killed, unless the gate is there."""
    with Path(diary).open("a") as file:
        file.write(os.environ["EASYREMOTE_NODE_ID"] + "\n")
    for number in range(count):
        if number == count // 2 and not Path(gate).exists():
            threading.Event().wait()
        yield number


@easyremote.function
def pages(sizes: list[int]) -> Iterator[str]:
    """Make texts of these sizes."""
    for size in sizes:
        yield "x" * size


@easyremote.function
async def pages_later(sizes: list[int]) -> AsyncIterator[str]:
    """Do as `pages` does, on the event loop."""
    for size in sizes:
        yield "x" * size


@easyremote.function
def breaks(count: int) -> Iterator[int]:
    """Make items, then fail."""
    yield from range(count)
    raise LookupError("no more")


@easyremote.function
def count_up(count: int) -> Iterator[int]:
    yield from range(count)
