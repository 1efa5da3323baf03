"""How the detector does on categories that neither its parameters nor its threshold have seen.

For each category of a folder laid out like that of `easyremote bench nab`, parameters and threshold are chosen on all
the others, from a small grid around what is shipped; the category is scored with them. The score of all is weighted by
windows.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from easyremote.bench.nab import THRESHOLDS, alarms, found_by_category, scores
from easyremote.bench.nab_scoring import PROFILES, Found, normalized, read_corpus
from easyremote.windows.detectors import AlertRule, Unusual

GRID = {
    "memory": (1_500.0, 3_000.0, 6_000.0),
    "drift": (12.0, 24.0, 48.0),
    "clip": (1.5, 2.0, 3.0),
}
STANDARD = PROFILES["standard"]


def total(found: list[dict[str, Found]], category: str, *, without: bool) -> np.ndarray:
    """Return the score of each threshold on one category, or without it."""
    chosen = [sum((one for name, one in each.items() if (name == category) != without), Found()) for each in found]
    return np.array([normalized(one, STANDARD) for one in chosen])


def smooth(values: np.ndarray) -> np.ndarray:
    """Return values averaged with their neighbours: a peak that is a single threshold wide is luck."""
    padded = np.pad(values, 2, "edge")
    return np.convolve(padded, np.full(5, 0.2), "valid")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    corpus = read_corpus(parser.parse_args().data)
    shipped = Unusual()
    limits = [shipped.threshold * factor for factor in THRESHOLDS]
    tried = []
    for values in itertools.product(*GRID.values()):
        parameters = dict(zip(GRID, values, strict=True))
        given = scores(corpus, Unusual(**parameters))
        opened = alarms(given, corpus, AlertRule(), limits)
        tried.append((parameters, [found_by_category(corpus, one, STANDARD) for one in opened]))
    weighted, windows = 0.0, 0
    for category in sorted({one.category for one in corpus if one.windows}):
        # Of each parameter the value that is best on average over all the others: the best single set is luck, too.
        best = [smooth(total(found, category, without=True)).max() for _, found in tried]
        chosen = {
            name: max(
                values,
                key=lambda value, name=name: np.mean(
                    [score for (one, _), score in zip(tried, best, strict=True) if one[name] == value]
                ),
            )
            for name, values in GRID.items()
        }
        found = next(found for one, found in tried if one == chosen)
        threshold = int(np.argmax(smooth(total(found, category, without=True))))
        score = float(total(found, category, without=False)[threshold])
        count = next(each[category].windows for each in found)
        weighted, windows = weighted + score * count, windows + count
        print(f"{category}: {score:.1f} with {chosen}, threshold {limits[threshold]:.2f}")
    print(f"leaving categories out, by windows: {weighted / windows:.1f}")


if __name__ == "__main__":
    main()
