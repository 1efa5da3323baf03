"""What calls were answered with, so that a duplicate of a call is answered from it and not executed again."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from msgspec import Struct

from easyremote.topics.wire import REPLY_PARTITION, REPLY_TOPIC, SENT_MS, headers_of, sent_header

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.topics.wire import Call

__all__ = ["Answer", "RecentResults", "answer_in"]


class Answer(Struct, frozen=True):
    """The encoded reply to a call, and which sending of the call it answers: when it was sent, where to reply.

    A caller that sends a call again is answered again, with the same reply. A call that was sent once may still come
    to a node more than once (its node, its router or a delay topic repeated it); that is the same sending, and its
    reply is already where it should be.
    """

    value: bytes
    sent: bytes
    topic: str
    partition: int | None

    @classmethod
    def to(cls, call: Call, value: bytes) -> Answer:
        """Return the answer to a call."""
        return cls(value, sent_header(call.sent_ms), call.address.topic, call.address.partition)

    def headers(self) -> list[tuple[str, bytes]]:
        """Return the headers with which it stands in `results`."""
        headers = [(SENT_MS, self.sent), (REPLY_TOPIC, self.topic.encode())]
        if self.partition is not None:
            headers.append((REPLY_PARTITION, self.partition.to_bytes(4, "big", signed=True)))
        return headers

    def is_to(self, call: Call) -> bool:
        """Say whether it has answered this sending of the call."""
        address = call.address
        return (
            self.sent == sent_header(call.sent_ms)
            and self.topic == address.topic
            and address.partition in {None, self.partition}
        )


def answer_in(message: Message, call_id: str) -> Answer | None:
    """Return the answer that a record of `replies` or `results` holds, or None if it is no node's answer to that id.

    A router's word that no node was there is no result: the call may be tried once more.
    """
    key, value, headers = message.key(), message.value(), dict(headers_of(message))
    sent = headers.get(SENT_MS)
    known = key.encode(errors="replace") if isinstance(key, str) else key
    if known != call_id.encode() or value is None or sent is None:
        return None
    topic, partition = headers.get(REPLY_TOPIC), headers.get(REPLY_PARTITION)
    if topic is None:
        return Answer(value, sent, message.topic() or "", message.partition())
    number = None if partition is None else int.from_bytes(partition[:4], "big", signed=True)
    if number is not None and number < 0:
        return None  # no node has written that
    return Answer(value, sent, topic.decode(errors="replace"), number)


class RecentResults:
    """Keeps answers by call id, the newest ones, bounded by number and by size. Pure.

    Parameters
    ----------
    max_items : int
        Most answers kept.
    max_bytes : int
        Most bytes of replies kept.

    Examples
    --------
    >>> recent = RecentResults(max_items=1)
    >>> recent.put("a", Answer(b"1", b"0", "replies", 0)); recent.put("b", Answer(b"2", b"0", "replies", 0))
    >>> recent.get("a"), recent.get("b").value
    (None, b'2')
    """

    def __init__(self, max_items: int = 5_000, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._bytes = 0
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def put(self, call_id: str, answer: Answer) -> None:
        """Keep an answer; the oldest ones make room."""
        if len(answer.value) > self._max_bytes or call_id in self._answers:
            return
        self._answers[call_id] = answer
        self._bytes += len(answer.value)
        while len(self._answers) > self._max_items or self._bytes > self._max_bytes:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= len(oldest.value)

    def get(self, call_id: str) -> Answer | None:
        """Return the answer to that call, if it is still kept."""
        return self._answers.get(call_id)
