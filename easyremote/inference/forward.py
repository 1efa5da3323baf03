"""One forward pass for many calls: when it fails, halves of it, until the one that makes it fail is alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from easyremote.errors import ModelError

__all__ = ["Poison", "run_halving"]


@dataclass(frozen=True)
class Poison:
    """The error of an argument that made every pass fail that it was in, while others succeeded without it."""

    error: BaseException


def run_halving(run: Callable[[Sequence[Any]], Sequence[Any]], arguments: Sequence[Any]) -> list[Any]:
    """Return the result of each argument, or the exception that is its own, or `Poison`.

    A batch that raises is halved. Each result comes from exactly one pass that succeeded; before it, an argument that
    is not to blame has been in at most log2 of their number, rounded up, that failed.

    Parameters
    ----------
    run : callable
        Works a batch: as many results as arguments, in their order; an exception among them is that argument's own.
    arguments : sequence
        Of the calls.

    Examples
    --------
    >>> def root(batch): return [number**0.5 if number else 1 / number for number in batch]
    >>> run_halving(root, [4, 0, 9])
    [2.0, Poison(error=ZeroDivisionError('division by zero')), 3.0]
    """
    results = _halved(run, arguments)
    if all(isinstance(one, Poison) for one in results):
        return [one.error for one in results]  # nothing succeeds, so it is not for the arguments
    return results


def _halved(run: Callable[[Sequence[Any]], Sequence[Any]], arguments: Sequence[Any]) -> list[Any]:
    try:
        return _pass(run, arguments)
    except BaseException as error:  # noqa: BLE001  # a model may raise anything, and the caller to blame is told
        if len(arguments) == 1:
            return [Poison(error)]
    half = len(arguments) // 2
    return _halved(run, arguments[:half]) + _halved(run, arguments[half:])


def _pass(run: Callable[[Sequence[Any]], Sequence[Any]], arguments: Sequence[Any]) -> list[Any]:
    results = list(run(arguments))
    if len(results) != len(arguments):
        raise ModelError(f"a pass gave {len(results)} results for {len(arguments)} inputs")
    return results
