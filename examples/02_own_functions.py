"""Any Python function, by decorator; its arguments are checked against the type hints.

EASYREMOTE_FUNCTIONS=02_own_functions PYTHONPATH=examples faust -A easyremote worker
easyremote call mean "[1, 2, 6]"
"""

import asyncio
from dataclasses import dataclass

import easyremote


@dataclass
class Point:
    x: float
    y: float


@easyremote.function
def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


@easyremote.function
def between(first: Point, second: Point) -> Point:
    return Point((first.x + second.x) / 2, (first.y + second.y) / 2)


@easyremote.function(name="text.later")
async def later(text: str, seconds: float = 0.01) -> str:
    await asyncio.sleep(seconds)
    return text
