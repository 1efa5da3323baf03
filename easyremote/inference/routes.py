"""Where the last calls were sent, so that a call sent again while it runs meets itself. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyremote.inference.strategies import Choice

__all__ = ["RecentRoutes"]


class RecentRoutes:
    """Keeps the choice that was made for each of the newest calls; the partition counts, whoever holds it later.

    Parameters
    ----------
    max_ids : int
        Most ids kept.

    Examples
    --------
    >>> from easyremote.inference.strategies import Choice
    >>> routes = RecentRoutes(max_ids=1)
    >>> routes.put("a", Choice("node", "general", 3)); routes.get("a").partition
    3
    >>> routes.put("b", Choice("node", "general", 4)); routes.get("a") is None
    True
    """

    def __init__(self, max_ids: int = 20_000) -> None:
        self._max_ids = max_ids
        self._choices: OrderedDict[str, Choice] = OrderedDict()

    def put(self, call_id: str, choice: Choice) -> None:
        """Keep where a call goes; the oldest makes room."""
        self._choices[call_id] = choice
        self._choices.move_to_end(call_id)
        if len(self._choices) > self._max_ids:
            self._choices.popitem(last=False)

    def get(self, call_id: str) -> Choice | None:
        """Return where a call was sent, if that is still kept."""
        return self._choices.get(call_id)
