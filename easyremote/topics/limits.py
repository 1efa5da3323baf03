"""What a record may be at most, and reading one so that nothing in it can raise. Pure.

Whoever can write to a topic writes what they like there. A value that is out of these bounds, nested deeper than any of
ours, or whatever else makes a decoder raise, is a reason and no exception: the reader counts it and reads on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, TypeVar

import numpy as np
from msgspec import Meta, Struct

__all__ = [
    "MAX_CORRELATION_BYTES",
    "MAX_DEPTH",
    "MAX_ID",
    "MAX_PARTITION",
    "MAX_TIME_MS",
    "CallId",
    "Count",
    "FunctionName",
    "Name",
    "TimeMs",
    "TopicName",
    "Unreadable",
    "attempt",
    "is_too_deep",
    "is_topic_name",
    "shortened",
]

T = TypeVar("T")

MAX_DEPTH = 100
"""Levels of arrays and objects in a record; what is decoded is encoded again further down, where less stack is left."""
MAX_ID = 1_024
"""Characters of a call's id; a correlation id of more bytes names its call by its hash."""
MAX_CORRELATION_BYTES = 64 * 1_024
"""It comes back in a reply, which must have room for a result too."""
MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""
MAX_PARTITION = 2**31 - 1
"""Kafka's own limit."""
_MAX_COUNT = 2**53 - 1

Name = Annotated[str, Meta(min_length=1, max_length=255)]
CallId = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
FunctionName = Annotated[str, Meta(min_length=1, max_length=255)]
TopicName = Annotated[str, Meta(max_length=249)]
TimeMs = Annotated[int, Meta(ge=0, le=MAX_TIME_MS)]
Count = Annotated[int, Meta(ge=0, le=_MAX_COUNT)]

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class Unreadable(Struct, frozen=True):
    """What a record is that cannot be decoded: the reason."""

    error: Exception


def attempt(decode: Callable[[bytes], T], value: bytes | None) -> T | Unreadable:
    """Return what a record holds, or why it holds nothing; only `MemoryError` is raised.

    Examples
    --------
    >>> attempt(int, b"7"), str(attempt(int, b"seven").error)
    (7, "invalid literal for int() with base 10: b'seven'")
    """
    try:
        return decode(value or b"")
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a decoder says of what somebody sent is the reason
        return Unreadable(error)


def is_too_deep(value: bytes) -> bool:
    """Say whether JSON is nested deeper than `MAX_DEPTH`; that it is no JSON is for others to say.

    Examples
    --------
    >>> is_too_deep(b"[" * 100 + b"]" * 100), is_too_deep(b"[" * 101), is_too_deep(b'["' + b"[" * 101 + b'"]')
    (False, True, False)
    """
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False  # nearly every record: two searches, some tens of ns
    marks = np.frombuffer(_TEXT.sub(b"", value), np.uint8)
    steps = np.zeros(256, np.int32)
    steps[[ord("["), ord("{")]], steps[[ord("]"), ord("}")]] = 1, -1
    return bool(len(marks)) and int(np.cumsum(steps[marks]).max()) > MAX_DEPTH


def is_topic_name(name: str) -> bool:
    r"""Say whether a topic can be called so.

    Examples
    --------
    >>> is_topic_name("my.replies"), is_topic_name("a\0b"), is_topic_name("..")
    (True, False, False)
    """
    return _TOPIC_NAME.fullmatch(name) is not None and name not in {".", ".."}


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters, and say so where some are left out.

    Examples
    --------
    >>> shortened("abcdefgh", 6)
    'abc...'
    """
    return text if len(text) <= most else text[: most - 3] + "..."
