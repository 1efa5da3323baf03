"""What a caller may ask for besides a function's arguments, and the arguments as they travel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from msgspec import Raw

from easyremote.errors import InvalidArguments
from easyremote.settings import Strategy
from easyremote.topics.causes import message_of, name_of
from easyremote.topics.claims import Arguments
from easyremote.topics.json_form import encode

__all__ = ["CallOptions", "arguments_of", "asked"]

_LONGEST_S = 366 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """What a call may ask for besides its arguments; see the contract's request.

    Parameters
    ----------
    timeout_s : float
        The call's deadline, after which no node begins it and its caller is told, s. For a stream, all of it is meant.
    from_seq : int
        Of a stream: the first item that is sent, from 0. A function that makes the same items for the same arguments
        can so be taken up where an earlier call was left.
    kwargs : mapping
        Arguments by name beside those of the call itself: for a function that has one of a name which the client takes
        for itself, `options` or `timeout`.

    Raises
    ------
    InvalidArguments
        If `timeout_s` is no time from 0 s to a year.
    """

    timeout_s: float = 30.0
    id: str | None = None
    target: str | None = None
    affinity_key: str | None = None
    strategy: Strategy | None = None
    model: str | None = None
    priority: Literal["high", "normal", "low"] = "normal"
    from_seq: int = 0
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.timeout_s
        if not isinstance(given, int | float) or math.isnan(given) or not 0 <= given <= _LONGEST_S:
            raise InvalidArguments(f"a timeout of {given!r}: give seconds, from 0 to {_LONGEST_S:.0f}")


def asked(options: CallOptions, timeout: float | None, kwargs: dict[str, Any]) -> tuple[CallOptions, dict[str, Any]]:
    """Return what a call asks for, and its arguments by name: a `timeout` of its own wins over the options'.

    Raises
    ------
    InvalidArguments
        If the timeout is none, or an argument is given twice.
    """
    if timeout is not None:
        options = replace(options, timeout_s=timeout)
    if not options.kwargs:
        return options, kwargs
    twice = options.kwargs.keys() & kwargs.keys()
    if twice:
        raise InvalidArguments(f"argument {min(twice)!r} is given twice: in the call and in CallOptions.kwargs")
    return options, {**kwargs, **options.kwargs}


def arguments_of(function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    """Return a call's arguments as JSON.

    Raises
    ------
    InvalidArguments
        If one has no form in JSON; the message names the place.
    """
    try:
        given = [encode(one, f"args[{place}]") for place, one in enumerate(args)]
        named = {name: encode(one, name) for name, one in kwargs.items()}
    except Exception as error:
        raise _no_form(function, error) from error
    size = sum(map(len, given)) + sum(map(len, named.values()))
    return Arguments(list(map(Raw, given)), {name: Raw(one) for name, one in named.items()}, size=size)


def _no_form(function: str, error: Exception) -> InvalidArguments:
    kind = "" if isinstance(error, TypeError | ValueError) else f"{name_of(error)}: "
    deep = isinstance(error, RecursionError)
    said = "it is nested too deeply, or holds itself" if deep else f"{kind}{message_of(error)}"
    return InvalidArguments(f"an argument of {function} has no form in JSON: {said}")
