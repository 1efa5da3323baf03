"""What a node offers: named functions, their arguments checked against the type hints."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

import msgspec
from msgspec import Raw

from easyremote.errors import ConfigError, InvalidArguments, NotOfferedHere
from easyremote.topics.limits import shortened

__all__ = ["Function", "Registry", "function", "registered"]

F = TypeVar("F", bound=Callable[..., Any])
Decoder = Callable[[bytes | Raw], Any]

_MAX_NAME = 255
_decode_any: Decoder = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class Function:
    """A function that can be called by name from another machine.

    Parameters
    ----------
    name : str
        What callers name.
    call : callable
        Synchronous, or a coroutine function; or a generator function or an async generator function, whose items are
        sent as they are made to who asks for a stream, and as one list to who does not.
    model : str or None
        Name of the model that answers, where one does.
    many : callable or None
        `(list of arguments) -> list of results`: answers calls that wait together in one go. Each argument is the
        first of its call; an exception in the list is that call's error.
    retry_on : tuple of exception classes
        What it may raise and be tried again after, beside what says itself that it is `retriable`.
    limit_s : float or None
        How long it may run, or make no item, s; 0: as long as it likes; None: `EASYREMOTE_CALL_LIMIT_S`.
    version : str or None
        Of the model: whoever has this function in hand is answered by that version, whatever is swapped in meanwhile.
    """

    name: str
    call: Callable[..., Any]
    model: str | None = None
    many: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    retry_on: tuple[type[BaseException], ...] = ()
    limit_s: float | None = None
    version: str | None = None
    _signature: inspect.Signature = field(init=False, repr=False)
    _decoders: dict[str, Decoder] = field(init=False, repr=False)
    _in_order: tuple[tuple[str, Decoder], ...] = field(init=False, repr=False)
    _required: int = field(init=False, repr=False)
    is_async: bool = field(init=False)
    """Whether the function is a coroutine function or an async generator function and so runs on the event loop."""
    is_stream: bool = field(init=False)
    """Whether the function makes items, one after another."""

    def __post_init__(self) -> None:
        signature = inspect.signature(self.call)
        try:
            hints = typing.get_type_hints(self.call, include_extras=True)
        except (NameError, TypeError) as error:
            raise ConfigError(f"the type hints of function {self.name!r} cannot be read: {error}") from error
        decoders = {name: _decoder(hints.get(name, Any), self.name, name) for name in signature.parameters}
        object.__setattr__(self, "_signature", signature)
        object.__setattr__(self, "_decoders", decoders)
        plain = [
            one
            for one in signature.parameters.values()
            if one.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]
        is_plain = len(plain) == len(signature.parameters)
        object.__setattr__(self, "_in_order", tuple((one.name, decoders[one.name]) for one in plain if is_plain))
        required = sum(one.default is inspect.Parameter.empty for one in plain)
        object.__setattr__(self, "_required", required)
        makes_items_async = inspect.isasyncgenfunction(self.call)
        object.__setattr__(self, "is_async", makes_items_async or inspect.iscoroutinefunction(self.call))
        object.__setattr__(self, "is_stream", makes_items_async or inspect.isgeneratorfunction(self.call))

    def arguments(self, args: Sequence[Raw], kwargs: dict[str, Raw]) -> tuple[list[Any], dict[str, Any]]:
        """Return a call's arguments, decoded by the function's type hints.

        Raises
        ------
        InvalidArguments
            If one is missing, too much, or of another type; the message names it.
        """
        if not kwargs and self._required <= len(args) <= len(self._in_order):
            # What nearly every call is, without the cost of binding a signature.
            return [self._decode(one, *by) for one, by in zip(args, self._in_order, strict=False)], {}
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidArguments(f"{self.name}{self._named}: {error}") from error
        for name, value in bound.arguments.items():
            decode = self._decoders[name]
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(self._decode(item, name, decode) for item in value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {key: self._decode(item, key, decode) for key, item in value.items()}
            else:
                bound.arguments[name] = self._decode(value, name, decode)
        return list(bound.args), bound.kwargs

    @property
    def _named(self) -> inspect.Signature:
        # Its annotations may be names that only its own module knows.
        bare = [one.replace(annotation=inspect.Parameter.empty) for one in self._signature.parameters.values()]
        return inspect.Signature(bare)

    def _decode(self, value: Raw, name: str, decode: Decoder) -> Any:  # Any: as the type hint says
        try:
            return decode(value)
        except MemoryError:
            raise
        except Exception as error:  # letters that are no UTF-8, nesting, a number that its type cannot have
            raise InvalidArguments(f"{self.name}: argument {name!r}: {error}") from error


def _decoder(hint: Any, function_name: str, parameter: str) -> Decoder:  # Any: a type hint can be anything
    if hint is Any:
        return _decode_any
    try:
        return msgspec.json.Decoder(hint).decode
    except TypeError as error:
        raise ConfigError(
            f"function {function_name!r}: JSON has no form for parameter {parameter!r} of type {hint}: "
            "use plain types, dataclasses or msgspec.Struct"
        ) from error


class Registry:
    """The functions of one process by name."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}

    def add(self, function: Function) -> None:
        """Add a function.

        Raises
        ------
        ConfigError
            If another one has its name.
        """
        if not 0 < len(function.name) <= _MAX_NAME:
            raise ConfigError(
                f"a function is called {shortened(repr(function.name), 60)}: a name has 1 to {_MAX_NAME} characters"
            )
        if function.name in self._functions:
            raise ConfigError(f"two functions are called {function.name!r}: give one of them another name")
        self._functions[function.name] = function

    def replace_model(self, model: str, functions: Sequence[Function]) -> None:
        """Let these functions, in one assignment, take the place of all that a model answers.

        Raises
        ------
        ConfigError
            If something else has the name of one.
        """
        kept = {name: one for name, one in self._functions.items() if one.model != model}
        for one in functions:
            if one.name in kept:
                raise ConfigError(f"two functions are called {one.name!r}: give one of them another name")
            kept[one.name] = one
        self._functions = kept

    def get(self, name: str) -> Function:
        """Return the function of that name.

        Raises
        ------
        NotOfferedHere
            If there is none.
        """
        try:
            return self._functions[name]
        except KeyError as error:
            raise NotOfferedHere(
                f"no function {name!r} on this node; it offers: {', '.join(sorted(self._functions)) or 'none'}"
            ) from error

    def retry_on(self, name: str) -> tuple[type[BaseException], ...]:
        """Return after which exceptions a function may be tried again; none for a function that is not here."""
        known = self._functions.get(name)
        return () if known is None else known.retry_on

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._functions)

    def __iter__(self) -> Iterator[Function]:
        return iter(self._functions.values())


