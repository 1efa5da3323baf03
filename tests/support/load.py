"""Callers that keep so many calls outstanding while processes come and go."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from easyremote import CallOptions, Client
from easyremote.settings import Settings
from history import History

PATIENCE_S = 90.0


class Load:
    """Calls of one function, each with an id of its own, at most `outstanding` at a time, on a thread.

    Every other call is routed, the others choose their node themselves, if `mixed`.

    Parameters
    ----------
    settings : Settings
        Where.
    history : History
        Takes what happens.
    journal : Path
        First argument of the function, which writes its calls there.
    function : str
        One of `marking`.
    rest : tuple
        Its arguments after the journal and the call's id.
    outstanding : int
        Most calls that wait at a time.
    every_s : float
        Least time between two calls, s.
    """

    def __init__(
        self,
        settings: Settings,
        history: History,
        journal: Path,
        *,
        function: str = "mark",
        rest: tuple[Any, ...] = (),
        outstanding: int = 200,
        every_s: float = 0.0,
        mixed: bool = True,
    ) -> None:
        self._history = history
        self._journal = journal
        self._function = function
        self._rest = rest
        self._every_s = every_s
        self._slots = threading.Semaphore(outstanding)
        self._stopping = threading.Event()
        self._clients = [Client(settings), *([Client(settings, direct=True)] if mixed else [])]
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self.error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send no more; wait until every caller has been told."""
        self._stopping.set()
        self._thread.join(PATIENCE_S)
        assert self.error is None, self.error
        self._history.wait_ended(len(self._history.sent), PATIENCE_S)

    def close(self) -> None:
        self._stopping.set()
        for client in self._clients:
            client.close()

    def _run(self) -> None:
        try:
            number = 0
            while not self._stopping.is_set():
                if not self._slots.acquire(timeout=0.1):
                    continue
                self._call(self._clients[number % len(self._clients)])
                number += 1
                if self._every_s:
                    self._stopping.wait(self._every_s)
        except BaseException as error:  # noqa: BLE001  # `stop` tells the test
            self.error = error

    def _call(self, client: Client) -> None:
        call_id = uuid.uuid4().hex
        self._history.invoke(call_id)
        options = CallOptions(id=call_id, timeout_s=PATIENCE_S, strategy="round_robin")
        future = client.submit(self._function, str(self._journal), call_id, *self._rest, options=options)
        self._history.watch(call_id, future)
        future.add_done_callback(lambda _: self._slots.release())


@contextmanager
def load(settings: Settings, history: History, journal: Path, **how: Any) -> Iterator[Load]:
    """Run a load until the block ends."""
    running = Load(settings, history, journal, **how)
    try:
        running.start()
        yield running
    finally:
        running.close()


def seeded() -> tuple[int, random.Random]:
    """Return a seed, which a failure prints, and its generator."""
    import os

    seed = int(os.environ.get("FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    return seed, random.Random(seed)
