"""Which models a node holds: its type's defaults, which work offline, or what the settings name."""

from __future__ import annotations

import importlib
import importlib.util
import re
from typing import TYPE_CHECKING

import structlog

from easyremote.errors import ConfigError
from easyremote.inference.models.backends import nearest_backend
from easyremote.inference.models.base import BaseAIModel

if TYPE_CHECKING:
    from easyremote.settings import Backend, Settings

__all__ = ["load_model_class", "models_of"]

log = structlog.get_logger(__name__)

_CLASS_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
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
