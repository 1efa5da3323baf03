"""Calls that were under way when a process died: each is run apart from the others, and not after a second death."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from easyremote.clock import monotonic_s
from easyremote.inference.begun import BegunJournal, left_behind, mark_of
from easyremote.topics.catalog import SUSPECTS
from easyremote.topics.follower import Follower
from easyremote.topics.records import Death, decode_death, encode

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.inference.jobs import Job
    from easyremote.settings import Settings
    from easyremote.topics.producer import RecordProducer

__all__ = ["Deaths", "Suspects"]

log = structlog.get_logger(__name__)

_DEADLY = 2
_MAX_CALLS = 10_000
_PATIENCE_S = 10.0
"""A suspect that runs for longer is slow, not deadly as a rule: the next one is run beside it."""
_CAUGHT_UP_S = 10.0
_FLUSH_S = 10.0


class Deaths:
    """Counts the deaths that calls were under way at, for the newest of these calls. Pure.

    Parameters
    ----------
    max_calls : int
        Most calls kept.

    Examples
    --------
    >>> deaths = Deaths()
    >>> deaths.add(b"a", "first"); deaths.add(b"a", "second"); deaths.add(b"a", "second")
    >>> deaths.of("a"), deaths.of("b")
    (2, 0)
    """

    def __init__(self, max_calls: int = _MAX_CALLS) -> None:
        self._max_calls = max_calls
        self._seen: OrderedDict[bytes, set[str]] = OrderedDict()

    def add(self, mark: bytes, death: str) -> None:
        """Count a death, once however often it is told."""
        self._seen.setdefault(mark, set()).add(death)
        self._seen.move_to_end(mark)
        if len(self._seen) > self._max_calls:
            self._seen.popitem(last=False)

    def of(self, call_id: str) -> int:
        """Return at how many deaths a call was under way."""
        # Nearly always there is none, and then asking costs a call next to nothing.
        return len(self._seen.get(mark_of(call_id), ())) if self._seen else 0


class Suspects:
    """Notes what begins and ends here, tells what was under way at a death, and lets such calls run one at a time.

    That one at a time runs of those that saw a death makes a second death the one's own.

    Parameters
    ----------
    settings : Settings
        Broker, data directory.
    producer : RecordProducer
        Tells of deaths.
    run : callable
        `(job)`: takes a call that may run.
    refuse : callable
        `(job, deaths)`: takes one that was under way at two deaths or more.
    """

    def __init__(
        self,
        settings: Settings,
        producer: RecordProducer,
        run: Callable[[Job], None],
        refuse: Callable[[Job, int], None],
    ) -> None:
        self._settings = settings
        self._producer = producer
        self._run = run
        self._refuse = refuse
        self._lock = threading.Lock()
        self._deaths = Deaths()
        self._waiting: deque[Job] = deque()
        self._apart: tuple[Job, float] | None = None  # the suspect that runs, and since when
        self._directory = settings.data_dir / "begun" / (settings.namespace or "default")
        self._journal: BegunJournal | None = None
        self._follower: Follower | None = None

    def open(self) -> None:
        """Tell of the processes of this machine that died, and learn of all; before any call is taken.

        Raises
        ------
        BrokerUnavailable
            If no broker answers.
        """
        for path, marks in left_behind(self._directory).items():
            if self._tell(path.stem, marks):
                path.unlink(missing_ok=True)
        self._journal = BegunJournal(self._directory)
        self._follower = Follower(self._settings, self._settings.namespace + SUSPECTS, self._receive, start="beginning")
        self._follower.wait_caught_up(_CAUGHT_UP_S)

    def close(self) -> None:
        """Stop; what has not ended by now was given up in peace and is nobody's fault."""
        if self._follower is not None:
            self._follower.close()
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    def admit(self, job: Job) -> None:
        """Run a call, let it wait for the suspects before it, or refuse it."""
        deaths = self._deaths.of(job.call.id)
        if deaths >= _DEADLY:
            self._refuse(job, deaths)
            return
        if not deaths:
            self._run(job)
            return
        job.alone = True
        with self._lock:
            self._waiting.append(job)
        self._run_next()

    def begun(self, job: Job) -> None:
        """Note that a call is about to run."""
        if self._journal is not None:
            job.slot = self._journal.begin(job.call.id)

    def ended(self, job: Job) -> None:
        """Note that it has ended, or that it does not run here."""
        slot, job.slot = job.slot, None
        if slot is not None and self._journal is not None:
            self._journal.end(slot)
        apart = self._apart
        if apart is not None and apart[0] is job:
            with self._lock:
                self._apart = None
            self._run_next()

    def look(self) -> None:
        """Let the next suspect run if the one that runs is slow; to be called now and then."""
        apart = self._apart
        if apart is not None and self._waiting and monotonic_s() - apart[1] > _PATIENCE_S:
            with self._lock:
                self._apart = None
            self._run_next()

    def _run_next(self) -> None:
        with self._lock:
            if self._apart is not None or not self._waiting:
                return
            job = self._waiting.popleft()
            self._apart = (job, monotonic_s())
        if job.ended:
            self.ended(job)  # withdrawn while it waited
        else:
            self._run(job)

    def _tell(self, death: str, marks: Sequence[bytes]) -> bool:
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                refused.append(error)

        value = encode(Death(death, self._settings.node_id))
        for mark in marks:
            self._producer.send(self._settings.namespace + SUSPECTS, value, key=mark, on_delivery=delivered)
        if marks:
            log.warning("a process died with calls under way; each is run apart from the others", calls=len(marks))
        if self._producer.flush(_FLUSH_S) or refused:
            log.warning("what was under way at a death could not be told; it is tried again at the next start")
            return False
        return True

    def _receive(self, messages: Sequence[Message]) -> None:
        for message in messages:
            key = message.key()
            try:
                death = decode_death(message.value() or b"").death
            except msgspec.MsgspecError as error:
                log.warning("a record of suspects cannot be read", offset=message.offset(), error=str(error))
                continue
            if isinstance(key, bytes):
                self._deaths.add(key, death)
