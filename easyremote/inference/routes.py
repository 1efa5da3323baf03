"""Where the last calls were sent, so that a call sent again while it runs meets itself. Pure."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyremote.inference.strategies import Choice

__all__ = ["RecentRoutes"]


class RecentRoutes:
    """Keeps the choice that was made for each of the newest calls; the partition counts, whoever holds it later.

    Several threads may use it.

    Parameters
    ----------
    max_ids : int
        Most ids kept.

    Examples
    --------
    >>> from easyremote.inference.strategies import Choice
    >>> routes = RecentRoutes(max_ids=1)
    >>> routes.put(b"a", Choice("node", "general", 3)); routes.get(b"a").partition
    3
    >>> routes.put(b"b", Choice("node", "general", 4)); routes.get(b"a") is None
    True
    """

    def __init__(self, max_ids: int = 20_000) -> None:
        self._max_ids = max_ids
        self._lock = threading.Lock()
        self._choices: OrderedDict[bytes, Choice] = OrderedDict()

    def put(self, name: bytes, choice: Choice) -> None:
        """Keep where a call goes, by its id or by the record that it came by; the oldest makes room."""
        with self._lock:
            self._choices[name] = choice
            self._choices.move_to_end(name)
            if len(self._choices) > self._max_ids:
                self._choices.popitem(last=False)

    def get(self, name: bytes) -> Choice | None:
        """Return where a call was sent, if that is still kept."""
        return self._choices.get(name)
