"""What calls were answered with, so that a duplicate of a call is answered from it and not executed again."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from msgspec import Struct

from easyremote.topics.marks import FINGERPRINT, answer_key
from easyremote.topics.wire import SENT_MS, given_headers, headers_of, sent_header

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.topics.wire import Call

__all__ = ["Answer", "RecentResults", "answer_headers", "answer_in", "key_in"]


class Answer(Struct, frozen=True):
    """The encoded reply to a call, and which sending of the call it answers.

    A caller that sends a call again is answered again, with the same reply. A call that was sent once may still come
    to a node more than once (its node, its router or a delay topic repeated it); that is the same sending, and its
    reply is already where it should be.
    """

    value: bytes
    sent: bytes

    @classmethod
    def to(cls, call: Call, value: bytes) -> Answer:
        """Return the answer to a call."""
        return cls(value, sent_header(call.sent_ms))

    def is_to(self, call: Call) -> bool:
        """Say whether it has answered this sending of the call."""
        return self.sent == sent_header(call.sent_ms)


def answer_headers(call: Call, fingerprint: bytes) -> list[tuple[str, bytes]]:
    """Return the headers by which nodes know what a reply answers: which call, and which sending of it."""
    return [(SENT_MS, sent_header(call.sent_ms)), (FINGERPRINT, fingerprint)]


def answer_in(message: Message, key: bytes) -> Answer | None:
    """Return the answer that a record of `replies` or `results` holds, or None if it is no node's answer to that call.

    A router's word that no node was there is no result: the call may be tried once more.
    """
    value, sent = message.value(), dict(headers_of(message)).get(SENT_MS)  # where they are no text: without one
    if value is None or sent is None or key_in(message) != key:
        return None
    return Answer(value, sent)


def key_in(message: Message) -> bytes | None:
    """Return the `answer_key` of a record, or None if it is no node's answer.

    Raises
    ------
    UnicodeDecodeError, SystemError
        If a header's name is no text: whoever may write there may write anything.
    """
    key, given = message.key(), given_headers(message)
    if isinstance(key, bytes) and isinstance(given, list):
        for name, content in given:
            if name == FINGERPRINT and isinstance(content, bytes):
                return answer_key(key, content)
    return None


class RecentResults:
    """Keeps answers by the keys of their calls, the newest ones, bounded by number and by size. Pure.

    Parameters
    ----------
    max_items : int
        Most answers kept.
    max_bytes : int
        Most bytes of replies kept.

    Examples
    --------
    >>> recent = RecentResults(max_items=1)
    >>> recent.put(b"a", Answer(b"1", b"0")); recent.put(b"b", Answer(b"2", b"0"))
    >>> recent.get(b"a"), recent.get(b"b").value
    (None, b'2')
    """

    def __init__(self, max_items: int = 5_000, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._bytes = 0
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer; the oldest ones make room."""
        if len(answer.value) > self._max_bytes or key in self._answers:
            return
        self._answers[key] = answer
        self._bytes += len(answer.value)
        while len(self._answers) > self._max_items or self._bytes > self._max_bytes:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= len(oldest.value)

    def get(self, key: bytes) -> Answer | None:
        """Return the answer to that call, if it is still kept."""
        return self._answers.get(key)
