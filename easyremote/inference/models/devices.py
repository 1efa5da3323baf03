"""Where a model runs: CUDA where there is one, else the CPU."""

from __future__ import annotations

from typing import Literal

__all__ = ["best_device"]


def best_device() -> Literal["cuda", "cpu"]:
    """Return the device on which models run; `cpu` also where torch is not installed."""
    try:
        import torch
    except ImportError:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"
