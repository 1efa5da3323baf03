"""What a run came to: printed for people, and as JSON for whoever compares runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos.check_calls import Calls
from chaos.nemesis import Fault
from chaos.plan import Plan
from chaos.verdict import Verdict

_QUICK = {"note", "fails", "which"}


def recoveries(found: Calls, faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """Return of each fault how long after its begin the last quick call was answered that was under way then, s."""
    ways = []
    for call_id, finals in found.finals.items():
        sent = found.sent.get(call_id, [])
        if found.calls[call_id].kind in _QUICK and finals and sent:
            ways.append((sent[0].sent_ms, min(one.at_ms for one in finals)))
    told = []
    for fault in sorted(faults, key=lambda one: one.began_ms):
        last_ms = max((end for begin, end in ways if begin <= fault.began_ms < end), default=fault.began_ms)
        told.append(
            {
                "fault": str(fault),
                "at_ms": fault.began_ms,
                "until_ms": fault.ended_ms,
                "recovered_s": (last_ms - fault.began_ms) / 1000,
            }
        )
    return told


def write(directory: Path, plan: Plan, verdict: Verdict, recovered: list[dict[str, Any]]) -> Path:
    """Write the report; return where it is."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"chaos-{plan.seed}-{plan.minutes:g}min.json"
    content = {
        "seed": plan.seed,
        "minutes": plan.minutes,
        "without": sorted(plan.without),
        "problems": verdict.problems,
        "counts": verdict.counts,
        "examples": {name: told for name, told in verdict.examples.items() if told},
        "facts": verdict.facts,
        "recoveries": recovered,
    }
    file.write_text(json.dumps(content, indent=1))
    return file


def tell(plan: Plan, verdict: Verdict, recovered: list[dict[str, Any]]) -> str:
    """Return the report for people."""
    lines = [f"seed {plan.seed}, {plan.minutes:g} minutes"]
    lines += [f"  {name}: {value}" for name, value in verdict.facts.items()]
    lines += [f"  {name}: {count}" for name, count in sorted(verdict.counts.items()) if not count]
    lines.append(f"  faults: {len(recovered)}")
    slowest = sorted(recovered, key=lambda one: -one["recovered_s"])[:5]
    lines += [f"  recovered {one['recovered_s']:.1f} s after {one['fault']}" for one in slowest]
    for name, count in sorted(verdict.problems.items()):
        lines.append(f"  FOUND {name}: {count}")
        lines += [f"    {one}" for one in verdict.examples[name][:5]]
    return "\n".join(lines)
