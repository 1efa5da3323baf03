"""Lengths of time as people write them, as integer ms."""

from __future__ import annotations

import re
from datetime import timedelta

from easyremote.errors import WindowError

__all__ = ["Duration", "duration_ms"]

Duration = str | int | timedelta
"""`"10s"`, `"1.5 min"`, a timedelta, or an integer of ms."""

_UNITS_MS = {"ms": 1, "s": 1_000, "min": 60_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def duration_ms(given: Duration) -> int:
    """Return a length of time in ms.

    Parameters
    ----------
    given : str, int or timedelta
        A number with one of the units ms, s, m or min, h, d; or an integer of ms.

    Raises
    ------
    WindowError
        If it is none, negative, or no whole number of ms.

    Examples
    --------
    >>> duration_ms("10s"), duration_ms("1.5h"), duration_ms(250)
    (10000, 5400000, 250)
    """
    if isinstance(given, timedelta):
        found = given.total_seconds() * 1_000
    elif isinstance(given, int) and not isinstance(given, bool):
        found = given
    else:
        written = _WRITTEN.fullmatch(given) if isinstance(given, str) else None
        if written is None or written[2] not in _UNITS_MS:
            raise WindowError(
                f"{given!r} is no length of time: write a number with one of the units {', '.join(_UNITS_MS)}, "
                'such as "10s", or an integer of ms'
            )
        found = float(written[1]) * _UNITS_MS[written[2]]
    if found < 0 or round(found) != found:
        raise WindowError(f"{given!r} is {found:g} ms: a length of time is a whole number of ms and not negative")
    return int(found)
