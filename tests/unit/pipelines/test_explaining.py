"""What a pipeline does is told in words and as a picture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from easyremote.cli import app
from easyremote.pipelines import registered, stream
from easyremote.pipelines.explaining import explain, mermaid
from easyremote.windows import Mean, Tumbling
from typer.testing import CliRunner

MODULE = """
from easyremote import stream
from easyremote.windows import Mean, Tumbling

stream("readings").key_by("device_id").window(Tumbling("10s")).aggregate(mean=Mean("value")).to("explained")
"""


def test_a_pipeline_is_explained_with_all_its_topics() -> None:
    pipeline = (
        stream("readings")
        .filter(lambda record: record["value"] > 0)
        .key_by("device_id", "metric")
        .window(Tumbling("10s"), lateness="60s")
        .aggregate(mean=Mean("value"))
        .to("means", register=False)
    )
    lines = dict(explain(pipeline))
    assert lines["key"] == "device_id, metric"
    assert "10s" in lines["window"]
    assert "60000 ms" in lines["window"]
    assert lines["aggregate"] == "mean=Mean(column='value')"
    topics = ("from", "to", "late records to", "unreadable to", "state and position in")
    named = ["readings", "means", "readings.late", "readings.dlq", "pipelines.readings.means.changelog"]
    assert [lines[topic] for topic in topics] == named
    picture = mermaid([pipeline])
    assert picture.startswith("flowchart LR\n")
    assert all(f'(["{topic}"])' in picture for topic in named)


def test_the_command_explains_the_pipelines_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "explained_pipelines.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(registered)
    registered.clear()
    try:
        told = CliRunner().invoke(app, ["pipelines", "explain", "explained_pipelines"])
        drawn = CliRunner().invoke(app, ["pipelines", "explain", "explained_pipelines", "--mermaid"])
    finally:
        registered.clear()
        registered.update(before)
    assert "readings.explained" in told.output
    assert drawn.output.startswith("flowchart LR")


def test_a_module_that_is_a_worker_of_its_own_is_explained_without_a_kafka(tmp_path: Path) -> None:
    support = Path(__file__).parents[2] / "support"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EASYREMOTE_")}
    told = subprocess.run(
        [Path(sys.executable).with_name("easyremote"), "pipelines", "explain", "joined"],
        cwd=support,
        env=environment | {"EASYREMOTE_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "paid" in told.stdout
