"""Calls of every kind, by a plain producer; what became of them is looked for in the topics afterwards."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chaos.plan import OWN_TOPICS, SHARED, Plan
from chaos.producing import flush, producer
from chaos.system import now_ms

SENDING = "chaos_sending"
"""Header of a sending: its number."""
PASSED, TIGHT, EXHAUSTED = "passed", "tight", "exhausted"
MALFORMED, UNKNOWN, UNHEARD = "malformed", "unknown", "unheard"
_KINDS = {
    "note": 46,
    "later": 12,
    "slow": 8,
    "which": 8,
    "fails": 5,
    "flaky": 5,
    TIGHT: 4,
    PASSED: 3,
    MALFORMED: 3,
    UNKNOWN: 3,
    UNHEARD: 1,
    EXHAUSTED: 1,
}
"""Shares of the kinds of calls. `tight` and `passed` have deadlines that may and must pass; `unheard` is malformed and
says not where its reply goes; `exhausted` fails at every try."""
_DUPLICATED = 0.06
_REPEATED_S = 6.0


@dataclass(frozen=True)
class Call:
    """What is asked under one id."""

    id: str
    kind: str
    topic: str
    """Where its replies go."""
    value: bytes
    headers: list[tuple[str, bytes]]
    number: int
    failures: int = 0
    """How often it fails before it does not."""


@dataclass
class Sending:
    """One record of a call."""

    call: Call
    number: int
    sent_ms: int
    error: str | None = None


def _body(kind: str, call_id: str, number: int, chance: random.Random) -> tuple[dict[str, Any], int]:
    """Return a request's body, and how often the function fails at first."""
    if kind in {"note", PASSED, UNKNOWN}:
        function = "nobody_has_this" if kind == UNKNOWN else "note"
        body: dict[str, Any] = {"function": function, "args": [call_id, number]}
        if kind == PASSED:
            body["deadline_ms"] = now_ms() - chance.randrange(1, 5_000)
        return body, 0
    if kind in {"later", "slow"}:
        busy_ms = chance.choice([5, 50, 200, 1_500]) if kind == "later" else chance.choice([5, 20, 100, 600])
        return {"function": kind, "args": [call_id, number, busy_ms]}, 0
    if kind == TIGHT:
        body = {"function": "later", "kwargs": {"call": call_id, "value": number, "wait_ms": 20}}
        return body | {"timeout_s": chance.choice([0.05, 0.3, 1.5])}, 0
    if kind in {"flaky", EXHAUSTED}:
        failures = 99 if kind == EXHAUSTED else chance.choices([1, 2], [9, 1])[0]
        body = {"function": "flaky", "kwargs": {"call": call_id, "value": number, "failures": failures}}
        return body | ({"timeout_s": 4.0} if kind == EXHAUSTED else {}), failures
    return {"function": kind, "args": [call_id]}, 0


def make(number: int, chance: random.Random) -> Call:
    """Return a call of a kind and with a way for its reply that are left to chance."""
    (kind,) = chance.choices(list(_KINDS), list(_KINDS.values()))
    call_id = f"{number}-{uuid.UUID(int=chance.getrandbits(128)).hex}"
    topic = chance.choice([SHARED, *OWN_TOPICS])
    if kind in {MALFORMED, UNHEARD}:
        value = chance.choice([b"", b"no json", b'{"function": "note"', b'{"args": [1]}', b"[]", b'{"function": 7}'])
        headers = [] if kind == UNHEARD else _by_header(call_id, topic)
        return Call(call_id, kind, topic, value, headers, number)
    body, failures = _body(kind, call_id, number, chance)
    if chance.random() < 0.5:
        return Call(call_id, kind, topic, json.dumps(body).encode(), _by_header(call_id, topic), number, failures)
    body |= {"id": call_id} | ({} if topic == SHARED else {"reply_to": topic})
    return Call(call_id, kind, topic, json.dumps(body).encode(), [], number, failures)


def _by_header(call_id: str, topic: str) -> list[tuple[str, bytes]]:
    return [("kafka_correlationId", call_id.encode()), ("kafka_replyTopic", topic.encode())]


class CallLoad:
    """Sends calls at an even rate on a thread, and some of them again under their ids.

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
        self._chance = random.Random(plan.seed + 1)
        self._again: list[tuple[float, Call]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="calls", daemon=True)
        self.sendings: list[Sending] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is still to be sent again, no more, and wait until the broker has all."""
        self._stopping.set()
        self._thread.join()
        for _, call in self._again:
            self._send(call)
        flush(self._producer)

    def _run(self) -> None:
        began = time.monotonic()
        number = 0
        while not self._stopping.is_set():
            due = int((time.monotonic() - began) * self._plan.calls_per_s)
            while number < due:
                call = make(number, self._chance)
                self._send(call)
                if call.kind in {"note", "later", "slow", "which"} and self._chance.random() < _DUPLICATED:
                    for _ in range(self._chance.choice([1, 1, 2])):
                        self._again.append((time.monotonic() + self._chance.random() * _REPEATED_S, call))
                number += 1
            self._send_again()
            self._producer.poll(0)
            self._stopping.wait(0.02)

    def _send_again(self) -> None:
        at_s = time.monotonic()
        due = [one for one in self._again if one[0] <= at_s]
        self._again = [one for one in self._again if one[0] > at_s]
        for _, call in due:
            self._send(call)

    def _send(self, call: Call) -> None:
        sending = Sending(call, len(self.sendings), now_ms())
        self.sendings.append(sending)
        headers: list[tuple[str, str | bytes | None]] = [*call.headers, (SENDING, str(sending.number).encode())]
        self._producer.produce("requests", call.value, key=call.id, headers=headers, on_delivery=_taken(sending))


def _taken(sending: Sending) -> Callable[[Any, Any], None]:
    def tell(error: Any, _message: Any) -> None:
        sending.error = None if error is None else str(error)

    return tell
