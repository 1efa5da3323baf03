"""What is answered above a committed offset, written into the commit's metadata.

A group commits the lowest offset that is not answered. Calls above it end in any order, and whoever takes the
partition over should not do them again; so the commit says which they are: the lengths of the runs of open and of
answered offsets, in turn, from the committed one on. A few bytes for what is usual.
"""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

__all__ = ["NOTHING", "DoneSet", "Place", "decode_done", "encode_done"]

_VERSION = "1"
_MAX_CHARACTERS = 3_500
"""A broker takes 4,096 bytes (`offset.metadata.max.bytes`); runs that do not fit are left out."""
_MAX_BYTES = _MAX_CHARACTERS // 4 * 3
_LONGEST = 2**63


class Place(NamedTuple):
    """Where a group stands in a partition: the offset to commit, and the commit's metadata."""

    offset: int
    metadata: str = ""


class DoneSet:
    """Offsets that are answered, as sorted runs `[start, end)` that do not touch.

    Examples
    --------
    >>> done = DoneSet([(7, 9), (12, 13)])
    >>> [offset for offset in range(6, 14) if offset in done]
    [7, 8, 12]
    """

    def __init__(self, runs: Sequence[tuple[int, int]] = ()) -> None:
        self._starts = [start for start, _ in runs]
        self._ends = [end for _, end in runs]

    def __contains__(self, offset: int) -> bool:
        """Say whether an offset is answered."""
        at = bisect_right(self._starts, offset) - 1
        return at >= 0 and offset < self._ends[at]

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self._starts)

    @property
    def end(self) -> int:
        """The offset after the last answered one; 0 if there is none."""
        return self._ends[-1] if self._ends else 0

    def runs(self, since: int = 0) -> Iterator[tuple[int, int]]:
        """Yield the runs, without what is below `since`."""
        for start, end in zip(self._starts, self._ends, strict=True):
            if end > since:
                yield max(start, since), end


NOTHING = DoneSet()


def encode_done(base: int, runs: Iterable[tuple[int, int]]) -> str:
    """Return the metadata of a commit of `base`.

    Parameters
    ----------
    base : int
        The committed offset.
    runs : iterable of (int, int)
        Answered offsets `[start, end)` above it, rising; runs that touch are joined.

    Returns
    -------
    str
        At most 3,500 characters; empty if there are no runs. What does not fit is left out: it may be done again.

    Examples
    --------
    >>> encode_done(5, [(7, 9), (9, 10)])
    '1AgM='
    >>> list(decode_done(5, "1AgM=").runs())
    [(7, 10)]
    """
    written = bytearray()
    at = base
    for start, end in _joined(runs):
        run = _varint(start - at) + _varint(end - start)
        if len(written) + len(run) > _MAX_BYTES:
            break
        written += run
        at = end
    return _VERSION + base64.b64encode(written).decode() if written else ""


def decode_done(base: int, metadata: str | None) -> DoneSet:
    """Return the done-set of a commit of `base`; empty where the metadata is missing or somebody else's."""
    if not metadata or metadata[0] != _VERSION:
        return NOTHING
    try:
        written = base64.b64decode(metadata[1:], validate=True)
        lengths = list(_varints(written))
    except (binascii.Error, ValueError):
        return NOTHING
    if len(lengths) % 2 or 0 in lengths[1:]:
        return NOTHING
    runs = []
    at = base
    for is_open, done in zip(lengths[::2], lengths[1::2], strict=True):
        runs.append((at + is_open, at + is_open + done))
        at += is_open + done
    return DoneSet(runs)


def _joined(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    start = end = -1
    for one_start, one_end in runs:
        if one_start == end:
            end = one_end
            continue
        if end > start:
            yield start, end
        start, end = one_start, one_end
    if end > start:
        yield start, end


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _varints(written: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in written:
        number |= (byte & 0x7F) << shift
        if number >= _LONGEST:
            raise ValueError("a run longer than a log")
        if byte & 0x80:
            shift += 7
        else:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("the last run is cut off")
