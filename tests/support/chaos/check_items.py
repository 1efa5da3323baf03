"""Accounts for the items of streams: whoever reads as docs/protocol.md says has all of them at the end, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chaos.calls import STREAMED, Call
from chaos.verdict import Verdict

MISSING, WRONG, DOUBLE, UNASKED = (
    "items missing at a stream's end",
    "items wrong",
    "items double in one run",
    "items that nobody asked for",
)


@dataclass(frozen=True)
class Item:
    """One record of a stream, or its final reply."""

    seq: int | None
    final: bool
    status: str
    result: Any
    trace: bytes | None = None


def judge(verdict: Verdict, call: Call, told: Sequence[Item], runs: int) -> None:
    """Look at what one call's streams have told, in the order of its partition.

    Parameters
    ----------
    verdict : Verdict
        Takes what is found.
    call : Call
        What was asked.
    told : sequence of Item
        Items and final replies of all its sendings.
    runs : int
        How often its generator was begun: a run that is not the first tells the same items again.
    """
    for name in (MISSING, WRONG, DOUBLE, UNASKED):
        verdict.find(name, [])
    if call.kind != STREAMED:
        verdict.find(UNASKED, [f"{call.kind} {call.id}: {one}" for one in told])
        return
    where = f"{call.id} to {call.topic}, {call.items} items, {runs} runs, {[_brief(one) for one in told]!s:.600}"
    taken = 0
    for one in told:
        if one.trace != call.trace:
            verdict.find("traceparent not brought back", [f"item {one.seq} of {where}: {one.trace!r}"])
        if one.final:
            if one.status == "ok" and not (one.seq == taken == call.items):
                verdict.find(MISSING, [f"{taken} taken of {where}"])
        elif one.seq == taken:
            if one.result != {"call": call.id, "item": taken, "value": call.number * taken}:
                verdict.find(WRONG, [f"{one.result!r:.200} of {where}"])
            taken += 1
    times = Counter(one.seq for one in told if not one.final)
    verdict.find(DOUBLE, [f"{seq} {count} times of {where}" for seq, count in times.items() if count > runs])


def _brief(one: Item) -> str:
    return f"end {one.status} {one.seq}" if one.final else str(one.seq)
