"""A generator streams: its caller has each item as soon as it is made, and may leave at any time.

EASYREMOTE_FUNCTIONS=03_streaming PYTHONPATH=examples faust -A easyremote worker
easyremote call --stream countdown 3
python examples/03_streaming.py
"""

import asyncio
from collections.abc import AsyncIterator, Iterator

import easyremote
from easyremote import AsyncClient, Client


@easyremote.function
def countdown(start: int) -> Iterator[int]:
    yield from range(start, 0, -1)


@easyremote.function(limit_s=10)  # at most so long between two items
async def words(text: str, seconds: float = 0.01) -> AsyncIterator[str]:
    for word in text.split():
        await asyncio.sleep(seconds)
        yield word


def leave_early() -> None:
    with Client() as client, client.stream("countdown", 1_000_000) as numbers:
        for number in numbers:
            print(number)
            if number <= 999_998:
                break  # leaving the block withdraws the call: its generator is closed on the node


async def read_words() -> None:
    async with AsyncClient() as client, client.stream("words", "one by one") as stream:
        async for word in stream:
            print(word)


if __name__ == "__main__":
    leave_early()
    asyncio.run(read_words())
