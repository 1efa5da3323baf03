"""Tells `nodes` what this worker is doing: at the interval of the settings, and at once when something changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import structlog
from mode import Service

from easyremote.agents.wake import Wake
from easyremote.clock import now_ms
from easyremote.errors import TopicError
from easyremote.inference.gpu import GpuGauge
from easyremote.tally import tally
from easyremote.topics.catalog import NODES
from easyremote.topics.records import Followed, Heartbeat, encode

if TYPE_CHECKING:
    from easyremote.inference.node import AINodeManager
    from easyremote.inference.service import NodeService
    from easyremote.settings import Settings
    from easyremote.topics.producer import RecordProducer

__all__ = ["HeartbeatService"]

log = structlog.get_logger(__name__)

_GPU_S = 2.0
"""Between two looks at the GPU, s: a driver takes up to some ms, and nobody chooses a node by these figures."""


class HeartbeatService(Service):
    """Sends this worker's heartbeats, and a tombstone when it leaves.

    Parameters
    ----------
    settings : Settings
        Node id, roles, interval.
    producer : RecordProducer
        Sends them.
    ready : callable
        Returns the roles that are up.
    gpu : GpuGauge, optional
        Tells how the GPU is; CUDA's if unset.
    """

    abstract = False

    def __init__(
        self,
        settings: Settings,
        producer: RecordProducer,
        ready: Callable[[], list[str]],
        gpu: GpuGauge | None = None,
        **kwargs: Any,  # Any: mode's own options
    ) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._producer = producer
        self._ready = ready
        self._gpu = gpu or GpuGauge()
        self._topic = settings.namespace + NODES
        self._due = Wake()
        self._node: AINodeManager | None = None
        self._service: NodeService | None = None

    def tell_about(self, node: AINodeManager, service: NodeService) -> None:
        """Put a node's load and models into the heartbeats."""
        self._node = node
        self._service = service

    def changed(self) -> None:
        """Send one at once; callable from any thread."""
        self._due.set()

    async def on_start(self) -> None:
        """Note the loop."""
        self._due.attach()

    @Service.task
    async def _beat(self) -> None:
        psutil.cpu_percent(None)  # the first call has nothing to compare with
        while not self.should_stop:
            self._producer.send(self._topic, encode(self._heartbeat()), key=self._settings.node_id, in_order=True)
            await self._due.wait(self._settings.heartbeat_ms / 1000)

    @Service.timer(_GPU_S)
    async def _look_at_gpu(self) -> None:
        if self._node is not None:
            await asyncio.to_thread(self._gpu.refresh)

    async def on_stop(self) -> None:
        """Leave: a record without a value."""
        try:
            await asyncio.wait_for(
                self._producer.deliver(self._topic, None, key=self._settings.node_id, in_order=True), 2.0
            )
        except (TimeoutError, TopicError) as error:
            log.warning("the others were not told that this node leaves; its silence will", error=str(error))

    def _heartbeat(self) -> Heartbeat:
        beat = Heartbeat(
            node_id=self._settings.node_id,
            sent_ms=now_ms(),
            roles=list(self._settings.roles),
            ready=self._ready(),
            cpu_percent=psutil.cpu_percent(None),
            memory_percent=psutil.virtual_memory().percent,
            dead_letters=tally.dead_letters,
            passed_over=tally.passed_over,
            followed={
                topic.removeprefix(self._settings.namespace): Followed(*counts)
                for topic, counts in tally.followed().items()
            },
        )
        if self._node is None or self._service is None:
            return beat
        requests = self._node.stats.requests()
        return msgspec.structs.replace(
            beat,
            node_type=self._node.node_type,
            pool=self._settings.pool_name,
            partitions=self._service.partitions,
            functions=self._node.registry.names(),
            models=self._node.model_states(),
            function_models=self._node.function_models(),
            in_flight=self._service.in_flight,
            hung=self._service.hung,
            total_requests=int(requests["total_requests"]),
            failed_requests=int(requests["failed_requests"]),
            mean_response_s=requests["average_response_time"],
            cost_ms=self._node.stats.cost_ms(),
            gpu=self._gpu.latest,
        )
