"""Which calls were withdrawn: every worker that could start one follows `cancellations`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from easyremote.clock import now_ms
from easyremote.topics.catalog import CANCELLATIONS, CANCELLATIONS_KEPT_MS
from easyremote.topics.follower import follow_records
from easyremote.topics.records import Cancellation, decode_cancellation

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["CancellationWatch", "Cancelled"]

_MAX_IDS = 100_000


class Cancelled:
    """The ids of calls that were withdrawn, the newest ones, bounded by number and age. Pure.

    A cancellation may come before its call does: another partition, a node that starts later, a delay topic.

    Parameters
    ----------
    max_ids : int
        Most ids kept.
    max_age_ms : float
        Age from which on one counts no more, ms.

    Examples
    --------
    >>> cancelled = Cancelled(max_ids=1, max_age_ms=1_000)
    >>> cancelled.add("a", 0); cancelled.add("b", 10)
    >>> cancelled.holds("a", 20), cancelled.holds("b", 20), cancelled.holds("b", 1_010)
    (False, True, False)
    """

    def __init__(self, max_ids: int = _MAX_IDS, max_age_ms: float = CANCELLATIONS_KEPT_MS) -> None:
        self._max_ids = max_ids
        self._max_age_ms = max_age_ms
        self.ids: OrderedDict[str, float] = OrderedDict()

    def add(self, call_id: str, at_ms: float) -> None:
        """Keep an id that was withdrawn at `at_ms`; the oldest make room."""
        self.ids[call_id] = at_ms
        self.ids.move_to_end(call_id)
        while len(self.ids) > self._max_ids or next(iter(self.ids.values())) <= at_ms - self._max_age_ms:
            self.ids.popitem(last=False)

    def holds(self, call_id: str, at_ms: float) -> bool:
        """Say whether the id was withdrawn before `at_ms`, as far as that is still kept."""
        added_ms = self.ids.get(call_id)
        return added_ms is not None and at_ms - added_ms < self._max_age_ms


class CancellationWatch:
    """Follows `cancellations` from its beginning, which is an hour ago.

    Parameters
    ----------
    settings : Settings
        Where the broker is.

    Raises
    ------
    BrokerUnavailable
        If no broker answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._cancelled = Cancelled()
        self._listeners: list[Callable[[str], None]] = []
        self._ids = self._cancelled.ids
        self._follower = follow_records(settings, CANCELLATIONS, decode_cancellation, self._take)

    def __contains__(self, call_id: object) -> bool:
        # Nearly always nothing is withdrawn, and then asking costs a call next to nothing.
        return bool(self._ids) and self._cancelled.holds(str(call_id), now_ms())

    def listen(self, told: Callable[[str], None]) -> None:
        """Tell `told` each id from now on, on the follower's thread."""
        self._listeners.append(told)

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until all that stood in the topic has been read; say whether it was."""
        return self._follower.wait_caught_up(timeout_s)

    def close(self) -> None:
        """Stop following."""
        self._follower.close()

    def _take(self, _key: str, cancellation: Cancellation | None, at_ms: int) -> None:
        if cancellation is None:
            return
        self._cancelled.add(cancellation.id, at_ms)
        for told in self._listeners:
            told(cancellation.id)
