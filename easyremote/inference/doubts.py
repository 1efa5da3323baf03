"""Calls that the former owner of their partition may have dealt with: what became of each is looked up first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from easyremote.topics.catalog import DEAD_LETTERS, REQUESTS, RETRIES
from easyremote.topics.letters import letter_of
from easyremote.topics.marks import reply_mark
from easyremote.topics.replying import buried_reply, encode_reply
from easyremote.topics.wire import Origin

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.inference.answers import AnswerWatch
    from easyremote.inference.jobs import Job
    from easyremote.inference.ledger import Ledger
    from easyremote.settings import Settings
    from easyremote.topics.records import RecordRef
    from easyremote.topics.tails import Tails

__all__ = ["Doubts"]

log = structlog.get_logger(__name__)


class Doubts:
    """Lets through what nobody can have done, and looks for traces of the rest.

    A call in doubt stood in its partition when that was assigned, at or above what was committed. The one before may
    have answered it, sent it on to be tried again or elsewhere, or made it a dead letter, and not committed that.
    Nothing else waits meanwhile.

    Parameters
    ----------
    settings : Settings
        Namespace, node id.
    topic : str
        Full name of the topic that the calls are read from.
    ledger : Ledger
        Knows whether a call is still this node's.
    tails : Tails
        Looks for what was sent.
    answers : AnswerWatch
        Reads a record.
    run : callable
        `(job)`: takes a call of which there is no trace.
    replied : callable
        `(job, value)`: takes one whose reply stands where it should.
    moved : callable
        `(job)`: takes one that was sent on.
    send : callable
        `(job, value)`: sends a reply.
    """

    def __init__(  # noqa: PLR0913  # where it looks, and who takes what became of a call
        self,
        settings: Settings,
        topic: str,
        ledger: Ledger,
        tails: Tails,
        answers: AnswerWatch,
        *,
        run: Callable[[Job], None],
        replied: Callable[[Job, bytes | None], None],
        moved: Callable[[Job], None],
        send: Callable[[Job, bytes], None],
    ) -> None:
        self._node_id = settings.node_id
        self._topic = topic
        self._ledger = ledger
        self._tails = tails
        self._answers = answers
        self._run = run
        self._replied = replied
        self._moved = moved
        self._send = send
        self._letters = settings.namespace + DEAD_LETTERS
        self._onwards = [settings.namespace + name for name in (REQUESTS, *RETRIES.values())]

    def admit(self, job: Job) -> None:
        """Take a call."""
        if not job.in_doubt:
            self._run(job)
            return
        address = job.call.address
        source = Origin(self._topic, job.partition, job.offset, 0).source
        places = [*((topic, None) for topic in (*self._onwards, self._letters)), (address.topic, address.partition)]
        self._tails.ask(
            places, job.since_ms, [source, reply_mark(job.call)], lambda found, _missing: self._found(job, found)
        )

    def _found(self, job: Job, found: Mapping[bytes, Sequence[RecordRef]]) -> None:
        by_topic = {one.topic: one for records in found.values() for one in records}
        reply = by_topic.get(job.call.address.topic)
        letter = by_topic.get(self._letters)
        is_moved = any(topic in by_topic for topic in self._onwards)
        if reply is None and letter is None and not is_moved:
            self._run(job)
            return
        if not self._ledger.start(job.partition, job.generation):
            return
        log.info("a call was dealt with by the node before", call=job.call.id)
        if reply is not None:
            self._answers.read(reply, lambda message: self._replied(job, _value_of(message)))
        elif is_moved:
            self._moved(job)
        elif letter is not None:
            job.buried = True
            self._answers.read(letter, lambda message: self._send(job, self._reply_to(job, message)))

    def _reply_to(self, job: Job, message: Message | None) -> bytes:
        return encode_reply(buried_reply(job.call, None if message is None else letter_of(message), self._node_id))


def _value_of(message: Message | None) -> bytes | None:
    return None if message is None else message.value()
