"""The Numenta Anomaly Benchmark: one detector with one threshold for all series, none of them looked at ahead."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from easyremote.bench.nab_scoring import PROFILES, Found, Labelled, Profile, normalized, read_corpus, scored
from easyremote.bench.report import Report, progress
from easyremote.errors import ConfigError
from easyremote.windows.detectors import AlertRule, Detector, Unusual
from easyremote.windows.detectors.alerting import ALERT

__all__ = ["THRESHOLDS", "alarms", "found_by_category", "main", "scores"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
THRESHOLDS = tuple(float(one) for one in np.geomspace(0.4, 3.0, 40))
"""Factors of the shipped threshold that are tried for the best one."""


def scores(corpus: Sequence[Labelled], detector: Detector) -> Floats:
    """Return the score of each row of each series, all series side by side.

    Parameters
    ----------
    corpus : sequence of Labelled
        s series, the longest of n rows.
    detector : Detector
        Which rule.

    Returns
    -------
    ndarray of float64, shape (n, s)
        0 behind the end of a series.
    """
    order = sorted(range(len(corpus)), key=lambda one: -len(corpus[one].values))
    longest = len(corpus[order[0]].values)
    times = np.zeros((longest, len(corpus)), np.int64)
    values = np.zeros((longest, len(corpus)))
    for place, one in enumerate(order):
        length = len(corpus[one].values)
        times[:length, place], values[:length, place] = corpus[one].event_ms, corpus[one].values
    state = np.zeros(len(corpus), detector.dtype)
    told = np.zeros((longest, len(corpus)))
    lengths = np.array([len(corpus[one].values) for one in order])
    with progress("scoring rows", longest) as advance:
        for row in range(longest):
            alive = int(np.searchsorted(-lengths, -row))
            part = state[:alive]
            told[row, :alive] = detector.score(part, times[row, :alive], values[row, :alive]).score
            advance()
    back = np.empty(len(corpus), np.int64)
    back[order] = np.arange(len(corpus))
    result: Floats = told[:, back]
    return result


def alarms(given: Floats, corpus: Sequence[Labelled], rule: AlertRule, limits: Sequence[float]) -> Flags:
    """Return at which rows alerts are opened, for several thresholds; shape (thresholds, n, s)."""
    rows, series = given.shape
    state = np.zeros(len(limits) * series, ALERT)
    limit = np.repeat(np.array(limits), series)
    times = np.zeros((rows, series), np.int64)
    for place, one in enumerate(corpus):
        times[: len(one.values), place] = one.event_ms
    opened = np.zeros((rows, len(state)), np.bool_)
    nowhere = np.zeros(len(state), np.int64)
    with progress("alerts at each threshold", rows) as advance:
        for row in range(rows):
            score, at = np.tile(given[row], len(limits)), np.tile(times[row], len(limits))
            opened[row, rule.step(state, limit, score, at, nowhere).opened] = True
            advance()
    told: Flags = opened.reshape(rows, len(limits), series).transpose(1, 0, 2)
    return told


def found_by_category(corpus: Sequence[Labelled], opened: Flags, profile: Profile) -> dict[str, Found]:
    """Return what alarms (n, s) are worth, by category."""
    found: dict[str, Found] = {}
    for place, series in enumerate(corpus):
        one = scored(series, opened[: len(series.values), place], profile)
        found[series.category] = found.get(series.category, Found()) + one
    return found


def main(data: Path, json_file: Path | None) -> None:
    """Score a folder at the shipped threshold, print, and write."""
    corpus = read_corpus(data)
    if not any(series.windows for series in corpus):
        raise ConfigError(f"{data} has no labelled window: there is nothing to find, and so no score")
    detector, rule = Unusual(), AlertRule()
    given = scores(corpus, detector)
    limits = [detector.threshold, *(factor * detector.threshold for factor in THRESHOLDS)]
    shipped, *others = alarms(given, corpus, rule, limits)
    report = Report()
    for name, profile in PROFILES.items():
        found = found_by_category(corpus, shipped, profile)
        report.ratios[f"{name}_score"] = normalized(_all(found), profile)
    standard = PROFILES["standard"]
    best = max(normalized(_all(found_by_category(corpus, one, standard)), standard) for one in others)
    report.ratios["best_threshold_score"] = max(best, report.ratios["standard_score"])
    _tell(report, found_by_category(corpus, shipped, standard))
    report.finish(json_file)


def _tell(report: Report, found: Mapping[str, Found]) -> None:
    for category, one in {**found, "all": _all(found)}.items():
        if one.windows:
            report.add(f"{category} score", normalized(one, PROFILES["standard"]), "")
            report.add(f"{category} windows hit", 100 * one.hits / one.windows, "%")
        report.add(f"{category} false alarms", 1_000 * one.false_alarms / max(one.rows, 1), "per 1,000 points")
        if one.delays:
            report.add(f"{category} delay", statistics.median(one.delays), "points, median")


def _all(found: Mapping[str, Found]) -> Found:
    return sum(found.values(), Found())