registered = Registry()
"""What `@function` has registered in this process."""


@overload
def function(call: F) -> F: ...
@overload
def function(
    *, name: str | None = None, retry_on: tuple[type[BaseException], ...] = (), limit_s: float | None = None
) -> Callable[[F], F]: ...
def function(
    call: F | None = None,
    *,
    name: str | None = None,
    retry_on: tuple[type[BaseException], ...] = (),
    limit_s: float | None = None,
) -> F | Callable[[F], F]:
    """Offer a function to callers; every node of a process that imports its module serves it.

    Parameters
    ----------
    call : callable
        The function: synchronous, a coroutine function, or a generator function of either kind, which streams its
        items; arguments and results must have a form in JSON.
    name : str, optional
        What callers name; the function's own name if unset.
    retry_on : tuple of exception classes
        When the function raises one of these, it is run again, after 1, 10 and 60 s and on another node if there is
        one, as it is when an exception says `retriable = True` itself. After any other exception it is not: whether
        it may run twice is for its author to say.
    limit_s : float, optional
        How long it may run, s, before its caller is told `CallTimeout`; of a generator, how long it may take to the
        next item; 0: as long as it likes; unset: as `EASYREMOTE_CALL_LIMIT_S` says.

    Examples
    --------
    >>> @function(name="docs.double")
    ... def double(number: int) -> int:
    ...     return 2 * number
    >>> registered.get("docs.double").arguments([Raw(b"21")], {})
    ([21], {})
    """

    def register(target: F) -> F:
        registered.add(Function(name or target.__name__, target, retry_on=retry_on, limit_s=limit_s))
        return target

    return register if call is None else register(call)
