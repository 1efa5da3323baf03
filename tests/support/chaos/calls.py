"""Calls of every kind, by a plain producer; what became of them is looked for in the topics afterwards."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chaos import large
from chaos.plan import OWN_TOPICS, SHARED, Plan
from chaos.producing import flush, producer
from chaos.system import now_ms

SENDING = "chaos_sending"
"""Header of a sending: its number."""
PASSED, TIGHT, EXHAUSTED = "passed", "tight", "exhausted"
MALFORMED, UNKNOWN, UNHEARD = "malformed", "unknown", "unheard"
STREAMED, WEIGHS = "streamed", "weighs"
_KINDS = {
    "note": 46,
    "later": 12,
    "slow": 8,
    "which": 8,
    STREAMED: 5,
    WEIGHS: 2,
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
says not where its reply goes; `exhausted` fails at every try; `streamed` has its items one by one; `weighs` has an
argument that is too large for where it travels by default."""
_SENT_AGAIN = {"note", "later", "slow", "which", STREAMED, WEIGHS}
_TRACED = 0.8
_CLAIMED = 0.8
"""Share of large arguments that go by the store; a long run keeps the others in memory."""
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
    items: int = 0
    """How many a stream has."""
    size: int = 0
    """Letters of its large argument."""

    @property
    def trace(self) -> bytes | None:
        """The trace context that each of its replies must bring back."""
        return dict(self.headers).get("traceparent")


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


def _streamed(call_id: str, number: int, chance: random.Random) -> tuple[dict[str, Any], int]:
    """Return a request for a stream, and how many items it has: more than may be on their way at once, too."""
    items, pause_ms = chance.choice([(0, 0), (1, 5), (7, 0), (10, 40), (30, 20), (150, 0)])
    body = {"function": chance.choice(["counts", "ticks"]), "args": [call_id, number, items, pause_ms], "stream": True}
    return body, items


def _weighs(call_id: str, number: int, chance: random.Random, blobs: Path) -> tuple[dict[str, Any], int]:
    """Return a request with a large argument, in the record or in the store, and how large that is."""
    size = chance.randrange(270_000, 400_000)
    returned = chance.random() < 0.5
    body: dict[str, Any] = {"function": WEIGHS, "args": [call_id, number, large.text_of(call_id, size), returned]}
    if chance.random() < _CLAIMED:
        body["claims"] = [large.put(blobs, body["args"][large.ARGUMENT])]
        body["args"][large.ARGUMENT] = None
    return body | ({"claim_result": True} if chance.random() < 0.7 else {}), size


def make(number: int, chance: random.Random, blobs: Path) -> Call:
    """Return a call of a kind and with a way for its reply that are left to chance."""
    call = _make(number, chance, blobs)
    if chance.random() >= _TRACED:
        return call
    trace = f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01"
    return replace(call, headers=[*call.headers, ("traceparent", trace.encode())])


def _make(number: int, chance: random.Random, blobs: Path) -> Call:
    (kind,) = chance.choices(list(_KINDS), list(_KINDS.values()))
    call_id = f"{number}-{uuid.UUID(int=chance.getrandbits(128)).hex}"
    topic = chance.choice([SHARED, *OWN_TOPICS])
    if kind in {MALFORMED, UNHEARD}:
        value = chance.choice([b"", b"no json", b'{"function": "note"', b'{"args": [1]}', b"[]", b'{"function": 7}'])
        headers = [] if kind == UNHEARD else _by_header(call_id, topic)
        return Call(call_id, kind, topic, value, headers, number)
    failures = items = size = 0
    if kind == STREAMED:
        body, items = _streamed(call_id, number, chance)
    elif kind == WEIGHS:
        body, size = _weighs(call_id, number, chance, blobs)
    else:
        body, failures = _body(kind, call_id, number, chance)
    headers = _by_header(call_id, topic) if chance.random() < 0.5 else []
    if not headers:
        body |= {"id": call_id} | ({} if topic == SHARED else {"reply_to": topic})
    return Call(call_id, kind, topic, json.dumps(body).encode(), headers, number, failures, items, size)


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
                call = make(number, self._chance, self._plan.blobs)
                self._send(call)
                if call.kind in _SENT_AGAIN and self._chance.random() < _DUPLICATED:
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
