"""Says once that a broker is away, and once that it is back, however many clients of this process notice it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from easyremote.clock import monotonic_s

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

__all__ = ["OUTAGES", "ClientLog", "Outages"]

log = structlog.get_logger(__name__)

_QUIET_S = 2.0
"""Without a complaint after an answer, until a broker counts as back: its clients find it one after another."""
_ECHO_S = 10.0
"""After an outage, in which what a client says is of that one yet: it is heard when that client is polled."""
_ADDRESS = re.compile(r"(?:^|[\s#/])((?:\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5})(?:/(?:bootstrap|-?\d+))?: ")


@dataclass
class _Outage:
    since_s: float
    complained_s: float
    answered_s: float | None = None


class Outages:
    """Which brokers are away; safe to use from several threads.

    Parameters
    ----------
    clock : callable
        Returns s that never go back.
    """

    def __init__(self, clock: Callable[[], float] = monotonic_s) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, _Outage] = {}
        self._ended_s: dict[str, float] = {}
        self.complaints = 0
        """How often a broker has not answered."""

    @property
    def now(self) -> list[str]:
        """Where no broker answers now."""
        return list(self._open)

    def away(self, where: str, what: str, error: str) -> None:
        """Take a complaint: a broker has not answered; the first one of an outage is logged."""
        now_s = self._clock()
        with self._lock:
            self.complaints += 1
            known = self._open.get(where)
            is_new = known is None
            if is_new and now_s - self._ended_s.get(where, -_ECHO_S) < _ECHO_S:
                return
            if known is None:
                self._open[where] = _Outage(now_s, now_s)
            else:
                known.complained_s, known.answered_s = now_s, None
        if is_new:
            log.warning("Kafka is away; waiting for it", where=where, what=what, error=error)

    def answered(self, where: str) -> None:
        """Take an answer; the end of an outage is logged when nobody has complained for a while."""
        if not self._open:
            return  # nearly always
        now_s = self._clock()
        with self._lock:
            known = self._open.get(where)
            if known is None:
                return
            if known.answered_s is None:
                known.answered_s = now_s
            if now_s - known.complained_s < _QUIET_S:
                return
            del self._open[where]
            self._ended_s[where] = now_s
        log.warning("Kafka is back", where=where, after_s=round(known.answered_s - known.since_s, 1))

    def look(self, brokers: Mapping[str, bool]) -> None:
        """Take what a client reports of its connections: addresses, and whether each is up."""
        if not self._open or not any(brokers.values()):
            return
        for where in self.now:
            # What the report does not name is a list of addresses, or another name of a broker that it does.
            if brokers.get(where, True):
                self.answered(where)


OUTAGES = Outages()
"""Of this process."""


class ClientLog:
    """What a client of Kafka says of itself: it goes to this program's log, what is about a connection once an outage.

    Parameters
    ----------
    where : str
        What the client is told of where Kafka is.
    """

    def __init__(self, where: str, outages: Outages = OUTAGES) -> None:
        self._where = where
        self._outages = outages

    def log(self, _level: int, _format: str, facility: str, _client: str, text: str) -> None:
        """Take a line as `logging.Logger.log` does; called by the client while it is polled."""
        if facility in {"FAIL", "ERROR"}:
            self._outages.away(address_in(text) or self._where, "of a client's connection", text)
        else:
            log.warning("a client of Kafka says", facility=facility, text=text)

    def error(self, error: KafkaError) -> None:
        """Take an error that belongs to no request; called by the client while it is polled."""
        text = error.str()
        # The lines about the connections themselves say the same before it.
        if error.name() not in {"_ALL_BROKERS_DOWN", "_TRANSPORT", "_RESOLVE", "_TIMED_OUT"}:
            log.warning("a client of Kafka reports an error", error=error.name(), text=text)
        elif error.name() != "_ALL_BROKERS_DOWN":
            self._outages.away(address_in(text) or self._where, "of a client's connection", text)

    @property
    def client(self) -> dict[str, Any]:  # Any: librdkafka's settings are strings, numbers, booleans and functions
        """What the client is made with besides its own settings."""
        return {"logger": self, "error_cb": self.error}


def address_in(text: str) -> str | None:
    """Return the broker that a line of the client is about, as `host:port`.

    Examples
    --------
    >>> address_in("[thrd:a:9092/bootstrap]: a:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: refused")
    'a:9092'
    >>> address_in("GroupCoordinator: 127.0.0.1:9092: Disconnected (after 30 ms in state UP)")
    '127.0.0.1:9092'
    >>> address_in("1/1 brokers are down") is None
    True
    """
    found = _ADDRESS.search(text)
    return None if found is None else found[1]
