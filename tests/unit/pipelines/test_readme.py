"""The README's pipeline is what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from easyremote.pipelines import registered


def test_the_readmes_pipeline_and_its_test_run_as_they_stand_there() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (written,) = (block for block in blocks if "pipeline = (" in block)
    (tried,) = (block for block in blocks if "PipelineDriver" in block)
    before = dict(registered)
    names: dict[str, Any] = {}
    try:
        exec(written + tried, names)  # the repository's own page
    finally:
        registered.clear()
        registered.update(before)
    assert names["pipeline"].sink == "minutes"
