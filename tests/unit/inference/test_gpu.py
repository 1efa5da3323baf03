"""The GPU's figures, with a stand-in for torch: no GPU is needed, nor is torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from easyremote.inference.gpu import GpuGauge, read_cuda
from easyremote.topics.records import GpuState

GIB = 1 << 30


def _missing() -> int:
    raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")


def _torch(*, initialized: bool = True, utilization: Callable[[], int] = lambda: 37) -> Any:
    return SimpleNamespace(
        cuda=SimpleNamespace(
            is_initialized=lambda: initialized,
            mem_get_info=lambda: (6 * GIB, 8 * GIB),
            get_device_name=lambda: "a card",
            utilization=utilization,
        )
    )


def test_memory_and_utilisation_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", _torch())
    assert read_cuda() == GpuState("a card", 2 * GIB, 8 * GIB, 37.0)


def test_utilisation_is_null_where_the_driver_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", _torch(utilization=_missing))
    assert read_cuda() == GpuState("a card", 2 * GIB, 8 * GIB, None)


def test_nothing_is_imported_and_no_context_made_for_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", _torch(initialized=False))
    assert read_cuda() is None
    monkeypatch.delitem(sys.modules, "torch")
    assert read_cuda() is None
    assert "torch" not in sys.modules


def test_a_gpu_that_fails_is_absent_until_it_answers_again() -> None:
    answers: list[GpuState | Exception] = [GpuState("a card", 1, 2), RuntimeError("fell off the bus")]

    def read() -> GpuState:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    gauge = GpuGauge(read)
    seen = []
    for _ in range(2):
        gauge.refresh()
        seen.append(gauge.latest)
    answers.append(GpuState("a card", 1, 2, 5.0))
    gauge.refresh()
    assert [*seen, gauge.latest] == [GpuState("a card", 1, 2), None, GpuState("a card", 1, 2, 5.0)]
