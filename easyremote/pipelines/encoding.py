"""What a user's functions make, as JSON: what JSON has not is an error that names the place, never a silent null."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from easyremote.errors import WindowError

__all__ = ["encoded_as_json"]

_encode = msgspec.json.Encoder().encode


def encoded_as_json(value: Any, what: str) -> bytes:  # Any: whatever a user's function makes
    """Return a value as JSON.

    Raises
    ------
    WindowError
        If a number in it is NaN or infinite, or part of it is a set, whose order is by chance, or nothing that JSON
        has.

    Examples
    --------
    >>> encoded_as_json({"a": [1.5, None]}, "the record")
    b'{"a":[1.5,null]}'
    """
    try:
        encoded = _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WindowError(f"{what} is nothing that JSON has ({error}): use dicts, lists, texts and numbers") from error
    # The encoder writes NaN as null and a set as a list.
    found = _odd(value, what)
    if found is not None:
        raise WindowError(found)
    return encoded


def _odd(value: Any, place: str) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{place} is {value}, which JSON has not: make it finite, or None"
    if isinstance(value, set | frozenset):
        return f"{place} is a set, which has no order: make it a sorted list"
    if isinstance(value, dict):
        parts = ((f"{place}[{name!r}]", one) for name, one in value.items() if type(one) is not str)
    elif isinstance(value, list | tuple):
        parts = ((f"{place}[{number}]", one) for number, one in enumerate(value) if type(one) is not str)
    else:
        return None
    return next((found for where, one in parts if (found := _odd(one, where)) is not None), None)
