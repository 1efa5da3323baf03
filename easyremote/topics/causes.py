"""What is said of an exception that a user's code raised; to look at one may raise anything, and nothing here does."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyremote.errors import DeadlineExceeded, EasyRemoteError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["clean", "is_retriable", "message_of", "name_of", "stack_of", "user_stack_of"]

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
_NAME_CHARS = 200
_MESSAGE_CHARS = 4_096
_STACK_BYTES = 8 * 1024
_FRAMES = 64
"""The innermost ones: a recursion without an end has as many as memory holds."""

# Any: what a descriptor is bound by. A user's class or metaclass cannot change these.
_class_name: Any = type.__dict__["__name__"].__get__
_traceback: Any = BaseException.__dict__["__traceback__"].__get__


def clean(text: str) -> str:
    r"""Return a text that UTF-8 can hold: a lone surrogate becomes a question mark.

    Examples
    --------
    >>> clean("a\ud800b")
    'a?b'
    """
    return str.encode(text, errors="replace").decode()


def name_of(error: BaseException) -> str:
    """Return the name of an exception's class, or of the one that it stands for.

    Examples
    --------
    >>> from easyremote.errors import RemoteError
    >>> name_of(KeyError("x")), name_of(RemoteError("x", type="OSError"))
    ('KeyError', 'OSError')
    """
    known = getattr(error, "type", None) if isinstance(error, EasyRemoteError) else None
    return clean(known if isinstance(known, str) else _class_name(type(error)))[:_NAME_CHARS]


def message_of(error: BaseException) -> str:
    """Return what an exception says, the first 4,096 characters of it.

    Examples
    --------
    >>> message_of(ValueError("no number")), message_of(ValueError())
    ('no number', 'ValueError()')
    >>> message_of(ValueError("x" * 5_000))[-36:]
    'x... (cut: it has 5,000 characters)'
    """
    try:
        text = str(error) or repr(error)
        length = len(text)
        cut = clean(text[:_MESSAGE_CHARS])
    except BaseException as again:  # noqa: BLE001  # a user's __str__ may do anything
        return f"{name_of(error)}, whose message cannot be had: asking for it raised {name_of(again)}"
    return cut if length <= _MESSAGE_CHARS else f"{cut}... (cut: it has {length:,} characters)"


def is_retriable(error: BaseException, retry_on: tuple[type[BaseException], ...] = ()) -> bool:
    """Say whether a failure may be tried again.

    Examples
    --------
    >>> is_retriable(ConnectionError()), is_retriable(ConnectionError(), (OSError,))
    (False, True)
    """
    if isinstance(error, DeadlineExceeded):
        return False  # a TimeoutError too, after which some functions may be tried again: but not after the deadline
    try:
        return getattr(error, "retriable", False) is True or isinstance(error, retry_on)
    except BaseException:  # noqa: BLE001  # a property of a user's class may do anything
        return False


def stack_of(error: BaseException) -> str:
    """Return where an exception was raised, at most 8 KiB: the end, where the innermost frames are."""
    return user_stack_of(error) or _formatted(error, _traceback(error))


def user_stack_of(error: BaseException) -> str | None:
    """Return the same without the frames of this package around the user's function; None if no other is left."""
    frames: TracebackType | None = _traceback(error)
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frames = frames.tb_next
    return None if frames is None else _formatted(error, frames)


def _formatted(error: BaseException, frames: TracebackType | None) -> str:
    try:
        text = "".join(traceback.format_exception(type(error), error, frames, limit=-_FRAMES))
    except BaseException as again:  # noqa: BLE001  # it asks the exception, its notes and its causes
        return f"{name_of(error)}: its traceback cannot be had: asking for it raised {name_of(again)}"
    return text.encode(errors="replace")[-_STACK_BYTES:].decode(errors="ignore")
