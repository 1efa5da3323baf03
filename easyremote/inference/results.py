"""The replies of the last calls, so that a duplicate of a call is answered and not executed again."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["RecentResults"]


class RecentResults:
    """Keeps encoded replies by call id, the newest ones, bounded by number and by size. Pure.

    Parameters
    ----------
    max_items : int
        Most replies kept.
    max_bytes : int
        Most bytes of replies kept.

    Examples
    --------
    >>> recent = RecentResults(max_items=1)
    >>> recent.put("a", b"1"); recent.put("b", b"2")
    >>> recent.get("a"), recent.get("b")
    (None, b'2')
    """

    def __init__(self, max_items: int = 10_000, max_bytes: int = 32 * 1024 * 1024) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._bytes = 0
        self._replies: OrderedDict[str, bytes] = OrderedDict()

    def put(self, call_id: str, reply: bytes) -> None:
        """Keep a reply; the oldest ones make room."""
        if len(reply) > self._max_bytes or call_id in self._replies:
            return
        self._replies[call_id] = reply
        self._bytes += len(reply)
        while len(self._replies) > self._max_items or self._bytes > self._max_bytes:
            _, oldest = self._replies.popitem(last=False)
            self._bytes -= len(oldest)

    def get(self, call_id: str) -> bytes | None:
        """Return the reply of that call, if it is still kept."""
        return self._replies.get(call_id)
