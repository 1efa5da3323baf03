"""What an argument or a result is as JSON, by one rule for both; and where in it JSON says less than Python does.

What JSON has no form for is an error that names the place: NaN and the infinities too, which are never a silent `null`.
Bytes are base64 text; to a caller who asks, a reply says where they stand.

A value may be another thread's as well, and change at any moment. So what it holds is copied before Python code looks
at it: the encoder runs none, and nothing can change under it.
"""

from __future__ import annotations

import base64
import dataclasses
import gc
import json
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
from msgspec import Raw, Struct, UnsetType

__all__ = ["Place", "bytes_places", "encode", "encode_plain", "place_name", "plain", "refuse_no_number", "with_bytes"]

Place = tuple[str | int | None, ...]
"""The way to a value from the whole: keys and indices; None at its end: each item of a list."""

_BYTES: frozenset[type] = frozenset({bytes, bytearray, memoryview})
_OTHER_LEAVES: frozenset[type] = frozenset(
    {str, int, bool, type(None), Raw, UnsetType, datetime, date, time, timedelta, Decimal, UUID}
)
_LEAVES = _BYTES | _OTHER_LEAVES | {float}
_HOLDERS: frozenset[type] = frozenset({dict, list, tuple, set, frozenset})
_KNOWN = _LEAVES | _HOLDERS
_NOT_BYTES = _LEAVES - _BYTES
_NOT_FLOAT = _LEAVES - {float}

encode_plain = msgspec.json.Encoder().encode


def encode(value: Any, name: str) -> bytes:  # Any: whatever a user gives
    """Return a value as JSON.

    Parameters
    ----------
    value : object
        Plain types, dataclasses, `msgspec.Struct`, what else msgspec knows, and NumPy's arrays and scalars.
    name : str
        What messages call it.

    Raises
    ------
    ValueError
        If it has no form in JSON; the message names the place.
    Exception
        What a class of the user's raises when it is looked at.

    Examples
    --------
    >>> encode({"scores": np.array([1.0, 2.0])}, "result")
    b'{"scores":[1.0,2.0]}'
    >>> encode({"scores": [1.0, float("nan")]}, "result")
    Traceback (most recent call last):
      ...
    ValueError: result.scores[1] is nan, and JSON has no such number: give None or a text in its place
    """
    try:
        encoded = encode_plain(value)
    except TypeError:
        value = plain(value)
        encoded = encode_plain(value)
    if b"null" in encoded:  # what has none can have no NaN either, and is not looked at
        refuse_no_number(value, name)
    return encoded


def plain(value: Any) -> Any:  # Any: whatever a user gives
    """Return a copy of a value in which NumPy's arrays and scalars are Python's."""
    if isinstance(value, np.generic | np.ndarray):
        python = value.tolist()
        return plain(python) if value.dtype == object else python
    if isinstance(value, dict):
        return {key: plain(one) for key, one in list(value.items())}
    if isinstance(value, list | tuple | set | frozenset):
        items = list(value)
        return items if _LEAVES.issuperset(map(type, items)) else [plain(one) for one in items]
    if isinstance(value, Struct) or dataclasses.is_dataclass(value):
        return msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview), enc_hook=_of_numpy)
    return value


