"""Readings of devices that go on, that fall silent and go on, that are late, wrong, or of the future."""

from __future__ import annotations

import json
import random
import threading
import time

from chaos.plan import IDLE_MS, LATENESS_MS, POISON, Plan
from chaos.producing import flush, producer
from chaos.system import now_ms

DEVICES = 36
SILENT = 8
"""More devices, which are silent most of the time."""
_TALK_S = 6.0
_SILENCE_S = IDLE_MS / 1000 + 8
_LATE_MS = 60_000
_FUTURE_MS = 3_600_000
_TICK_S = 0.05
_MALFORMED = (b"no json", b"[]", b"{}", b'{"device_id": "d1", "metric": "m", "timestamp_ms": 1}')


class ReadingLoad:
    """Sends readings at an even rate on a thread.

    Parameters
    ----------
    plan : Plan
        How many.
    servers : str
        Where.
    """

    def __init__(self, plan: Plan, servers: str) -> None:
        self._plan = plan
        self._producer = producer(servers)
        self._chance = random.Random(plan.seed + 2)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="readings", daemon=True)
        self.sent = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait until the broker has all."""
        self._stopping.set()
        self._thread.join()
        flush(self._producer)

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stopping.is_set():
            at_s = time.monotonic() - began
            due = int(at_s * self._plan.readings_per_s)
            talking = [*range(DEVICES), *(DEVICES + one for one in range(SILENT) if _talks(one, at_s))]
            while self.sent < due:
                self._send(f"d{self._chance.choice(talking)}")
                self.sent += 1
            self._producer.poll(0)
            self._stopping.wait(_TICK_S)

    def _send(self, device: str) -> None:
        chance = self._chance
        at_ms = now_ms()
        # In time for its series, whichever of the last ones came before it; quarters add up exactly in any order.
        event_ms = at_ms - chance.randrange(LATENESS_MS * 3 // 4)
        value = round(chance.gauss(80, 20) * 4) / 4
        dice = chance.random()
        if dice < 0.003:
            event_ms = at_ms - _LATE_MS
        elif dice < 0.004:
            event_ms = at_ms + _FUTURE_MS
        elif dice < 0.005:
            self._producer.produce("readings", chance.choice(_MALFORMED), key=device)
            return
        elif dice < 0.006 and "poison" not in self._plan.without:
            self._produce(device, value, event_ms)  # so that its windows have a record that is none
            value = POISON
        self._produce(device, value, event_ms)

    def _produce(self, device: str, value: float, event_ms: int) -> None:
        record = {"device_id": device, "metric": "m", "value": value, "timestamp_ms": event_ms}
        self._producer.produce("readings", json.dumps(record), key=device)


def _talks(one: int, at_s: float) -> bool:
    round_s = _TALK_S + _SILENCE_S
    return (at_s + one * round_s / SILENT) % round_s < _TALK_S
