"""What callers are told of a function."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import msgspec
import pytest
from easyremote.errors import InvalidArguments
from easyremote.inference.directory import listed
from easyremote.inference.functions import Function
from easyremote.inference.schemas import describe
from easyremote.topics.records import FunctionInfo, Offer
from msgspec import Meta, Raw


class Point(msgspec.Struct):
    x: float
    y: float = 0.0


class Unknown:
    pass


def _info(call: Any) -> FunctionInfo:
    return describe(Function("f", call))


def test_arguments_stand_in_order_with_types_defaults_and_what_is_required() -> None:
    def area(points: list[Point], scale: float = 1.0, label: str | None = None) -> dict[str, float]:
        """Return the area.

        More that nobody lists.
        """
        return {}

    info = _info(area)
    assert info.doc == "Return the area."
    assert list(info.arguments["properties"]) == ["points", "scale", "label"]
    assert info.arguments["properties"]["points"] == {"type": "array", "items": {"$ref": "#/$defs/Point"}}
    assert info.arguments["properties"]["scale"] == {"type": "number", "default": 1.0}
    assert info.arguments["required"] == ["points"]
    assert info.arguments["$defs"]["Point"]["required"] == ["x"]
    assert info.arguments["additionalProperties"] is False
    assert info.result == {"type": "object", "additionalProperties": {"type": "number"}}


def test_a_bound_in_a_type_hint_is_told_and_checked() -> None:
    def root(number: Annotated[float, Meta(ge=0)]) -> float:
        return math.sqrt(number)

    assert _info(root).arguments["properties"]["number"] == {"type": "number", "minimum": 0}
    with pytest.raises(InvalidArguments, match="number"):
        Function("root", root).arguments([Raw(b"-1")], {})


def test_more_arguments_are_told_apart() -> None:
    def call(first: int, *rest: str, **named: bool) -> None: ...

    arguments = _info(call).arguments
    assert list(arguments["properties"]) == ["first"]
    assert arguments["x-more-args"] == {"type": "string"}
    assert arguments["additionalProperties"] == {"type": "boolean"}
    assert _info(call).result == {"type": "null"}


def test_what_json_schema_does_not_know_takes_anything() -> None:
    nothing = Unknown()

    def call(one: Any, default: Any = nothing) -> Unknown:
        return nothing

    info = _info(call)
    assert info.arguments["properties"] == {"one": {}, "default": {}}
    assert info.arguments["required"] == ["one"]
    assert info.result == {}


def test_a_generator_streams_items_of_its_type() -> None:
    def count(to: int) -> Iterator[int]:
        yield from range(to)

    async def tell(to: int) -> AsyncIterator[Point]:
        yield Point(to)

    assert (_info(count).stream, _info(count).result) == (True, {"type": "integer"})
    assert (_info(tell).stream, _info(tell).result["$ref"]) == (True, "#/$defs/Point")


def test_a_function_is_listed_once_for_all_nodes_that_offer_it_alike() -> None:
    def old(text: str) -> str:
        return text

    def new(text: str, times: int = 1) -> str:
        return text * times

    offers = [
        Offer(node_id="c", pool="general", functions=[_info(new)]),
        Offer(node_id="a", pool="nlp", functions=[_info(old), describe(Function("e", old))]),
        Offer(node_id="b", pool="general", functions=[_info(old)]),
    ]
    assert [(one.function.name, one.nodes, one.pools) for one in listed(offers)] == [
        ("e", ("a",), ("nlp",)),
        ("f", ("a", "b"), ("general", "nlp")),
        ("f", ("c",), ("general",)),
    ]
