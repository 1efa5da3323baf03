"""Hot swaps of the model while calls run, ordered by plain records."""

from __future__ import annotations

import json
import random
import threading
import uuid

from chaos.plan import Plan
from chaos.producing import flush, producer
from chaos.system import now_ms

_EVERY_S = 8.0
CONFIGURED = "configured"


class Swaps:
    """Orders another version every few seconds on a thread, and now and then what the nodes' settings name.

    Parameters
    ----------
    plan : Plan
        The seed.
    servers : str
        Where.
    """

    def __init__(self, plan: Plan, servers: str) -> None:
        self._producer = producer(servers)
        self._chance = random.Random(plan.seed + 3)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="swaps", daemon=True)
        self.versions = {CONFIGURED}

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Order no more."""
        self._stopping.set()
        self._thread.join()
        flush(self._producer)

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S * self._chance.uniform(0.5, 1.5)):
            version = CONFIGURED if self._chance.random() < 0.2 else f"v{len(self.versions)}"
            self.versions.add(version)
            wanted = version if version == CONFIGURED else {"version": version, "params": {"tag": version}}
            order = {"id": uuid.uuid4().hex, "model": "chaos", "wanted": wanted, "ordered_ms": now_ms()}
            self._producer.produce("models", json.dumps(order), key="*/*/*/chaos")
            self._producer.poll(0)
