"""Answers a call that was answered before, where its caller sent it again; and only where it did."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from easyremote.topics.marks import reply_mark

if TYPE_CHECKING:
    from easyremote.inference.jobs import Job
    from easyremote.inference.ledger import Ledger
    from easyremote.inference.results import Answer
    from easyremote.topics.records import RecordRef
    from easyremote.topics.tails import Tails

__all__ = ["Repeats"]

_MOST = 20_000


class Repeats:
    """Gives each sending of an answered call the first result, once.

    A sending that comes twice (a router or a delay topic repeated it) was sent once. The sending that was answered
    first is known from the answer; whether another one was answered already is looked up where its reply goes.

    Parameters
    ----------
    ledger : Ledger
        Knows whether a call is still this node's.
    tails : Tails
        Looks for replies.
    send : callable
        `(job, value)`: sends a reply.
    finish : callable
        `(job)`: takes a job whose reply is where it should be.
    """

    def __init__(
        self, ledger: Ledger, tails: Tails, *, send: Callable[[Job, bytes], None], finish: Callable[[Job], None]
    ) -> None:
        self._ledger = ledger
        self._tails = tails
        self._send = send
        self._finish = finish
        self._lock = threading.Lock()
        self._told: OrderedDict[bytes, None] = OrderedDict()

    def repeat(self, job: Job, answer: Answer) -> None:
        """Answer a call as it was answered before, unless this sending of it was."""
        if not self._ledger.start(job.partition, job.generation):
            return
        call, mark = job.call, reply_mark(job.call)
        if answer.is_to(call) or not self._is_first(mark):
            self._finish(job)
            return

        def told(found: Mapping[bytes, Sequence[RecordRef]], _missing: Collection[str]) -> None:
            if found:
                self._finish(job)
            else:
                self._send(job, answer.value)

        self._tails.ask([(call.address.topic, call.address.partition)], job.since_ms, [mark], told)

    def forget(self, job: Job) -> None:
        """Note that a call's reply was not sent after all: whoever gets it again sends it."""
        with self._lock:
            self._told.pop(reply_mark(job.call), None)

    def _is_first(self, mark: bytes) -> bool:
        with self._lock:
            if mark in self._told:
                return False
            self._told[mark] = None
            if len(self._told) > _MOST:
                self._told.popitem(last=False)
            return True
