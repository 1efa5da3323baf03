"""An edge device: what it measures, what it makes of it on the spot, how it is doing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil

from easyremote.clock import now_ms
from easyremote.edge.analytics import edge_analytics, summary

__all__ = ["EdgeDevice"]

_CACHED = 1_000
_SIGMAS = 2


class EdgeDevice:
    """One device at one place.

    Parameters
    ----------
    device_id : str
        Its id, the key of its records.
    location : str
        Where it is.
    """

    def __init__(self, device_id: str, location: str) -> None:
        self.device_id = device_id
        self.location = location
        self._cache: deque[dict[str, Any]] = deque(maxlen=_CACHED)
        self._cached_bytes = 0

    def process_sensor_data(self, sensor_readings: Sequence[float]) -> dict[str, Any]:
        """Summarise readings and keep the summary; the cache holds the last 1,000.

        Returns
        -------
        dict
            `device_id`, `location`, `timestamp` (ISO 8601, UTC), `raw_readings`, `processed_readings` (`average`,
            `max`, `min`, population `variance`) and `anomaly_detected`: whether any reading is more than two
            standard deviations from the mean, never with fewer than two.

        Raises
        ------
        EdgeError
            If there is no reading, or one is no finite number.
        """
        processed = summary(sensor_readings)
        bound = _SIGMAS * processed["variance"] ** 0.5
        anomalous = len(sensor_readings) >= 2 and any(
            abs(one - processed["average"]) > bound for one in sensor_readings
        )
        result = {
            "device_id": self.device_id,
            "location": self.location,
            "timestamp": _iso(now_ms()),
            "raw_readings": list(sensor_readings),
            "processed_readings": processed,
            "anomaly_detected": anomalous,
        }
        self._keep(result)
        return result

    def edge_analytics(self, data_points: Sequence[float], analysis_type: str) -> dict[str, Any]:
        """Analyse points on the spot; see `easyremote.edge.analytics.edge_analytics`."""
        return edge_analytics(data_points, analysis_type)

    def get_device_metrics(self) -> dict[str, Any]:
        """Return how the device is doing, by the contract.

        `system_metrics` has `cpu_percent`, `memory_percent` and `disk_usage` in %, `network_io` in bytes since boot,
        `boot_time` and `timestamp` in ISO 8601, UTC; `cache_size_mb` is of the cached results as JSON.
        """
        network = psutil.net_io_counters()
        return {
            "device_id": self.device_id,
            "location": self.location,
            "system_metrics": {
                "cpu_percent": psutil.cpu_percent(None),
                "memory_percent": psutil.virtual_memory().percent,
                "disk_usage": psutil.disk_usage(str(Path.cwd())).percent,
                "network_io": {"bytes_sent": network.bytes_sent, "bytes_recv": network.bytes_recv},
                "boot_time": _iso(int(psutil.boot_time() * 1000)),
            },
            "cache_stats": {"cached_items": len(self._cache), "cache_size_mb": self._cached_bytes / 1e6},
            "timestamp": _iso(now_ms()),
        }

    def _keep(self, result: dict[str, Any]) -> None:
        if len(self._cache) == self._cache.maxlen:
            self._cached_bytes -= len(msgspec.json.encode(self._cache[0]))
        self._cache.append(result)
        self._cached_bytes += len(msgspec.json.encode(result))


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()
