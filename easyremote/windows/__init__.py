"""Pure stream kernels: columns in, effects out; no I/O, no clock, no sleep."""

from easyremote.windows.kernel import Effects, Kernel
from easyremote.windows.readings import Readings
from easyremote.windows.tumbling import Tumbling, window_start
from easyremote.windows.zscore import ZScore

__all__ = ["Effects", "Kernel", "Readings", "Tumbling", "ZScore", "window_start"]
