"""Where a device's readings come from: anything with `read`, and a simulated source that needs no hardware."""

from __future__ import annotations

import math
import random
from typing import Protocol

__all__ = ["Sensor", "SimulatedSensors"]

_DAY_MS = 86_400_000


class Sensor(Protocol):
    """A source of readings; one of your own needs this method and nothing else."""

    def read(self, now_ms: int) -> dict[str, float]:
        """Return the value of each metric at a time, ms since the Unix epoch.

        Raises
        ------
        EdgeError
            If the hardware does not answer; the device says so and goes on with the next interval.
        """
        ...


class SimulatedSensors:
    """Temperature (°C), relative humidity (%) and air pressure (hPa) of a room: a daily wave with noise.

    Parameters
    ----------
    seed : int or str
        Same seed, same noise.

    Examples
    --------
    >>> sorted(SimulatedSensors(seed=1).read(0))
    ['humidity', 'pressure', 'temperature']
    """

    def __init__(self, seed: int | str) -> None:
        self._noise = random.Random(seed)  # noqa: S311  # weather, not secrets

    def read(self, now_ms: int) -> dict[str, float]:
        """Return one reading of each metric."""
        wave = math.sin(2 * math.pi * (now_ms % _DAY_MS) / _DAY_MS)
        return {
            "temperature": round(22 + 3 * wave + self._noise.gauss(0, 0.3), 2),
            "humidity": round(50 - 8 * wave + self._noise.gauss(0, 1.0), 2),
            "pressure": round(1013 + self._noise.gauss(0, 0.8), 2),
        }
