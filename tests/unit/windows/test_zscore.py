from __future__ import annotations

import math

import numpy as np
import pytest
from easyremote.errors import WindowError
from easyremote.windows.zscore import BASELINE, ZScore
from hypothesis import given, settings
from hypothesis import strategies as st


def _plain(detector: ZScore, values: list[float]) -> list[tuple[int, float]]:
    """Do as the detector does, one reading at a time."""
    mean, variance, calm, found = 0.0, 0.0, 0, []
    for learned, value in enumerate(values):
        distance = value - mean
        std = max(math.sqrt(variance), detector.least_share * abs(mean), 1e-9)
        score = distance / std if learned >= detector.warmup else 0.0
        if abs(score) >= detector.threshold:
            if calm == 0:
                found.append((learned, score))
            calm = detector.calm
        elif calm > 0:
            calm = calm - 1 if abs(score) < detector.threshold / 2 else detector.calm
        if learned >= detector.warmup:
            distance = max(-detector.clip * std, min(detector.clip * std, distance))
        weight = max(1 / (learned + 1), 1 / detector.memory)
        mean += weight * distance
        variance = (1 - weight) * (variance + weight * distance * distance)
    return found


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 1.1, 0.9, 30.0, -7.0]), min_size=1, max_size=60), min_size=1, max_size=6
    ),
    st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_many_series_in_columns_score_as_each_alone(series: list[list[float]], cut: int) -> None:
    detector = ZScore(threshold=3.0, memory=20, warmup=5, calm=3)
    baseline = np.zeros(len(series), BASELINE)
    found: list[list[tuple[int, float]]] = [[] for _ in series]
    for begin in range(0, max(map(len, series)), cut):
        present = [number for number, values in enumerate(series) if values[begin : begin + cut]]
        parts = [series[number][begin : begin + cut] for number in present]
        first = np.cumsum([0, *map(len, parts[:-1])])
        rows = baseline[present]
        anomalies = detector.step(rows, first, np.concatenate(parts))
        baseline[present] = rows
        for place, score in zip(anomalies.place.tolist(), anomalies.score.tolist(), strict=True):
            owner = int(np.searchsorted(first, place, "right")) - 1
            found[present[owner]].append((begin + place - int(first[owner]), score))
    for values, ours in zip(series, found, strict=True):
        theirs = _plain(detector, values)
        assert [place for place, _ in sorted(ours)] == [place for place, _ in theirs]
        assert [score for _, score in sorted(ours)] == pytest.approx([score for _, score in theirs])


def test_the_four_faults_of_the_water_pipe_are_found_and_nothing_else() -> None:
    datasets = pytest.importorskip("river.datasets", reason="the water pipe's series is river's")
    values = np.array([value for _, value in datasets.WaterFlow()])
    found = ZScore().step(np.zeros(1, BASELINE), np.array([0]), values)
    # Three moments of low flow, the first two within days, and the small peak after these two.
    assert found.place.tolist() == [93, 212, 329, 872]
    assert [score > 0 for score in found.score] == [False, False, True, False]


def test_a_constant_series_is_calm_and_its_first_change_is_found() -> None:
    detector = ZScore()
    baseline = np.zeros(1, BASELINE)
    assert len(detector.step(baseline, np.array([0]), np.zeros(500)).place) == 0
    assert detector.step(baseline, np.array([0]), np.array([0.0, 1.0])).place.tolist() == [1]
    assert np.isfinite(baseline["mean"]).all()


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"memory": -1}, {"clip": math.nan}])
def test_a_parameter_that_cannot_be_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(WindowError, match=next(iter(wrong))):
        ZScore(**wrong)  # type: ignore[arg-type]  # that is the point
