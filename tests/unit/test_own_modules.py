"""A user's own modules, as the README names them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from easyremote.settings import Settings
from easyremote.worker import _build_node


def test_a_module_that_stands_where_the_worker_is_started_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "functions_of_a_reader.py").write_text(
        "import easyremote\n\n\n@easyremote.function\ndef halve(number: int) -> float:\n    return number / 2\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    node = _build_node(Settings(models=(), functions=("functions_of_a_reader",)))
    assert "halve" in node.registry.names()
