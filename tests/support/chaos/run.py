"""One run: start, trouble under load, heal, drain, judge."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

from chaos import check_calls, check_streams, report
from chaos.broker import Broker
from chaos.calls import CallLoad
from chaos.nemesis import Nemesis, schedule
from chaos.plan import IDLE_MS, Plan
from chaos.readings import ReadingLoad
from chaos.swaps import Swaps
from chaos.system import Life, System
from chaos.topics import Quiet
from chaos.verdict import Verdict

RESULTS = Path("bench-results")
_DRAIN_S = 100.0


def run(plan: Plan, results: Path = RESULTS) -> Verdict:
    """Do a run and return what was found; its logs are kept if anything was."""
    shutil.rmtree(plan.directory, ignore_errors=True)
    broker = Broker(plan.directory / "kafka")
    verdict = Verdict()
    recovered: list[dict[str, Any]] = []
    try:
        broker.start()
        system = System(plan, broker)
        try:
            system.start()
            recovered = _trouble(plan, broker, system, verdict)
        finally:
            bad = system.close()
        verdict.find("did not leave in peace", map(_told_of, bad))
        _judge_lives(verdict, system)
    finally:
        broker.close()
    file = report.write(results, plan, verdict, recovered)
    print(report.tell(plan, verdict, recovered))
    if verdict.problems:
        print(f"logs: {plan.logs}, report: {file}\nagain: {plan.again}")
    else:
        shutil.rmtree(plan.directory)
    return verdict


def _trouble(plan: Plan, broker: Broker, system: System, verdict: Verdict) -> list[dict[str, Any]]:
    servers = broker.servers()
    calls, readings, swaps = CallLoad(plan, servers), ReadingLoad(plan, servers), Swaps(plan, servers)
    loads: list[CallLoad | ReadingLoad | Swaps] = [calls, readings, *([] if "swaps" in plan.without else [swaps])]
    nemesis = Nemesis(system, broker, schedule(plan))
    over = threading.Event()
    for load in loads:
        load.start()
    timer = threading.Timer(plan.minutes * 60, over.set)
    timer.start()
    nemesis.run()
    over.wait()
    for load in loads:
        load.stop()
    verdict.find("did not come up again", sorted(system.await_up(system.workers)))
    ended = len(system.lives())
    undrained = Quiet(servers).wait(_DRAIN_S)
    # What silence is to close is closed when it has been silent for so long.
    threading.Event().wait(IDLE_MS / 1000 + 5)
    undrained = undrained or Quiet(servers).wait(_DRAIN_S)
    verdict.find("undrained", [f"{name}: {left}" for name, left in undrained.items()])
    verdict.find("ended while nothing was done to them", ["see the logs"] * (len(system.lives()) - ended))
    if undrained:
        system.dump()
    found = check_calls.gather(servers, calls.sendings, plan.journal, plan.blobs)
    verdict.add(check_calls.judge(found, nemesis.faults, swaps.versions))
    verdict.add(check_streams.judge(servers))
    return report.recoveries(found, nemesis.faults)


def _judge_lives(verdict: Verdict, system: System) -> None:
    alone = [life for life in system.lives() if life.asked is None and life.code is not None]
    verdict.find("ended by themselves", map(_told_of, alone))
    verdict.facts["processes"] = len(system.lives())
    verdict.facts["terminated, and not left with 0"] = [
        _told_of(life) for life in system.lives() if life.asked == "terminate" and life.code != 0
    ]


def _told_of(life: Life) -> str:
    return f"{life.name}, process {life.pid}, ended with {life.code} at {life.ended_ms} (asked: {life.asked})"
