"""A shelf in memory, for kernels whose keys rest."""

from __future__ import annotations

from collections.abc import Iterable

from easyremote.windows.resting import Rested


class MemoryShelf:
    """Does what a shelf on disk does."""

    def __init__(self) -> None:
        self.rested: dict[bytes, Rested] = {}
        self.put_away = 0

    def put(self, rested: Iterable[Rested]) -> None:
        """Take keys in; none of them is there."""
        for one in rested:
            assert one.key not in self.rested
            assert one.content
            self.rested[one.key] = one
            self.put_away += 1

    def take(self, key: bytes) -> bytes | None:
        """Return a key's state, which is no more on the shelf; None if it was not."""
        one = self.rested.pop(key, None)
        return None if one is None else one.content

    def due(self, limit: int, most: int) -> list[tuple[bytes, bytes]]:
        """Return keys whose time is at or before a limit, the earliest first, which are no more on the shelf."""
        ready = sorted((one for one in self.rested.values() if one.wake <= limit), key=lambda one: (one.wake, one.key))
        for one in ready[:most]:
            del self.rested[one.key]
        return [(one.key, one.content) for one in ready[:most]]
