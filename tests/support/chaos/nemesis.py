"""Kills, freezes, terminates and cuts off, at times and in an order that the seed alone decides."""

from __future__ import annotations

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from chaos.broker import LINKS, Broker
from chaos.plan import NODES, ROUTERS, STREAMS, Plan
from chaos.system import LINK_OF, System, now_ms

QUIET_S = 5.0
"""At the beginning and at the end nothing is done."""
BROKER = "broker"
_LINKED = {link: name for name, link in LINK_OF.items()}


@dataclass(frozen=True)
class Action:
    """One fault: `kill`, `freeze`, `terminate`, `reset` or `silence` (a link) of a process, the broker or a link."""

    kind: str
    target: str
    for_s: float = 0.0


@dataclass(frozen=True)
class Step:
    """Faults that come at once."""

    at_s: float
    actions: tuple[Action, ...]


@dataclass(frozen=True)
class Fault:
    """What was done, and when, by the wall clock, ms."""

    action: Action
    began_ms: int
    ended_ms: int

    @property
    def hits(self) -> str:
        """The process that felt it, or the broker."""
        return _LINKED.get(self.action.target, self.action.target)

    def __str__(self) -> str:
        took = f" for {(self.ended_ms - self.began_ms) / 1000:.1f} s" if self.action.for_s else ""
        return f"{self.action.kind} {self.action.target}{took}"


def schedule(plan: Plan) -> list[Step]:
    """Return what happens in a run; it depends on the seed and on nothing else."""
    chance = random.Random(plan.seed)
    steps = []
    at_s = QUIET_S
    end_s = plan.minutes * 60 - QUIET_S
    while (at_s := at_s + chance.uniform(1.0, 4.5)) < end_s:
        wanted = _faults(chance)
        actions = tuple(one for one in wanted if not {one.kind, one.target} & plan.without)
        if actions:
            steps.append(Step(at_s, actions))
    return steps


def _faults(chance: random.Random) -> list[Action]:
    kind = chance.choices(["process", "two", "link", "broker", "broker and process", "link and process"], _WEIGHTS)[0]
    first, second = chance.sample([*NODES, *ROUTERS, *STREAMS], 2)
    return {
        "process": [_to(first, chance)],
        "two": [_to(first, chance), _to(second, chance)],
        "link": [_cut(chance)],
        "broker": [_to_broker(chance)],
        "broker and process": [_to_broker(chance), _to(first, chance)],
        "link and process": [_cut(chance), _to(first, chance)],
    }[kind]


_WEIGHTS = (50, 16, 12, 6, 8, 8)


def _to(name: str, chance: random.Random) -> Action:
    kind = chance.choice(["kill", "freeze", "terminate"])
    return Action(kind, name, round(chance.uniform(0.5, 4.0), 2) if kind == "freeze" else 0.0)


def _to_broker(chance: random.Random) -> Action:
    kind = chance.choice(["kill", "kill", "freeze"])
    return Action(kind, BROKER, round(chance.uniform(0.2, 2.0), 2))


def _cut(chance: random.Random) -> Action:
    return Action(chance.choice(["reset", "silence"]), chance.choice(LINKS), round(chance.uniform(0.5, 4.0), 2))


class Nemesis:
    """Does what the schedule says, on a thread of its own, and heals what it has done.

    Parameters
    ----------
    system : System
        The processes.
    broker : Broker
        And theirs.
    steps : list of Step
        The schedule.
    """

    def __init__(self, system: System, broker: Broker, steps: list[Step]) -> None:
        self._system = system
        self._broker = broker
        self._steps = steps
        self._lock = threading.Lock()
        self._broker_lock = threading.Lock()
        self.faults: list[Fault] = []

    def run(self) -> None:
        """Do everything; return when all is healed."""
        began = time.monotonic()
        with ThreadPoolExecutor(8, "nemesis") as pool:
            done = []
            for step in self._steps:
                time.sleep(max(0.0, began + step.at_s - time.monotonic()))
                done += [pool.submit(self._do, action) for action in step.actions]
            for one in done:
                one.result()

    def _do(self, action: Action) -> None:
        began_ms = now_ms()
        if action.target in self._broker.links:
            link = self._broker.links[action.target]
            (link.cut if action.kind == "reset" else link.stall)()
            time.sleep(action.for_s)
            link.resume()
        elif action.target == BROKER:
            if not self._to_broker(action):
                return
        elif action.kind == "freeze":
            if not self._system.signal(action.target, signal.SIGSTOP):
                return
            time.sleep(action.for_s)
            self._system.signal(action.target, signal.SIGCONT)
        else:
            number = signal.SIGKILL if action.kind == "kill" else signal.SIGTERM
            if not self._system.signal(action.target, number, action.kind):
                return
        with self._lock:
            self.faults.append(Fault(action, began_ms, now_ms()))

    def _to_broker(self, action: Action) -> bool:
        # While it is still on its way back nothing more is done to it: an outage is as long as it is meant to be.
        if not self._broker_lock.acquire(blocking=False):
            return False
        try:
            if action.kind == "freeze":
                self._broker.signal(signal.SIGSTOP)
                time.sleep(action.for_s)
                self._broker.signal(signal.SIGCONT)
            else:
                self._broker.kill()
                time.sleep(action.for_s)
                self._broker.start()
        finally:
            self._broker_lock.release()
        return True