def _of_numpy(value: Any) -> Any:  # Any: what the encoder does not know
    if isinstance(value, np.generic | np.ndarray):
        return plain(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


def refuse_no_number(value: Any, name: str) -> None:  # Any: whatever a user gives
    """Raise ValueError if NaN or an infinity is in a value that has a form in JSON otherwise."""
    if not _may_hold(value, float):
        return
    found = _first(value, _NOT_FLOAT, lambda one: type(one) is float and not math.isfinite(one))
    if found is not None:
        place, number = found
        raise ValueError(
            f"{name}{place_name(place)} is {number}, and JSON has no such number: give None or a text in its place"
        )


def place_name(place: Place) -> str:
    """Return a place as people write it.

    Examples
    --------
    >>> place_name(("scores", 3)), place_name(("two words",))
    ('.scores[3]', '["two words"]')
    """
    return "".join(
        f".{one}" if isinstance(one, str) and one.isidentifier() else f"[{json.dumps(one)}]" for one in place
    )


def bytes_places(value: Any) -> list[Place]:  # Any: whatever a user gives
    """Return where bytes stand in a value.

    Examples
    --------
    >>> bytes_places({"a": b"x", "b": [b"y", b"z"], "c": [1, b"z"]})
    [('a',), ('b', None), ('c', 1)]
    """
    found: list[Place] = []
    if _may_hold(value, bytes):
        _find_bytes(value, (), found)
    return found


def _may_hold(value: Any, what: type) -> bool:  # Any: as above
    """Say whether bytes, or floats of which one is not finite, may be in a value; False is sure.

    It goes by levels, each looked at in a few steps of C: of most results it is all that is done.
    """
    kinds = {type(value)}
    refs = [value]
    while True:
        if not kinds <= _KNOWN:
            return True  # something whose insides are known by its class alone
        if what is float:
            floats = refs if kinds == {float} else [one for one in refs if type(one) is float]
            if not math.isfinite(sum(floats)):
                return True  # or they are so large that their sum is not finite: it is looked at
        elif kinds & _BYTES:
            return True
        if not kinds & _HOLDERS:
            return False
        level = refs if kinds <= _HOLDERS else [one for one in refs if type(one) in _HOLDERS]
        refs = gc.get_referents(*level)
        kinds = set(map(type, refs))


def _find_bytes(value: Any, place: Place, found: list[Place]) -> None:  # Any: as above
    kind = type(value)
    if kind in _BYTES:
        found.append(place)
    elif kind not in _LEAVES:
        names, values = _parts(value)
        kinds = set(map(type, values))
        if kinds and names is None and kinds <= _BYTES:
            found.append((*place, None))
        elif not kinds <= _NOT_BYTES:
            for name, one in _named(names, values):
                if type(one) not in _NOT_BYTES:
                    _find_bytes(one, (*place, name), found)


def _first(value: Any, passed: frozenset[type], is_it: Callable[[Any], bool]) -> tuple[Place, Any] | None:  # Any: too
    if is_it(value):
        return (), value
    if type(value) in _LEAVES:
        return None
    names, values = _parts(value)
    kinds = set(map(type, values))
    if kinds <= passed or (kinds == {float} and all(map(math.isfinite, values))):
        return None
    for name, one in _named(names, values):
        if type(one) not in passed and (found := _first(one, passed, is_it)) is not None:
            return (name, *found[0]), found[1]
    return None


def _parts(value: Any) -> tuple[Sequence[Any] | None, Sequence[Any]]:  # Any: too
    """Return the names of what a value holds, None for a list, and what it holds; nothing for what holds nothing."""
    if isinstance(value, dict):
        pairs = list(value.items())
        return [name for name, _ in pairs], [one for _, one in pairs]
    if isinstance(value, list | tuple | set | frozenset):
        return None, list(value)
    if isinstance(value, Struct):
        held = [getattr(value, name) for name in value.__struct_fields__]
        return (None if value.__struct_config__.array_like else value.__struct_encode_fields__), held
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in dataclasses.fields(value)]
        return names, [getattr(value, name) for name in names]
    fields = getattr(type(value), "__attrs_attrs__", None)
    if fields is not None:
        names = [one.name for one in fields]
        return names, [getattr(value, name) for name in names]
    return None, ()


def _named(names: Sequence[Any] | None, values: Sequence[Any]) -> Iterator[tuple[str | int, Any]]:  # Any: too
    return zip(range(len(values)) if names is None else map(_key, names), values, strict=True)


def _key(name: Any) -> str:  # Any: whatever a dictionary has as a key
    return name if type(name) is str else str(next(iter(msgspec.json.decode(encode_plain({name: 0})))))


def with_bytes(value: Any, places: Sequence[Sequence[str | int | None]]) -> Any:  # Any: JSON
    """Return a decoded value with bytes where they stood; it is changed in place.

    Raises
    ------
    ValueError
        If there is no base64 text at one of the places.

    Examples
    --------
    >>> with_bytes({"a": "eA==", "b": ["eQ==", "eg=="]}, [["a"], ["b", None]])
    {'a': b'x', 'b': [b'y', b'z']}
    """
    for place in places:
        try:
            value = _with_bytes_at(value, place)
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"no base64 text at {place_name(tuple(place)) or 'the whole'}") from error
    return value


def _with_bytes_at(value: Any, place: Sequence[str | int | None]) -> Any:  # Any: JSON
    if not place:
        return base64.b64decode(value, validate=True)
    holder = value
    for name in place[:-1]:
        holder = holder[name]
    last = place[-1]
    for name in range(len(holder)) if last is None else (last,):
        holder[name] = base64.b64decode(holder[name], validate=True)
    return value
