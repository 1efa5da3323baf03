"""Tells `functions` what a node offers, with the schemas: at its start, when it changes, and once an hour."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog
from mode import Service

from easyremote.agents.wake import Wake
from easyremote.clock import monotonic_s
from easyremote.errors import PayloadTooLarge, TopicError
from easyremote.inference.schemas import describe
from easyremote.topics.catalog import FUNCTIONS, FUNCTIONS_KEPT_MS
from easyremote.topics.records import Offer, encode

if TYPE_CHECKING:
    from easyremote.inference.node import AINodeManager
    from easyremote.settings import Settings
    from easyremote.topics.producer import RecordProducer

__all__ = ["OfferService"]

log = structlog.get_logger(__name__)

_AGAIN_S = FUNCTIONS_KEPT_MS / 1000 / 24
"""The topic forgets what is old, so a node repeats itself: 24 times in the time that it keeps, s."""
_LEAVE_S = 2.0


class OfferService(Service):
    """Keeps a node's record on `functions` true, and takes it away when the node leaves.

    Parameters
    ----------
    settings : Settings
        Node id, pool.
    node : AINodeManager
        Whose functions.
    producer : RecordProducer
        Sends the records.
    """

    abstract = False

    def __init__(self, settings: Settings, node: AINodeManager, producer: RecordProducer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._node = node
        self._producer = producer
        self._topic = settings.namespace + FUNCTIONS
        self._wake = Wake()
        self._told = b""
        self._told_s = 0.0

    def changed(self) -> None:
        """Tell the functions, if they are others than before; callable from any thread."""
        self._wake.set()

    async def on_start(self) -> None:
        """Note the loop."""
        self._wake.attach()

    @Service.task
    async def _tell(self) -> None:
        while not self.should_stop:
            offered = self._offered()
            if offered != self._told or monotonic_s() - self._told_s >= _AGAIN_S:
                await self._send(offered)
            await self._wake.wait(_AGAIN_S)

    async def on_stop(self) -> None:
        """Leave: a record without a value."""
        try:
            await asyncio.wait_for(self._deliver(None), _LEAVE_S)
        except (TimeoutError, TopicError) as error:
            log.warning("this node's functions stay on their topic; its silence will tell", error=str(error))

    def _offered(self) -> bytes:
        functions = [describe(one) for one in list(self._node.registry)]
        functions.sort(key=lambda one: one.name)
        return encode(Offer(node_id=self._settings.node_id, pool=self._settings.pool_name, functions=functions))

    async def _send(self, offered: bytes) -> None:
        try:
            await self._deliver(offered)
        except (TopicError, PayloadTooLarge) as error:
            # Calls do not need this topic, so a node serves on; the next change or hour tries again.
            log.warning("the list of this node's functions was not written", error=str(error))
        else:
            self._told, self._told_s = offered, monotonic_s()

    async def _deliver(self, value: bytes | None) -> None:
        await self._producer.deliver(self._topic, value, key=self._settings.node_id, in_order=True)
