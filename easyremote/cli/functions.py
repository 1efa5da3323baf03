"""Which functions can be called."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from easyremote.cli.told import AsJson, cells, say, told

if TYPE_CHECKING:
    from easyremote.topics.records import FunctionInfo

__all__ = ["functions"]


@told
def functions(as_json: AsJson = False) -> None:
    """List the functions that live nodes offer: arguments, model, who offers it; with --json their JSON schemas."""
    from msgspec import to_builtins

    from easyremote.inference.directory import list_functions
    from easyremote.settings import load_settings

    found = list_functions(load_settings())
    if as_json:
        rows = [to_builtins(one.function) | {"nodes": one.nodes, "pools": one.pools} for one in found]
        say(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("function", "what", "model", "nodes")
    for one in found:
        name, what = _signature(one.function), one.function.doc
        table.add_row(*cells(name, what, one.function.model or "", ", ".join(one.nodes)))
    Console().print(table)


def _signature(function: FunctionInfo) -> str:
    # What stands on `functions` need not be written by this package: no key is taken for granted.
    required = function.arguments.get("required")
    known = required if isinstance(required, list) else []
    names = [name if name in known else f"{name}?" for name in function.arguments.get("properties") or ()]
    names += ["..."] if "x-more-args" in function.arguments else []
    given = f"{function.name}({', '.join(names)})"
    result = _type_name(function.result)
    return f"{given} -> {'stream of ' if function.stream else ''}{result}"


def _type_name(schema: dict[str, Any]) -> str:  # Any: JSON Schema
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if isinstance(schema.get("anyOf"), list):
        return " | ".join(_type_name(one) for one in schema["anyOf"] if isinstance(one, dict))
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        return f"array of {_type_name(schema['items'])}"
    return str(schema.get("type", "any"))
