"""The place of one model in a node: which version answers, which was before it, which is coming or has failed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from easyremote.topics.limits import shortened
from easyremote.topics.model_control import CONFIGURED
from easyremote.topics.records import ModelState

if TYPE_CHECKING:
    from easyremote.inference.models import BaseAIModel
    from easyremote.topics.model_control import Wanted

__all__ = ["Held", "Slot"]

_MOST_REASON = 1_000


@dataclass(frozen=True)
class Held:
    """A model in memory, and what it was made from."""

    source: Wanted
    model: BaseAIModel


class Slot:
    """Holds the version of a model that answers and the one before it, and what became of the last order.

    At most two versions are in memory, and a third while it is being loaded.

    Parameters
    ----------
    name : str
        The model's name.
    configured : BaseAIModel, optional
        What the settings of the node name; it answers until something else is ordered.

    Examples
    --------
    >>> slot = Slot("sentiment")
    >>> slot.begin("2")
    >>> slot.fail("ModelError: no weights")
    >>> slot.state().state, slot.state().reason
    ('failed', 'ModelError: no weights')
    """

    def __init__(self, name: str, configured: BaseAIModel | None = None) -> None:
        self.name = name
        self.current: Held | None = None if configured is None else Held(CONFIGURED, configured)
        self.previous: Held | None = None
        self.order_id: str | None = None
        """The last order that was dealt with, one way or the other."""
        self._done_id: str | None = None
        self._coming: str | None = None
        self._reason: str | None = None
        self._since: Mapping[int, int] = {}
        self._last_version = "" if configured is None else configured.version

    def find(self, source: Wanted) -> Held | None:
        """Return the version in memory that was made from `source`."""
        return next((held for held in (self.current, self.previous) if held and held.source == source), None)

    def begin(self, version: str) -> None:
        """Note that a version is being loaded."""
        self._coming, self._reason = version, None

    def swap(self, held: Held) -> None:
        """Let a version answer from now on; the one that did is kept as the previous one."""
        if self.current is not None and self.current is not held:
            self.previous = self.current
        self.current = held
        self._last_version = held.model.version
        self._coming = self._reason = None

    def answers_from(self, offsets: Mapping[int, int]) -> None:
        """Note from which offset on, by partition, the current version answers every call."""
        self._since = dict(offsets)

    def fail(self, reason: str) -> None:
        """Note why the version that was coming does not answer; whichever answered goes on."""
        self._reason = reason

    def end(self) -> None:
        """Hold nothing any more."""
        self.current = self.previous = None
        self._coming = self._reason = None
        self._since = {}

    def settle(self, order_id: str | None) -> None:
        """Note that an order is dealt with."""
        self.order_id = order_id
        if self._reason is None:
            self._done_id = order_id

    def is_settled(self, order_id: str) -> bool:
        """Say whether an order is dealt with: the last one, or the last that did not fail.

        That one holds again when the one after it failed on every node and was taken back; why is still told.
        """
        return order_id in (self.order_id, self._done_id)

    def state(self) -> ModelState:
        """Return what heartbeats tell of it."""
        current, previous = self.current, self.previous
        stats = None if current is None else current.model.get_stats()
        is_loaded = stats is not None and bool(stats["model_loaded"])
        state: Literal["ready", "loading", "failed", "unloaded"]
        if self._reason is not None:
            state = "failed"
        elif self._coming is not None or (current is not None and not is_loaded):
            state = "loading"
        else:
            state = "unloaded" if current is None else "ready"
        return ModelState(
            shortened(self.name, 255),
            shortened(self._last_version if current is None else current.model.version, 255),
            loaded=is_loaded,
            load_s=0.0 if stats is None else float(stats["load_time"] or 0.0),
            state=state,
            coming=self._coming,
            reason=None if self._reason is None else shortened(self._reason, _MOST_REASON),
            previous=None if previous is None else shortened(previous.model.version, 255),
            since=dict(self._since),
            order_id=self.order_id,
        )
