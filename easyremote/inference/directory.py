"""Which functions can be called, and how: the offers on `functions` of the nodes that are alive."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from easyremote.inference.nodes import NodeWatch
from easyremote.topics.catalog import FUNCTIONS
from easyremote.topics.follower import follow_records
from easyremote.topics.records import FunctionInfo, Offer, decode_offer

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["Listed", "OfferWatch", "list_functions", "listed"]

_CAUGHT_UP_S = 10.0


@dataclass(frozen=True)
class Listed:
    """A function, and the nodes that offer it just so."""

    function: FunctionInfo
    nodes: tuple[str, ...]
    pools: tuple[str, ...]


def listed(offers: Sequence[Offer]) -> list[Listed]:
    """Return what is offered, by name; a function that two nodes offer differently stands there twice."""
    found: dict[bytes, tuple[FunctionInfo, list[Offer]]] = {}
    for offer in offers:
        for function in offer.functions:
            same = found.setdefault(msgspec.json.encode(function), (function, []))
            same[1].append(offer)
    entries = [
        Listed(function, tuple(sorted(one.node_id for one in by)), tuple(sorted({one.pool for one in by})))
        for function, by in found.values()
    ]
    return sorted(entries, key=lambda one: (one.function.name, one.nodes))


class OfferWatch:
    """Follows `functions`; safe to use from several threads.

    Parameters
    ----------
    settings : Settings
        Where.

    Raises
    ------
    BrokerUnavailable
        If no broker answers.
    TopicError
        If there is no such topic: no worker has ever run here.
    """

    def __init__(self, settings: Settings) -> None:
        self._lock = threading.Lock()
        self._offers: dict[str, Offer] = {}
        self._follower = follow_records(settings, FUNCTIONS, decode_offer, self._take)

    def wait_caught_up(self, timeout_s: float) -> bool:
        """Wait until every offer that stood in the topic has been read; say whether it was."""
        return self._follower.wait_caught_up(timeout_s)

    def offers(self) -> list[Offer]:
        """Return the last offer of each node, by its id; one that was killed is among them."""
        with self._lock:
            return [offer for _, offer in sorted(self._offers.items())]

    def close(self) -> None:
        """Stop following."""
        self._follower.close()

    def _take(self, node_id: str, offer: Offer | None, _at_ms: int) -> None:
        with self._lock:
            if offer is None:
                self._offers.pop(node_id, None)
            else:
                self._offers[node_id] = offer


def list_functions(settings: Settings) -> list[Listed]:
    """Return the functions of the nodes that are alive now.

    Raises
    ------
    BrokerUnavailable
        If no broker answers.
    TopicError
        If no worker has ever run here.
    """
    offers = OfferWatch(settings)
    try:
        nodes = NodeWatch(settings)
        try:
            offers.wait_caught_up(_CAUGHT_UP_S)
            nodes.wait_caught_up(_CAUGHT_UP_S)
            alive = {beat.node_id for beat in nodes.live()}
        finally:
            nodes.close()
        return listed([offer for offer in offers.offers() if offer.node_id in alive])
    finally:
        offers.close()
