"""Which calls are one and the same: what was answered before is repeated, what is under way is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from easyremote.inference.results import Answer, RecentResults

if TYPE_CHECKING:
    from easyremote.inference.answers import AnswerWatch
    from easyremote.inference.jobs import Job

__all__ = ["Duplicates"]


class Duplicates:
    """Lets each call be run once; used by several threads.

    Parameters
    ----------
    answers : AnswerWatch
        What all nodes have answered.
    run : callable
        `(job)`: takes a call that was never answered and is not under way.
    repeat : callable
        `(job, answer)`: takes a call that was answered before.
    """

    def __init__(self, answers: AnswerWatch, run: Callable[[Job], None], repeat: Callable[[Job, Answer], None]) -> None:
        self._answers = answers
        self._run = run
        self._repeat = repeat
        self._lock = threading.Lock()
        self._recent = RecentResults()
        self._same: dict[str, list[Job]] = {}

    def admit(self, job: Job) -> None:
        """Take a call: run it, repeat its answer, or let it wait for the end of the one that it is the same as."""
        call_id = job.call.id
        with self._lock:
            known = self._recent.get(call_id)
            if known is None:
                same = self._same.setdefault(call_id, [])
                same.append(job)
                if len(same) > 1:
                    return  # answered together with the first
        if known is not None:
            self._repeat(job, known)
            return
        place = self._answers.place_of(call_id)
        if place is None:
            self._run(job)
        else:
            self._answers.recall(place, call_id, lambda answer: self._recalled(job, answer))

    def first(self, call_id: str) -> Job | None:
        """Return the call of that id that is under way."""
        with self._lock:
            same = self._same.get(call_id)
            return same[0] if same else None

    def release(self, job: Job) -> list[Job]:
        """End a call without an answer; return those that waited for it."""
        with self._lock:
            return [one for one in self._same.pop(job.call.id, []) if one is not job]

    def answered(self, job: Job, value: bytes) -> None:
        """Note what a call is answered with, and repeat it to those that waited."""
        answer = Answer.to(job.call, value)
        with self._lock:
            self._recent.put(job.call.id, answer)
            others = [one for one in self._same.pop(job.call.id, []) if one is not job]
        for other in others:
            self._repeat(other, answer)

    def _recalled(self, job: Job, answer: Answer | None) -> None:
        if answer is None:
            self._run(job)
            return
        for one in [job, *self.release(job)]:
            self._repeat(one, answer)
