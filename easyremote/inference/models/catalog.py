"""How a node's models are found by their names."""

from __future__ import annotations

import importlib

from easyremote.errors import ConfigError
from easyremote.inference.models.base import BaseAIModel

__all__ = ["load_model_class"]


def load_model_class(path: str) -> type[BaseAIModel]:
    """Return the model class that `module:Class` names.

    Raises
    ------
    ConfigError
        If the module cannot be imported or has no such model class.
    """
    module_name, _, class_name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"EASYREMOTE_MODELS={path}: write module:Class, importable here ({error})") from error
    if not (isinstance(found, type) and issubclass(found, BaseAIModel)):
        raise ConfigError(f"EASYREMOTE_MODELS={path}: {found!r} is no subclass of BaseAIModel")
    return found
