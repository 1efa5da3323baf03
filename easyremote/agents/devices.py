"""The edge role: a device reads its sensors at an interval and sends what they say to `readings`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog
from mode import Service

from easyremote.clock import now_ms
from easyremote.errors import EdgeError, TopicError
from easyremote.topics.catalog import READINGS
from easyremote.topics.records import Reading, encode

if TYPE_CHECKING:
    from easyremote.edge import EdgeDevice, Sensor
    from easyremote.settings import Settings
    from easyremote.topics.producer import RecordProducer

__all__ = ["DeviceService"]

log = structlog.get_logger(__name__)


class DeviceService(Service):
    """Sends a device's readings, each metric as a record of its own, keyed by the device.

    Parameters
    ----------
    settings : Settings
        Interval, namespace.
    device : EdgeDevice
        Whose readings they are.
    sensor : Sensor
        Where they come from.
    producer : RecordProducer
        Sends them.
    """

    abstract = False

    def __init__(
        self, settings: Settings, device: EdgeDevice, sensor: Sensor, producer: RecordProducer, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._interval_s = settings.sensor_interval_s
        self._topic = settings.namespace + READINGS
        self._device = device
        self._sensor = sensor
        self._producer = producer

    @Service.task
    async def _measure(self) -> None:
        while not self.should_stop:
            try:
                await self._send(now_ms())
            except (EdgeError, TopicError) as error:
                log.warning("a reading is missing", device=self._device.device_id, error=str(error))
            await self.sleep(self._interval_s)

    async def _send(self, time_ms: int) -> None:
        values = await asyncio.to_thread(self._sensor.read, time_ms)
        for metric, value in values.items():
            reading = Reading(device_id=self._device.device_id, metric=metric, value=value, timestamp_ms=time_ms)
            self._producer.send(self._topic, encode(reading), key=self._device.device_id, in_order=True)
