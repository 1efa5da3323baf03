"""The rules of the Numenta Anomaly Benchmark, on cases that can be worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from easyremote.bench.nab_scoring import PROFILES, Labelled, Profile, normalized, read_corpus, scored
from easyremote.errors import ConfigError

STANDARD = PROFILES["standard"]
SERIES = Labelled("a/b.csv", np.arange(1_000) * 60_000, np.zeros(1_000), [(300, 399), (700, 799)])


def _score(*rows: int, profile: Profile = STANDARD) -> float:
    alarms = np.zeros(1_000, np.bool_)
    alarms[list(rows)] = True
    return normalized(scored(SERIES, alarms, profile), profile)


def _sigmoid(position: float) -> float:
    return 2 / (1 + math.exp(5 * position)) - 1


def test_silence_is_0_and_each_windows_first_row_100_in_every_profile() -> None:
    for profile in PROFILES.values():
        assert _score(profile=profile) == 0
        assert _score(300, 700, profile=profile) == pytest.approx(100)


def test_an_alarm_is_worth_less_the_later_it_is_and_counts_once_a_window() -> None:
    half = _sigmoid(-0.5) / _sigmoid(-1)
    assert _score(300, 750) == pytest.approx(100 * (1 + half + 2) / 4)
    assert _score(300, 310, 320, 750, 799) == pytest.approx(_score(300, 750))
    assert _score(399) == pytest.approx(100 * (_sigmoid(-0.01) / _sigmoid(-1) + 1) / 4)


def test_a_false_alarm_costs_little_just_behind_a_window_and_fully_before_any_or_far_away() -> None:
    perfect = _score(300, 700)
    assert perfect - _score(200, 300, 700) == pytest.approx(100 * 0.11 / 4)
    assert perfect - _score(300, 409, 700) == pytest.approx(-100 * 0.11 * _sigmoid(10 / 99) / 4)
    assert perfect - _score(300, 399 + 3 * 99, 700) == pytest.approx(100 * 0.11 / 4)
    assert _score(200, profile=PROFILES["low_fp"]) == pytest.approx(-100 * 0.22 / 4)
    assert _score(300, profile=PROFILES["low_fn"]) == pytest.approx(100 * (1 + 2) / (2 * 3))


def test_the_probation_is_15_percent_and_750_rows_at_most_and_alarms_in_it_do_not_count() -> None:
    assert (SERIES.probation, Labelled("a", np.arange(9_000), np.zeros(9_000), []).probation) == (150, 750)
    assert _score(0, 149) == 0
    assert _score(150) < 0
    found = scored(SERIES, np.arange(1_000) < 310, STANDARD)
    assert (found.hits, found.false_alarms, found.rows, found.delays) == (1, 150, 850, (0,))


def test_a_score_without_a_window_is_refused() -> None:
    nothing = Labelled("a", np.arange(100), np.zeros(100), [])
    with pytest.raises(ValueError, match="at least one"):
        normalized(scored(nothing, np.zeros(100, np.bool_), STANDARD), STANDARD)


def test_a_corpus_is_read_and_what_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "data" / "cpu").mkdir(parents=True)
    (tmp_path / "data" / "cpu" / "a.csv").write_text(
        "timestamp,value\n2014-04-01 00:00:00,1\n2014-04-01 00:05:00,2\n2014-04-01 00:10:00,3.5\n"
    )
    labels = {"cpu/a.csv": [["2014-04-01 00:05:00.000000", "2014-04-01 00:10:00.000000"]]}
    (tmp_path / "windows.json").write_text(json.dumps(labels))
    (series,) = read_corpus(tmp_path)
    assert (series.category, series.values.tolist(), series.windows) == ("cpu", [1, 2, 3.5], [(1, 2)])
    assert series.event_ms.tolist() == [1_396_310_400_000 + minute * 60_000 for minute in (0, 5, 10)]
    (tmp_path / "windows.json").write_text(json.dumps({"cpu/b.csv": []}))
    with pytest.raises(ConfigError, match=r"b\.csv"):
        read_corpus(tmp_path)
