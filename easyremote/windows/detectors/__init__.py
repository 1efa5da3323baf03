"""Detectors of anomalies: rules that score a reading before they learn from it, and what becomes an alert."""

from easyremote.windows.detectors.alerting import AlertRule
from easyremote.windows.detectors.base import Detector
from easyremote.windows.detectors.detecting import Alerted, Detecting, DetectingEffects
from easyremote.windows.detectors.rules import Cusum, FlatLine, Missing, Robust, Seasonal, ZScore
from easyremote.windows.detectors.unusual import Unusual

__all__ = [
    "AlertRule",
    "Alerted",
    "Cusum",
    "Detecting",
    "DetectingEffects",
    "Detector",
    "FlatLine",
    "Missing",
    "Robust",
    "Seasonal",
    "Unusual",
    "ZScore",
]
