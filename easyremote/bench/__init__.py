"""Measurements, never gates: `easyremote bench rpc` and `easyremote bench stream`."""
