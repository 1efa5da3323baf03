"""Which models a node of a type holds, and how a user's own are found."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from easyremote.errors import ConfigError
from easyremote.inference.models.base import BaseAIModel

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["default_models", "load_model_class"]


def default_models(settings: Settings) -> list[BaseAIModel]:
    """Return the models of a node of the settings' type, not loaded yet: nlp, vision, or both for general.

    One's own weights replace the default ones by EASYREMOTE_SENTIMENT_MODEL and EASYREMOTE_IMAGE_MODEL.
    """
    from easyremote.inference.models.images import EfficientNetLite0Model, ImageClassificationModel
    from easyremote.inference.models.sentiment import BertSentimentModel

    models: list[BaseAIModel] = []
    if settings.node_type in ("nlp", "general"):
        models.append(BertSentimentModel(settings.sentiment_model, offline=settings.offline))
    if settings.node_type in ("vision", "general"):
        models.append(
            EfficientNetLite0Model()
            if settings.image_model is None
            else ImageClassificationModel(settings.image_model)
        )
    return models


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
