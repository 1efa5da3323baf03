"""No two threads are the first to decode a class: msgspec crashes then (see `topics/known_brokers.py`)."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import easyremote
import msgspec

TOP = Path(easyremote.__file__).parent
DECODES = frozenset({"decode", "convert"})


def _classes_in(hint: ast.expr, module: ModuleType) -> Iterator[str]:
    for one in ast.walk(hint):
        found = getattr(module, one.id, None) if isinstance(one, ast.Name) else None
        if isinstance(found, type) and issubclass(found, msgspec.Struct):
            yield found.__name__


def test_what_decodes_a_class_is_made_with_its_module() -> None:
    at_run_time = []
    for file in sorted(TOP.rglob("*.py")):
        tree = ast.parse(file.read_text())
        calls = [
            (one, keyword.value)
            for one in ast.walk(tree)
            if isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute) and one.func.attr in DECODES
            for keyword in one.keywords
            if keyword.arg == "type"
        ]
        if calls:
            module = importlib.import_module(".".join(file.relative_to(TOP.parent).with_suffix("").parts))
            at_run_time += [
                f"{file.name}:{call.lineno} {name}" for call, hint in calls for name in _classes_in(hint, module)
            ]
    assert not at_run_time
