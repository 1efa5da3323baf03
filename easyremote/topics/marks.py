"""By what a record is known again, so that who takes over, or is not sure, does not send it twice. Pure.

What was sent on because of a record names that record; a reply names its call and which sending of it; a dead letter
says where its record stood.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from easyremote.topics.letters import source_of
from easyremote.topics.wire import SENT_MS, SOURCE, Headers, sent_header

if TYPE_CHECKING:
    from easyremote.topics.wire import Call

__all__ = ["FINGERPRINT", "answer_key", "fingerprint_of", "mark_of", "reply_mark"]

FINGERPRINT = "easyremote_call"
"""On a reply: what it answers, by `fingerprint_of`."""
_BYTES = 8


def mark_of(key: bytes | str | None, headers: Headers) -> bytes | None:
    r"""Return by what a record is known again; None: by nothing, as an item of a stream.

    Examples
    --------
    >>> mark_of(None, [("easyremote_source", b"requests/3/17")])
    b'requests/3/17'
    >>> mark_of(b"order-1", [("easyremote_sent_ms", b"5.000")])
    b'order-1\x005.000'
    """
    given = dict(headers)
    source = source_of(given) or given.get(SOURCE)
    if source is not None:
        return source
    sent = given.get(SENT_MS)
    if key is None or sent is None:
        return None
    return (key.encode() if isinstance(key, str) else key) + b"\0" + sent


def reply_mark(call: Call) -> bytes:
    """Return by what the reply to this sending of a call is known."""
    return call.id.encode() + b"\0" + sent_header(call.sent_ms)


def answer_key(call_id: bytes, fingerprint: bytes) -> bytes:
    """Return by what the answers to one call are known, whichever sending they answer."""
    return call_id + b"\0" + fingerprint


def fingerprint_of(call: Call) -> bytes:
    """Return what two sendings have in common that are one call: function, arguments and reply topic, as a hash.

    An id alone would let anyone who knows it ask for the answer to another's call.
    """
    said = hashlib.blake2b(call.function.encode(), digest_size=_BYTES)
    said.update(b"\0%b\0" % call.address.topic.encode())
    for one in call.args:
        said.update(b"\0")
        said.update(one)
    for name in sorted(call.kwargs):
        said.update(b"\1%b\0" % name.encode())
        said.update(call.kwargs[name])
    for claim in call.claims:
        said.update(f"\2{claim.arg!r}\0{claim.sha256}".encode())
    return said.hexdigest().encode()
