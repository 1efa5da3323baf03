"""What `easyremote bench memory` makes of what it saw."""

from __future__ import annotations

import pytest
from easyremote.bench.memory import growth


def test_growth_counts_from_when_memory_has_settled() -> None:
    assert growth([80, 100, 101, 104], settled=2) == pytest.approx(0.04)


def test_memory_that_is_given_back_is_no_growth() -> None:
    assert growth([100, 140, 99], settled=1) == pytest.approx(-0.01)
