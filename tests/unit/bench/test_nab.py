"""The shipped detector on the labelled series of the Numenta Anomaly Benchmark that lie beside the project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from easyremote.cli import app
from typer.testing import CliRunner

NAB = Path(__file__).parents[4] / "shared" / "nab"


@pytest.mark.skipif(not NAB.exists(), reason="the labelled series, ../shared/nab, are not on this machine")
def test_one_detector_with_one_threshold_scores_62_on_all_series(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["bench", "nab", "--data", str(NAB), "--json", str(tmp_path / "nab.json")])
    assert told.exit_code == 0, told.output
    ratios = json.loads((tmp_path / "nab.json").read_text())["ratios"]
    assert set(ratios) == {"standard_score", "low_fp_score", "low_fn_score", "best_threshold_score"}
    assert ratios["standard_score"] >= 62
    assert ratios["low_fp_score"] < ratios["standard_score"] <= ratios["best_threshold_score"]


@pytest.mark.skipif(not NAB.exists(), reason="the labelled series, ../shared/nab, are not on this machine")
def test_what_comes_later_changes_nothing_that_was_scored(tmp_path: Path) -> None:
    from easyremote.bench.nab import scores
    from easyremote.bench.nab_scoring import Labelled, read_corpus
    from easyremote.windows.detectors import Unusual

    whole = read_corpus(NAB)[-2:]
    half = [Labelled(one.name, one.event_ms[:800], one.values[:800], []) for one in whole]
    assert (scores(whole, Unusual())[:800] == scores(half, Unusual())).all()


def test_a_folder_that_is_no_corpus_is_an_error_that_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "windows.json").write_text(json.dumps({"cpu/a.csv": []}))
    told = CliRunner().invoke(app, ["bench", "nab", "--data", str(tmp_path)])
    assert told.exit_code != 0
    assert "cpu/a.csv" in told.output + (told.stderr or "")


def test_a_folder_without_a_labelled_window_has_no_score_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "data" / "cpu").mkdir(parents=True)
    (tmp_path / "data" / "cpu" / "a.csv").write_text("timestamp,value\n2014-04-01 00:00:00,1\n")
    (tmp_path / "windows.json").write_text(json.dumps({"cpu/a.csv": []}))
    told = CliRunner().invoke(app, ["bench", "nab", "--data", str(tmp_path)])
    assert told.exit_code != 0
    assert "no labelled window" in told.output + (told.stderr or "")
