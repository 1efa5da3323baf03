"""Which models a node holds: its type's defaults, which work offline, or what the settings name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import structlog

from easyremote.errors import ConfigError
from easyremote.inference.models.backends import HasBackends, nearest_backend
from easyremote.inference.models.base import BaseAIModel

if TYPE_CHECKING:
    from easyremote.settings import Backend, Settings

__all__ = ["load_model_class", "make_model", "models_of", "orderable_classes"]

log = structlog.get_logger(__name__)

_CLASS_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_SHIPPED = (
    "easyremote.inference.models.sentiment:BertSentimentModel",
    "easyremote.inference.models.images:EfficientNetLite0Model",
    "easyremote.inference.models.images:ImageClassificationModel",
)
_SENTIMENT = ("nlp", "general")
_IMAGES = ("vision", "general")


def models_of(settings: Settings) -> list[BaseAIModel]:
    """Return the models of a node, not loaded yet.

    Raises
    ------
    ConfigError
        If a setting names no model.
    """
    if settings.models is not None:
        return [load_model_class(path, "EASYREMOTE_MODELS")() for path in settings.models]
    if importlib.util.find_spec("torch") is None:
        log.warning("no models: torch is not installed", remedy="pip install 'easyremote-kafka[inference]'")
        return []
    models = []
    if settings.node_type in _SENTIMENT:
        models.append(_sentiment(settings.sentiment_model, settings.backend))
    if settings.node_type in _IMAGES:
        models.append(_images(settings.image_model, settings.backend))
    return models


def orderable_classes(settings: Settings) -> tuple[str, ...]:
    """Return the classes that an order on `models` may name: those of the settings, and those that come along."""
    named = [one for one in (settings.sentiment_model, settings.image_model) if one and _CLASS_PATH.fullmatch(one)]
    return tuple(dict.fromkeys((*(settings.models or ()), *named, *settings.model_classes, *_SHIPPED)))


def load_model_class(path: str, setting: str) -> type[BaseAIModel]:
    """Return the model class that `module:Class` names; `setting` is where that was said.

    Raises
    ------
    ConfigError
        If the module cannot be imported or has no such model class.
    """
    module_name, _, class_name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{setting}={path}: write module:Class, importable here ({error})") from error
    if not (isinstance(found, type) and issubclass(found, BaseAIModel)):
        raise ConfigError(f"{setting}={path}: {found!r} is no subclass of BaseAIModel")
    return found


def make_model(
    kind: type[BaseAIModel],
    weights: str | None,
    params: Mapping[str, Any],  # Any: as the class takes them
    backend: Backend,
) -> BaseAIModel:
    """Return a model of a class; where the class has a choice and `params` say nothing, `backend` computes it."""
    given = dict(params)
    if hasattr(kind, "backends") and "backend" in inspect.signature(kind).parameters:
        given.setdefault("backend", nearest_backend(cast(type[HasBackends], kind), backend))
    return kind(*(() if weights is None else (weights,)), **given)


def _sentiment(named: str | None, backend: Backend) -> BaseAIModel:
    from easyremote.inference.models.sentiment import BertSentimentModel

    if named is not None and _CLASS_PATH.fullmatch(named):
        return load_model_class(named, "EASYREMOTE_SENTIMENT_MODEL")()
    return BertSentimentModel(named, nearest_backend(BertSentimentModel, backend))


def _images(named: str | None, backend: Backend) -> BaseAIModel:
    from easyremote.inference.models.images import EfficientNetLite0Model, ImageClassificationModel

    if named is None:
        return EfficientNetLite0Model(backend=nearest_backend(EfficientNetLite0Model, backend))
    if _CLASS_PATH.fullmatch(named):
        return load_model_class(named, "EASYREMOTE_IMAGE_MODEL")()
    return ImageClassificationModel(named, nearest_backend(ImageClassificationModel, backend))
