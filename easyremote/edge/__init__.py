"""What runs where the data is: a device, its sensors, and what it can say about them on the spot."""

from easyremote.edge.device import EdgeDevice
from easyremote.edge.sensors import Sensor, SimulatedSensors

__all__ = ["EdgeDevice", "Sensor", "SimulatedSensors"]
