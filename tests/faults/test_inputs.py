"""One input harms the pass that it is in, or the whole worker; the others are answered and every call accounted for."""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from easyremote import CallOptions, Client
from easyremote.deploy.supervisor import Supervisor
from easyremote.settings import Settings
from easyremote.topics.records import Reply
from easyremote.topics.wire import headers_of
from history import History, everything, id_of, judge
from moody import FULL_BATCH, GOOD, HANGS, POISON
from system import system

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]

MOODY = {"EASYREMOTE_MODELS": "moody:MoodyModel"}
PATIENCE_S = 60.0


class Callers:
    """Sends inputs to the model, each under an id of its own."""

    def __init__(self, client: Client, history: History, journal: Path) -> None:
        self._client = client
        self._history = history
        self._journal = journal

    def send(self, mood: str) -> str:
        """Send one input; return its id."""
        call_id = uuid.uuid4().hex
        self._history.invoke(call_id)
        value = {"journal": str(self._journal), "call": call_id, "mood": mood}
        self._history.watch(call_id, self._client.submit("mood", value, options=CallOptions(timeout_s=90, id=call_id)))
        return call_id


def _reply(history: History, call_id: str) -> Reply:
    reply = history.ended[call_id][0].reply
    assert reply is not None
    return reply


def _error(history: History, call_id: str) -> tuple[str, str]:
    error = _reply(history, call_id).error
    return getattr(error, "type", ""), getattr(error, "message", "")


def test_a_poison_input_among_64_is_dead_lettered_and_the_63_others_are_answered(
    settings: Settings, tmp_path: Path
) -> None:
    history, journal, gate = History(), tmp_path / "journal", tmp_path / "gate"
    with system(settings) as running:
        running.launch("router", "router")
        running.launch("node", "inference", **MOODY)
        running.await_up("router", "node")
        with Client(settings) as client:
            callers = Callers(client, history, journal)
            callers.send(str(gate))  # the model is busy, so what comes now waits, and goes into one pass
            running.await_view(lambda view: view["node"].in_flight == 1)
            sent = [callers.send(POISON if number == 40 else GOOD) for number in range(FULL_BATCH)]
            running.await_view(lambda view: view["node"].in_flight == 1 + FULL_BATCH)
            gate.touch()
            assert history.wait_ended(1 + FULL_BATCH, PATIENCE_S)
        verdict = judge(settings, history, journal=journal)
    verdict.require(all_ok=False)
    poison = sent[40]
    assert verdict.ok == set(history.sent) - {poison}
    assert verdict.dead_lettered == {poison}
    assert _error(history, poison) == ("ValueError", "this input is poison")
    letters = [one for one in everything(settings, "requests.dlq") if id_of(one) == poison]
    assert b"this input is poison" in dict(headers_of(letters[0]))["easyremote_reason"]
    # All 64 were in one pass, which was halved until the poison was alone: 64, 32, 16, 8, 4, 2, 1.
    assert verdict.executions[poison] == 1 + math.log2(FULL_BATCH)
    sizes = [_reply(history, call_id).result["result"]["pass_size"] for call_id in sent if call_id != poison]
    assert max(sizes) == FULL_BATCH // 2


@contextmanager
def _supervised(settings: Settings, **environment: str) -> Iterator[Supervisor]:
    """Run a worker that is started again when it ends, until the block ends."""
    shared = {
        "EASYREMOTE_NAMESPACE": settings.namespace,
        "EASYREMOTE_FUNCTIONS": "",
        "EASYREMOTE_ROLES": "router,inference",
        "PYTHONPATH": str(Path(__file__).parents[1] / "support"),
    }
    with Supervisor(settings, shared | environment) as supervisor:
        supervisor.start()
        watching = threading.Thread(target=supervisor.watch, name="supervisor")
        watching.start()
        try:
            yield supervisor
        finally:
            supervisor.stop()
            watching.join(PATIENCE_S)


def test_a_model_that_hangs_past_its_limit_costs_its_callers_an_error_and_the_worker_a_restart(
    settings: Settings, tmp_path: Path
) -> None:
    history, journal = History(), tmp_path / "journal"
    restarted = threading.Event()
    limits = {"MOODY_LIMIT_S": "1", "EASYREMOTE_HUNG_LIMIT": "2"}
    with _supervised(settings, **MOODY, **limits) as supervisor, Client(settings) as client:
        supervisor.when_changed(
            lambda: restarted.set() if supervisor.worker.restarts and supervisor.worker.state == "ready" else None
        )
        callers = Callers(client, history, journal)
        # A pass that hangs takes its thread for good; two such threads are the limit.
        hanging = {callers.send(HANGS) for _ in range(2)}
        others = {callers.send(GOOD) for _ in range(20)}
        assert restarted.wait(PATIENCE_S), f"the worker is {supervisor.worker}"
        others |= {callers.send(GOOD) for _ in range(20)}
        assert history.wait_ended(len(hanging | others), PATIENCE_S)
        verdict = judge(settings, history, journal=journal)
    verdict.require(all_ok=False)
    assert verdict.ok == others
    assert verdict.errors == {"CallTimeout": len(hanging)}
