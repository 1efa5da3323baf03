"""Texts that anyone may have written, as a terminal is shown them: nothing in them steers it."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec

__all__ = ["json_line", "plain"]


def plain(text: str, *, lines: bool = False) -> str:
    r"""Return a text with all that is not printable escaped as JSON does: control codes, bidi overrides, newlines.

    Parameters
    ----------
    text : str
        Whatever somebody wrote.
    lines : bool
        Leave newlines as they are.

    Examples
    --------
    >>> plain("a\x1b[2Jb\nc\u202e")
    'a\\u001b[2Jb\\nc\\u202e'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or (lines and one == "\n") else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    if character == "\x7f":  # JSON leaves it
        return "\\u007f"
    return json.dumps(character)[1:-1]


def json_line(value: bytes) -> str:
    r"""Return a record's value as one line for a terminal; JSON stays JSON that says the same.

    Examples
    --------
    >>> json_line(b'{\n  "a": "\xc2\x9b"\n}'), json_line(b"no\njson")
    ('{"a":"\\u009b"}', 'no\\njson')
    """
    text = value.decode(errors="replace")
    if not text.isprintable():
        with suppress(msgspec.MsgspecError, RecursionError, UnicodeError):  # what is no JSON is shown as what it is
            text = msgspec.json.format(text, indent=-1)
    return plain(text)
