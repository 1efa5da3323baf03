"""Calls that were under way when a process died: few of them run at a time, and not the one that is to blame."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from easyremote.clock import monotonic_s
from easyremote.inference.begun import BegunJournal, left_behind
from easyremote.inference.deaths import Deaths
from easyremote.inference.quarantine import Quarantine
from easyremote.topics.catalog import SUSPECTS
from easyremote.topics.follower import Follower, follow_records
from easyremote.topics.records import Death, decode_death, encode

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.inference.jobs import Job
    from easyremote.settings import Settings
    from easyremote.topics.producer import RecordProducer

__all__ = ["Suspects"]

log = structlog.get_logger(__name__)

_CAUGHT_UP_S = 10.0
_FLUSH_S = 10.0


class Suspects:
    """Notes what begins and ends here, tells what was under way at a death, and lets few of such calls run at a time.

    So few of them are under way at a second death, and one at a third, which says whose these deaths are.

    Parameters
    ----------
    settings : Settings
        Broker, data directory.
    producer : RecordProducer
        Tells of deaths.
    run : callable
        `(job)`: takes a call that may run.
    refuse : callable
        `(job, deaths)`: takes one that so many deaths are to be laid on, two or more.
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
        self._quarantine: Quarantine[Job] = Quarantine()
        self._releasing = False
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
        self._follower = follow_records(self._settings, SUSPECTS, decode_death, self._learn)
        self._follower.wait_caught_up(_CAUGHT_UP_S)
        self._journal = BegunJournal(self._directory)

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
        if not deaths:
            self._run(job)
            return
        with self._lock:
            is_to_blame = self._deaths.is_to_blame(job.call.id)
            if not is_to_blame:
                company = self._deaths.company_of(job.call.id)
                job.alone = company == 1
                self._quarantine.put(job, company, deaths)
        if is_to_blame:
            self._refuse(job, deaths)
        else:
            self._release()

    def begun(self, job: Job) -> None:
        """Note that a call is about to run."""
        if self._journal is not None:
            job.slot = self._journal.begin(job.call.id)

    def ended(self, job: Job) -> None:
        """Note that it has ended, or that it does not run here."""
        slot, job.slot = job.slot, None
        if slot is not None and self._journal is not None:
            self._journal.end(slot)
        if self._quarantine.holds_any:
            with self._lock:
                self._quarantine.end(job)
            self._release()

    def look(self) -> None:
        """Let the next suspects run if those that run are slow; to be called now and then."""
        if self._quarantine.holds_any:
            self._release()

    def _release(self) -> None:
        # One thread at a time, and not within itself: a call may end while it is started, on this very thread.
        while True:
            with self._lock:
                if self._releasing:
                    return
                job = self._quarantine.next(monotonic_s())
                if job is None:
                    return
                self._releasing = True
            try:
                if not job.ended:
                    self._run(job)
            finally:
                with self._lock:
                    self._releasing = False
                    if job.ended:
                        self._quarantine.end(job)  # also one that was withdrawn while it waited

    def _tell(self, death: str, marks: Sequence[bytes]) -> bool:
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                refused.append(error)

        value = encode(Death(death, self._settings.node_id, calls=len(set(marks))))
        for mark in marks:
            self._producer.send(self._settings.namespace + SUSPECTS, value, key=mark, on_delivery=delivered)
        if marks:
            log.warning("a process died with calls under way; few of them are run at a time", calls=len(marks))
        if self._producer.flush(_FLUSH_S) or refused:
            log.warning("what was under way at a death could not be told; it is tried again at the next start")
            return False
        return True

    def _learn(self, mark: str, told: Death | None, _at_ms: int) -> None:
        if told is not None:
            with self._lock:
                self._deaths.add(mark.encode(), told.death, told.calls)
