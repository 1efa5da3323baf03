"""A system of several real workers, which a test kills, stops, wakes and starts one by one."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import workers
from easyremote.inference.nodes import NodeWatch
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.records import Heartbeat

UP_S = 90.0


class System:
    """Workers by their ids; the test's view of who is alive is the heartbeats, as everyone's is."""

    def __init__(self, settings: Settings, functions: str = "marking") -> None:
        self._settings = settings
        self._functions = functions
        self._beat = threading.Event()
        self._watch = NodeWatch(settings, changed=self._beat.set)
        self._ended: set[str] = set()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def launch(self, node_id: str, *roles: str, **environment: str) -> None:
        """Start a worker and go on."""
        self._ended.discard(node_id)
        self.processes[node_id] = workers.start_worker(
            self._settings,
            EASYREMOTE_ROLES=",".join(roles),
            EASYREMOTE_NODE_ID=node_id,
            **{"EASYREMOTE_FUNCTIONS": self._functions} | environment,
        )

    def start(self, node_id: str, *roles: str, **environment: str) -> None:
        """Start a worker and wait until it says that it is up."""
        self.launch(node_id, *roles, **environment)
        self.await_up(node_id)

    def await_up(self, *node_ids: str) -> None:
        """Wait until these workers have all their roles up, and those that are nodes hold partitions."""

        def is_up(beat: Heartbeat) -> bool:
            return set(beat.ready) == set(beat.roles) and (beat.pool is None or bool(beat.partitions))

        self.await_view(lambda view: all(one in view and is_up(view[one]) for one in node_ids))

    def await_view(self, enough: Callable[[dict[str, Heartbeat]], bool], timeout_s: float = UP_S) -> None:
        """Wait until the live heartbeats are so."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._beat.clear()
            view = {beat.node_id: beat for beat in self._watch.live()}
            if enough(view):
                return
            assert time.monotonic() < deadline, f"after {timeout_s:g} s the live workers are {view}"
            ended = {name for name, one in self.processes.items() if one.poll() is not None} - self._ended
            assert not ended, f"these workers ended on their own: {ended}"
            self._beat.wait(0.5)

    def view(self) -> list[Heartbeat]:
        """Return the live heartbeats."""
        return self._watch.live()

    def kill(self, node_id: str) -> float:
        """End a worker as a crash would; return when, by the monotonic clock, s."""
        self._ended.add(node_id)
        at_s = time.monotonic()
        workers.kill(self.processes[node_id])
        return at_s

    def expect_end(self, node_id: str) -> None:
        """Say that a worker is about to end on its own."""
        self._ended.add(node_id)

    def stop(self, node_id: str) -> None:
        """Ask a worker to leave."""
        self._ended.add(node_id)
        workers.stop(self.processes.pop(node_id))

    def pause(self, node_id: str) -> None:
        """Stop a worker where it stands, with SIGSTOP."""
        self.processes[node_id].send_signal(signal.SIGSTOP)

    def resume(self, node_id: str) -> None:
        """Let a paused worker go on."""
        self.processes[node_id].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End everything; a worker that still runs must leave in peace."""
        self._watch.close()
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes.values():
            if process.poll() is None:
                workers.stop(process)


@contextmanager
def system(settings: Settings, functions: str = "marking") -> Iterator[System]:
    """Prepare the topics and run a system, which has no workers yet, until the block ends."""
    TopicAdmin(settings).ensure(declarations())
    running = System(settings, functions)
    try:
        yield running
    finally:
        running.close()
