"""Where a model runs: CUDA where there is one, else the CPU, whose cores its passes share."""

from __future__ import annotations

import os
from typing import Literal

__all__ = ["best_device", "instances_on", "limit_pass_threads", "pass_threads"]

_AT_ONCE = 2
"""Passes of one model at once on a CPU. On two cores, a thread each, they do a third more than one on both, and a
small one, which a second thread hardly shortens, waits for none that is under way."""


def best_device() -> Literal["cuda", "cpu"]:
    """Return the device on which models run; `cpu` also where torch is not installed."""
    try:
        import torch
    except ImportError:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def instances_on(device: Literal["cuda", "cpu"]) -> int:
    """Return how many passes of one model run at once there: on a CPU as many as `pass_threads` leaves cores for."""
    if device == "cuda":
        return 1
    return max(1, min(_AT_ONCE, _cores() // pass_threads()))


def pass_threads() -> int:
    """Return the threads of one pass on a CPU: half of the cores, or what `OMP_NUM_THREADS` says."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) else max(1, _cores() // _AT_ONCE)


def limit_pass_threads() -> None:
    """Have torch use `pass_threads` on threads that have not used it yet."""
    import torch

    torch.set_num_threads(pass_threads())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
