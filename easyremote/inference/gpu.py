"""How full and how busy the GPU is on which this process's models run, where there is one."""

from __future__ import annotations

import sys
from collections.abc import Callable

import structlog

from easyremote.topics.records import GpuState

__all__ = ["GpuGauge", "read_cuda"]

log = structlog.get_logger(__name__)


def read_cuda() -> GpuState | None:
    """Return the state of CUDA's current device; None until a model of this process is on it.

    Nothing is imported, and no context is made, for the sake of the figures: a node without torch stays without it.
    Utilisation needs `nvidia-ml-py`; without it that is None.
    """
    if "torch" not in sys.modules:
        return None
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch gives it no types
        return None
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return GpuState(
        name=torch.cuda.get_device_name(),
        memory_used_bytes=total_bytes - free_bytes,
        memory_total_bytes=total_bytes,
        utilisation_percent=_utilisation(),
    )


def _utilisation() -> float | None:
    import torch

    try:
        return float(torch.cuda.utilization())
    except Exception as error:  # noqa: BLE001  # no nvidia-ml-py, or a card or container that does not tell: NVML's own
        log.debug("the GPU's utilisation is not known", error=str(error))
        return None


class GpuGauge:
    """Keeps the last state, so that a heartbeat never waits for a driver.

    Parameters
    ----------
    read : callable
        Asks the driver; may take its time, and may raise.
    """

    def __init__(self, read: Callable[[], GpuState | None] = read_cuda) -> None:
        self._read = read
        self._failed = False
        self.latest: GpuState | None = None
        """As it was when it was last asked; None where there is no GPU or it does not answer."""

    def refresh(self) -> None:
        """Ask the driver; call it off the event loop."""
        try:
            self.latest = self._read()
        except Exception as error:  # noqa: BLE001  # drivers raise what they like, and figures are not worth a node
            self.latest = None
            if not self._failed:
                log.warning("the GPU does not tell how it is; trying on", error=str(error))
            self._failed = True
        else:
            self._failed = False
