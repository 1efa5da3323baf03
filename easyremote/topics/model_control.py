"""What is ordered of models, on the compacted topic `models`: which version of each is wanted, and where."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from easyremote.topics.catalog import MODELS
from easyremote.topics.follower import follow_records
from easyremote.topics.limits import Name, TimeMs
from easyremote.topics.records import checked_decoder

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = [
    "CONFIGURED",
    "UNLOADED",
    "ModelOrder",
    "ModelSource",
    "OrderWatch",
    "Orders",
    "Scope",
    "Wanted",
    "decode_order",
]

CONFIGURED: Literal["configured"] = "configured"
"""Wanted is what a node's own settings name, which may be nothing."""
UNLOADED: Literal["unloaded"] = "unloaded"


class ModelSource(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a version of a model is made from."""

    version: Name
    path: Annotated[str, Meta(max_length=512)] | None = None
    """`module:Class`; None: the class that the node's settings name for this model."""
    weights: Annotated[str, Meta(max_length=4_096)] | None = None
    """First argument of the class."""
    params: Annotated[dict[str, Any], Meta(max_length=100)] = {}  # Any: as the class takes them
    """Its arguments by name."""


Wanted = ModelSource | Literal["configured", "unloaded"]


class Scope(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which nodes are meant: those that match everything that is set; all, if nothing is."""

    node: Annotated[str, Meta(max_length=255)] | None = None
    pool: Annotated[str, Meta(max_length=255)] | None = None
    node_type: Annotated[str, Meta(max_length=255)] | None = None

    def holds(self, node_id: str, pool: str | None, node_type: str | None) -> bool:
        """Say whether a node is meant."""
        return (
            (self.node is None or self.node == node_id)
            and (self.pool is None or self.pool == pool)
            and (self.node_type is None or self.node_type == node_type)
        )

    def covers(self, other: Scope) -> bool:
        """Say whether every node of the other scope is meant too.

        Examples
        --------
        >>> Scope().covers(Scope(pool="nlp")), Scope(pool="nlp").covers(Scope())
        (True, False)
        """
        return (
            self.node in (None, other.node)
            and self.pool in (None, other.pool)
            and self.node_type in (None, other.node_type)
        )

    def __str__(self) -> str:
        """Return it as the command line's options."""
        named = (("--node", self.node), ("--pool", self.pool), ("--type", self.node_type))
        return " ".join(f"{option} {value}" for option, value in named if value is not None) or "all nodes"


class ModelOrder(Struct, frozen=True, kw_only=True):
    """Value of a record on `models`, keyed by scope and model: the last one that means a node holds for it.

    A record without a value takes the order of its key back.
    """

    id: Name
    model: Name
    wanted: Wanted
    before: Wanted = CONFIGURED
    """What was wanted before: what a rollback goes back to."""
    scope: Scope = Scope()
    ordered_ms: TimeMs = 0

    @property
    def key(self) -> str:
        """The record's key."""
        scope = self.scope
        return f"{scope.pool or '*'}/{scope.node_type or '*'}/{scope.node or '*'}/{self.model}"


_MOST_ORDER_BYTES = 64 * 1024
_MOST_ORDERS = 1_000
decode_order = checked_decoder(ModelOrder, _MOST_ORDER_BYTES)


class Orders:
    """The orders that hold, in the order in which they were given. Pure.

    Examples
    --------
    >>> orders = Orders()
    >>> for one in (
    ...     ModelOrder(id="1", model="m", wanted="unloaded", scope=Scope(node="a")),
    ...     ModelOrder(id="2", model="m", wanted="configured"),
    ... ):
    ...     orders.add(one.key, one)
    >>> orders.meant_for("a", None, None)["m"].id
    '2'
    """

    def __init__(self) -> None:
        self._by_key: dict[str, ModelOrder] = {}

    def add(self, key: str, order: ModelOrder | None) -> None:
        """Take an order in, or what takes one back; the newest of a key holds."""
        self._by_key.pop(key, None)
        if order is not None:
            self._by_key[key] = order
            while len(self._by_key) > _MOST_ORDERS:  # of as many models and scopes; the oldest hold no longer
                del self._by_key[next(iter(self._by_key))]

    def meant_for(self, node_id: str, pool: str | None, node_type: str | None) -> dict[str, ModelOrder]:
        """Return the order that holds for each model on a node."""
        return {order.model: order for order in self._by_key.values() if order.scope.holds(node_id, pool, node_type)}

    def covering(self, model: str, scope: Scope) -> ModelOrder | None:
        """Return the newest order of a model that means every node of a scope."""
        found = [one for one in self._by_key.values() if one.model == model and one.scope.covers(scope)]
        return found[-1] if found else None

    def of(self, model: str) -> list[ModelOrder]:
        """Return the orders of a model, the newest last."""
        return [one for one in self._by_key.values() if one.model == model]


class OrderWatch:
    """Follows `models` from its beginning.

    Parameters
    ----------
    settings : Settings
        Where.
    changed : callable, optional
        Called on the follower's thread after orders came in.

    Raises
    ------
    BrokerUnavailable
        If no broker answers.
    TopicError
        If there is no such topic: no worker has ever run here.
    """

    def __init__(self, settings: Settings, changed: Callable[[], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._orders = Orders()
        self._follower = follow_records(settings, MODELS, decode_order, self._take, changed)

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until every order that stood in the topic has been read; say whether it was."""
        return self._follower.wait_caught_up(timeout_s)

    def meant_for(self, node_id: str, pool: str | None, node_type: str | None) -> dict[str, ModelOrder]:
        """Return the order that holds for each model on a node."""
        with self._lock:
            return self._orders.meant_for(node_id, pool, node_type)

    def covering(self, model: str, scope: Scope) -> ModelOrder | None:
        """Return the newest order of a model that means every node of a scope."""
        with self._lock:
            return self._orders.covering(model, scope)

    def of(self, model: str) -> list[ModelOrder]:
        """Return the orders of a model, the newest last."""
        with self._lock:
            return self._orders.of(model)

    def close(self) -> None:
        """Stop following."""
        self._follower.close()

    def _take(self, key: str, order: ModelOrder | None, _at_ms: int) -> None:
        with self._lock:
            self._orders.add(key if order is None else order.key, order)
