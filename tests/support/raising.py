"""Pipelines of a user whose functions raise, as a worker of a test runs them."""

import sys
from typing import Any

from easyremote import stream
from easyremote.windows import Count, Custom, Tumbling


def _add(state: list[int], n: int) -> list[int]:
    state.append(n)
    if n < 0:
        raise ValueError(f"{n} is below 0")
    return state


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    if record["n"] == 0:
        sys.exit("a user's function ends here")
    return record


sums = (
    stream("numbers", partitioned_by=("who",))
    .map(_checked)
    .key_by("who")
    .window(Tumbling("1s"))
    .aggregate(
        n=Custom("n", create=list, add=_add, merge=lambda one, other: one + other, result=sum),
        count=Count(),
    )
    .to("sums")
)
