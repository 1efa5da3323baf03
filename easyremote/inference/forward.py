"""One forward pass for many calls: when it fails, halves of it, until the one that makes it fail is alone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from easyremote.errors import ModelError

__all__ = ["run_halving"]


def run_halving(
    run: Callable[[Sequence[Any]], Sequence[Any]],
    arguments: Sequence[Any],
) -> list[Any]:
    """Return the result of each argument, or the exception that is its own.

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
    >>> [str(one) for one in run_halving(root, [4, 0, 9])]
    ['2.0', 'division by zero', '3.0']
    """
    try:
        return _pass(run, arguments)
    except Exception as error:  # noqa: BLE001  # a model may raise anything, and the caller that is to blame is told
        if len(arguments) == 1:
            return [error]
        half = len(arguments) // 2
        return run_halving(run, arguments[:half]) + run_halving(run, arguments[half:])


def _pass(run: Callable[[Sequence[Any]], Sequence[Any]], arguments: Sequence[Any]) -> list[Any]:
    results = list(run(arguments))
    if len(results) != len(arguments):
        raise ModelError(f"a pass gave {len(results)} results for {len(arguments)} inputs")
    return results
