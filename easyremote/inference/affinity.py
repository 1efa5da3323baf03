"""Which node a key belongs to: consistent hashing with bounded loads. Pure."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Ring", "bound"]

_POINTS = 96
"""Points of each node on the ring: shares differ by a tenth or so, and eight nodes are placed in a millisecond."""
_BALANCE = 1.25
"""How much more than its fair share of the calls in flight a node may have."""
_FREE = 4
"""With fewer calls in flight than this a node is never too busy for its keys."""


def bound(in_flight: Sequence[int]) -> int:
    """Return how many calls in flight a node may have at most, one that is chosen now included.

    Parameters
    ----------
    in_flight : sequence of int
        Calls in flight at each of the nodes.

    References
    ----------
    Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", SODA 2018.

    Examples
    --------
    >>> bound([0, 0, 0]), bound([40, 40, 39])
    (4, 50)
    """
    return max(_FREE, math.ceil(_BALANCE * (sum(in_flight) + 1) / len(in_flight)))


class Ring:
    """Nodes on a circle, each at many points; a key belongs to the first node after its own point.

    When a node comes or goes, only the keys between its points and the ones before them move.

    Parameters
    ----------
    node_ids : iterable of str
        The nodes; their order does not matter.

    Examples
    --------
    >>> three, two = Ring(["a", "b", "c"]), Ring(["a", "b"])
    >>> keys = [f"user-{number}" for number in range(1_000)]
    >>> homes = [next(three.walk(key)) for key in keys]
    >>> [home for home, key in zip(homes, keys) if home != "c" and next(two.walk(key)) != home]
    []
    """

    def __init__(self, node_ids: Iterable[str]) -> None:
        placed = sorted((_place(f"{number}/{node_id}"), node_id) for node_id in node_ids for number in range(_POINTS))
        self._places = [place for place, _ in placed]
        self._node_ids = [node_id for _, node_id in placed]

    def walk(self, key: str) -> Iterator[str]:
        """Yield each node once, in the order in which the key prefers them."""
        start = bisect_right(self._places, _place(key))
        seen = set()
        for step in range(len(self._node_ids)):
            node_id = self._node_ids[(start + step) % len(self._node_ids)]
            if node_id not in seen:
                seen.add(node_id)
                yield node_id


def _place(text: str) -> int:
    # The same in every process, unlike `hash`: routers and clients must agree.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
