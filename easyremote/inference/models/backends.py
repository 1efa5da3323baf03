"""What computes a model: torch, or ONNX Runtime where the model offers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

import structlog

from easyremote.errors import ConfigError

if TYPE_CHECKING:
    from easyremote.settings import Backend

__all__ = ["HasBackends", "checked_backend", "nearest_backend"]

log = structlog.get_logger(__name__)

_NEXT: dict[Backend, Backend] = {"onnx-int8": "onnx", "onnx": "torch"}
"""What a model takes that lacks one."""


class HasBackends(Protocol):
    """A model's class that says what can compute it."""

    name: ClassVar[str]
    backends: ClassVar[tuple[Backend, ...]]


def checked_backend(model: type[HasBackends], backend: Backend) -> Backend:
    """Return the back end if the model has it.

    Raises
    ------
    ConfigError
        If it has not.
    """
    if backend not in model.backends:
        raise ConfigError(f"{model.name} has no back end {backend!r}: take one of {', '.join(model.backends)}")
    return backend


def nearest_backend(model: type[HasBackends], wanted: Backend) -> Backend:
    """Return the back end that a node's setting means for this model: the wanted one, or the next that it has.

    Examples
    --------
    >>> class Pictures:
    ...     name = "pictures"
    ...     backends = ("torch", "onnx")
    >>> nearest_backend(Pictures, "onnx-int8")
    'onnx'
    """
    found = wanted
    while found not in model.backends:
        found = _NEXT[found]
    if found != wanted:
        log.info("a model lacks the back end and takes the next", model=model.name, wanted=wanted, takes=found)
    return found
