"""Detectors find what they are for, learn nothing before they score, and depend on the log alone."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from easyremote.errors import WindowError
from easyremote.windows import Rows
from easyremote.windows.detectors import (
    Alerted,
    AlertRule,
    Cusum,
    Detecting,
    Detector,
    FlatLine,
    Missing,
    Robust,
    Seasonal,
    Unusual,
    ZScore,
)
from easyremote.windows.watermarks import FUTURE_MS
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_700_000_000_000
MINUTE = 60_000
DETECTORS: tuple[Detector, ...] = (
    Unusual(warmup=30),
    ZScore(),
    ZScore(window=30),
    Robust(),
    Seasonal(buckets=4),
    Cusum(),
    FlatLine(),
    Missing(),
)


def _noise(count: int, seed: int = 1) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(20, 1, count)


def _scores(
    detector: Detector,
    values: npt.NDArray[np.float64],
    step_ms: int = MINUTE,
    times: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float64]:
    state = np.zeros(1, detector.dtype)
    at = NOW + np.arange(len(values)) * step_ms if times is None else times
    told = [detector.score(state, at[row : row + 1], values[row : row + 1]).score[0] for row in range(len(values))]
    return np.array(told)


@pytest.mark.parametrize("detector", [ZScore(), ZScore(window=50), Robust(), Unusual()], ids=repr)
def test_a_spike_is_found_and_does_not_become_the_rule(detector: Detector) -> None:
    values = _noise(600)
    values[[400, 420]] = 60
    scores = _scores(detector, values)
    assert scores[400] >= detector.threshold
    assert scores[420] >= detector.threshold
    assert (scores[300:400] >= detector.threshold).mean() < 0.03


def test_a_robust_detector_stands_a_window_of_which_a_third_is_out() -> None:
    values = _noise(300)
    values[200:300:3] = 60
    robust, plain = _scores(Robust(), values), _scores(ZScore(window=64), values)
    assert (robust[250:300][values[250:] == 60] >= Robust().threshold).all()
    assert (plain[250:300][values[250:] == 60] < ZScore().threshold).all()


def test_what_is_usual_at_its_time_of_day_is_none_and_at_another_one_it_is() -> None:
    hours = np.arange(24 * 20)
    values = 20 + 10 * np.sin(hours * 2 * np.pi / 24) + _noise(len(hours)) / 20
    values[24 * 18 + 18] = values[24 * 17 + 6]  # the highest value at the hour of the lowest
    scores = _scores(Seasonal(buckets=24), values, 60 * MINUTE)
    assert scores[24 * 18 + 18] >= Seasonal().threshold
    assert (scores[24 * 5 : 24 * 18] >= Seasonal().threshold).mean() < 0.01
    plain = _scores(ZScore(), values, 60 * MINUTE)
    assert plain[24 * 18 + 18] < ZScore().threshold


def test_a_small_lasting_shift_is_found_by_its_sum_and_a_single_spike_is_none() -> None:
    values = _noise(600)
    values[400:] += 2
    scores = _scores(Cusum(), values)
    first = int(np.flatnonzero(scores >= Cusum().threshold)[0])
    assert 400 < first < 440
    spike = _noise(600)
    spike[400] = 100
    assert (_scores(Cusum(), spike) < Cusum().threshold).all()


def test_a_sensor_that_is_stuck_is_found_and_one_that_is_often_still_is_not() -> None:
    stuck = _noise(200)
    stuck[100:160] = stuck[100]
    scores = _scores(FlatLine(), stuck)
    assert scores[:110].max() < FlatLine().threshold <= scores[145]
    still = np.repeat(_noise(10), 40)
    assert _scores(FlatLine(), still)[120:].max() < FlatLine().threshold


def test_a_gap_is_told_by_the_reading_that_ends_it_by_what_is_usual_of_its_series() -> None:
    times = NOW + np.arange(200) * MINUTE
    times[150:] += 30 * MINUTE
    scores = _scores(Missing(), _noise(200), times=times)
    assert scores[150] == pytest.approx(31, rel=0.01)
    assert (np.delete(scores, 150) < Missing().threshold).all()


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
@pytest.mark.parametrize("value", [0.0, 5.0, -1e150, 1e150, 1e-300])
def test_a_constant_series_and_its_first_change_give_finite_scores(detector: Detector, value: float) -> None:
    values = np.full(200, value)
    values[150] = 1.0
    scores = _scores(detector, values)
    if detector.kind != "flat_line":
        assert (scores[:150] < detector.threshold).all()
    assert np.isfinite(scores).all()


def _rows(keys: list[str], values: npt.NDArray[np.float64], first: int = 0) -> Rows:
    count = len(values)
    at = NOW + (first + np.arange(count)) * MINUTE
    return Rows([(key,) for key in keys], at, first + np.arange(count), {"value": values})


@settings(max_examples=15, deadline=None)
@given(detector=st.sampled_from(DETECTORS), cuts=st.lists(st.integers(1, 60), min_size=1), draw=st.data())
def test_alerts_depend_on_the_log_alone_whatever_the_batches_and_the_restarts(
    detector: Detector, cuts: list[int], draw: st.DataObject
) -> None:
    count = 400
    keys = np.random.default_rng(3).choice(list("abc"), count).tolist()
    values = _noise(count, seed=4)
    values[[200, 201, 300]] += 40
    values[320:380] = 20
    late = NOW + count * MINUTE
    whole = Detecting(detector, AlertRule(cooldown=10), "value").step(_rows(keys, values), late).alerts
    kernel = Detecting(detector, AlertRule(cooldown=10), "value")
    kept: dict[bytes, bytes] = {}
    told: list[Alerted] = []
    begin = turn = 0
    while begin < count:
        end = min(count, begin + cuts[turn % len(cuts)])
        told += kernel.step(_rows(keys[begin:end], values[begin:end], begin), late).alerts
        kept |= {key: content for key, content in kernel.changes() if content is not None}
        if draw.draw(st.booleans()):
            kernel = Detecting(detector, AlertRule(cooldown=10), "value")
            for key, content in kept.items():
                kernel.restore(key, content)
        begin, turn = end, turn + 1
    assert told == whole


def test_an_alert_is_opened_updated_while_it_gets_worse_and_closed_when_it_is_calm() -> None:
    values = _noise(200)
    values[100:105] = [30, 31, 60, 61, 30]
    alerts = (
        Detecting(ZScore(threshold=5), AlertRule(calm=5), "value")
        .step(_rows(["a"] * 200, values), NOW + 200 * MINUTE)
        .alerts
    )
    lived = [(one.phase, (one.event_ms - NOW) // MINUTE) for one in alerts if one.opened_offset == 100]
    assert lived == [("opened", 100), ("updated", 102), ("closed", 109)]
    assert alerts[0].value == 30
    assert {one.opened_ms for one in alerts if one.opened_offset == 100} == {NOW + 100 * MINUTE}


def test_what_lasts_is_told_again_only_after_the_cooldown_and_by_a_threshold_that_has_risen() -> None:
    rule = AlertRule(cooldown=20, rise=0.5, memory=1e9)
    state = np.zeros(1, _alert_dtype())
    opened = []
    for row in range(400):
        changed = rule.step(state, np.array([1.0]), np.array([5.0]), np.array([NOW + row]), np.array([row]))
        opened += [row for _ in changed.opened]
    assert [after - before for before, after in pairwise(opened)] == [21] * (len(opened) - 1)
    assert len(opened) == 4  # 1.5, 2.25, 3.375, 5.06: then five is not enough


def test_an_alert_budget_opens_so_many_a_day_whatever_the_scores_are() -> None:
    rule = AlertRule(cooldown=1, calm=1, rise=0.1, per_day=6)
    scales = np.array([1.0, 50.0])
    state = np.zeros(len(scales), _alert_dtype())
    scores = np.random.default_rng(5).exponential(scales, (20 * 288, len(scales)))
    opened = np.zeros((20, len(scales)))
    for row, of_each in enumerate(scores):
        at = np.full(len(scales), NOW + row * 5 * MINUTE)
        opened[row // 288, rule.step(state, np.ones(len(scales)), of_each, at, at).opened] += 1
    lately = opened[10:].mean(axis=0)
    assert ((lately > 4.5) & (lately < 7.5)).all()


def _alert_dtype() -> np.dtype[np.void]:
    from easyremote.windows.detectors.alerting import ALERT

    return ALERT


def test_the_largest_numbers_there_are_break_nothing() -> None:
    values = _noise(100)
    values[50:52] = [1.7e308, -1.7e308]
    kernel = Detecting(ZScore(threshold=6), AlertRule(), "value")
    alerts = kernel.step(_rows(["a"] * 100, values), NOW + 100 * MINUTE).alerts
    assert [one.opened_offset for one in alerts if one.phase == "opened"] == [50]
    assert all(np.isfinite([one.score, one.expected, one.worst]).all() for one in alerts)


def test_a_clock_that_is_ahead_teaches_nothing() -> None:
    kernel = Detecting(ZScore(), AlertRule(), "value")
    rows = Rows([("a",)], np.array([NOW + FUTURE_MS + 1]), np.array([0]), {"value": np.array([1e9])})
    effects = kernel.step(rows, NOW)
    assert ([one.reason for one in effects.late], effects.alerts, kernel.keys) == (["future"], [], 0)


def test_keys_that_are_silent_for_a_week_are_forgotten_and_state_of_another_detector_is_refused() -> None:
    kernel = Detecting(ZScore(), AlertRule(), "value")
    kernel.step(_rows(["a", "b"], _noise(2)), NOW + MINUTE)
    ((key, content), _) = kernel.changes()
    kernel.forget(NOW + 8 * 24 * 60 * MINUTE)
    assert (kernel.keys, kernel.changes()) == (0, [(b'["a"]', None), (b'["b"]', None)])
    assert content is not None
    with pytest.raises(WindowError, match="another"):
        Detecting(Robust(), AlertRule(), "value").restore(key, content)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ZScore(threshold=0),
        lambda: ZScore(window=1),
        lambda: Robust(window=2),
        lambda: Seasonal(buckets=1),
        lambda: Cusum(slack=-1),
        lambda: FlatLine(least=1),
        lambda: Missing(threshold=1),
        lambda: Unusual(clip=0),
        lambda: AlertRule(cooldown=0),
        lambda: AlertRule(per_day=0),
    ],
)
def test_a_parameter_that_is_not_possible_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(WindowError):
        make()
