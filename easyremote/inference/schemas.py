"""What callers may know of a function: its JSON schemas, made from the type hints that its arguments are checked by."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from typing import Any

import msgspec

from easyremote.inference.functions import Function
from easyremote.topics.records import FunctionInfo

__all__ = ["describe"]

Schema = dict[str, Any]  # Any: JSON Schema

_NAMES = "#/$defs/{name}"
_STREAMS = (collections.abc.Iterator, collections.abc.AsyncIterator, collections.abc.Iterable)


def describe(function: Function) -> FunctionInfo:
    """Return what a caller needs to know of a function.

    What has no hint, or one of a type that JSON Schema does not know, takes anything: `{}`.

    Examples
    --------
    >>> def repeat(text: str, times: int = 2) -> str:
    ...     '''Say it again.'''
    ...     return text * times
    >>> info = describe(Function("repeat", repeat))
    >>> info.doc, info.result
    ('Say it again.', {'type': 'string'})
    >>> info.arguments["properties"]
    {'text': {'type': 'string'}, 'times': {'type': 'integer', 'default': 2}}
    >>> info.arguments["required"]
    ['text']
    """
    hints = typing.get_type_hints(function.call, include_extras=True)
    stream = inspect.isgeneratorfunction(function.call) or inspect.isasyncgenfunction(function.call)
    result = hints.get("return", Any)
    document = inspect.getdoc(function.call) or ""
    return FunctionInfo(
        name=function.name,
        doc=document.partition("\n")[0],
        arguments=_arguments(inspect.signature(function.call), hints),
        result=_schema(_item(result) if stream else result),
        model=function.model,
        stream=stream,
    )


def _arguments(signature: inspect.Signature, hints: dict[str, Any]) -> Schema:
    properties: dict[str, Schema] = {}
    required: list[str] = []
    definitions: Schema = {}
    found: Schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    for name, parameter in signature.parameters.items():
        schema = _schema(hints.get(name, Any))
        definitions |= schema.pop("$defs", {})
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            found["x-more-args"] = schema
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found["additionalProperties"] = schema
        else:
            properties[name] = schema | _default(parameter)
            if parameter.default is inspect.Parameter.empty:
                required.append(name)
    return found | ({"$defs": definitions} if definitions else {})


def _schema(hint: Any) -> Schema:  # Any: a type hint can be anything
    try:
        (schema,), definitions = msgspec.json.schema_components([hint], ref_template=_NAMES)
    except TypeError:
        return {}
    return schema | ({"$defs": definitions} if definitions else {})


def _default(parameter: inspect.Parameter) -> Schema:
    if parameter.default is inspect.Parameter.empty:
        return {}
    try:
        return {"default": msgspec.to_builtins(parameter.default)}
    except TypeError:
        return {}  # it has no form in JSON; that there is one shows by its not being required


def _item(hint: Any) -> Any:  # Any: type hints
    origin, items = typing.get_origin(hint), typing.get_args(hint)
    return items[0] if items and isinstance(origin, type) and issubclass(origin, _STREAMS) else Any
