"""Which calls are one and the same: what was answered before is repeated, what is under way is waited for.

Two calls are the same if they have the same id, function, arguments and reply topic. Only then: who knows another's id
is told nothing by it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from easyremote.inference.results import Answer, RecentResults
from easyremote.topics.marks import answer_key

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
        self._same: dict[bytes, list[Job]] = {}

    def admit(self, job: Job) -> None:
        """Take a call: run it, repeat its answer, or let it wait for the end of the one that it is the same as."""
        key = job.key
        with self._lock:
            known = self._recent.get(key)
            if known is None:
                same = self._same.setdefault(key, [])
                same.append(job)
                if len(same) > 1:
                    return  # answered together with the first
        if known is not None:
            self._repeat(job, known)
            return
        place = self._answers.place_of(key)
        if place is None:
            self._run(job)
        else:
            self._answers.recall(place, key, lambda answer: self._recalled(job, answer))

    def first(self, call_id: str) -> list[Job]:
        """Return the calls of that id that are under way; sendings of one call count as one."""
        begins = answer_key(call_id.encode(), b"")
        with self._lock:
            return [same[0] for key, same in self._same.items() if same and key.startswith(begins)]

    def release(self, job: Job) -> list[Job]:
        """End a call without an answer; return those that waited for it."""
        with self._lock:
            return [one for one in self._same.pop(job.key, []) if one is not job]

    def answered(self, job: Job, value: bytes) -> None:
        """Note what a call is answered with, and repeat it to those that waited."""
        answer = Answer.to(job.call, value)
        with self._lock:
            self._recent.put(job.key, answer)
            others = [one for one in self._same.pop(job.key, []) if one is not job]
        for other in others:
            self._repeat(other, answer)

    def _recalled(self, job: Job, answer: Answer | None) -> None:
        if answer is None:
            self._run(job)
            return
        for one in [job, *self.release(job)]:
            self._repeat(one, answer)
