"""Pure stream kernels: columns in, effects out; no I/O, no clock, no sleep."""

from easyremote.windows.aggregates import Count, Invalid, Max, Mean, Min, NumericCount, StdDev, Sum, Variance
from easyremote.windows.asof_join import AsOfJoin
from easyremote.windows.assigners import CountWindow, EventTime, Hopping, Session, Sliding, Tumbling
from easyremote.windows.custom import Custom, TypeDistribution
from easyremote.windows.interval_join import IntervalJoin
from easyremote.windows.joining import Join, JoinEffects, JoinResult
from easyremote.windows.kernel import Effects, Kernel
from easyremote.windows.processor import StreamProcessor
from easyremote.windows.quantiles import Median, Quantile
from easyremote.windows.readings import Readings
from easyremote.windows.rows import Late, Rows, WindowResult, WindowResults
from easyremote.windows.tumbling import window_start
from easyremote.windows.windowed import Windowed, WindowedEffects
from easyremote.windows.zscore import ZScore

__all__ = [
    "AsOfJoin",
    "Count",
    "CountWindow",
    "Custom",
    "Effects",
    "EventTime",
    "Hopping",
    "IntervalJoin",
    "Invalid",
    "Join",
    "JoinEffects",
    "JoinResult",
    "Kernel",
    "Late",
    "Max",
    "Mean",
    "Median",
    "Min",
    "NumericCount",
    "Quantile",
    "Readings",
    "Rows",
    "Session",
    "Sliding",
    "StdDev",
    "StreamProcessor",
    "Sum",
    "Tumbling",
    "TypeDistribution",
    "Variance",
    "WindowResult",
    "WindowResults",
    "Windowed",
    "WindowedEffects",
    "ZScore",
    "window_start",
]
