"""The models: what each is made of, and which of them a node holds by default."""

from easyremote.inference.models.base import BaseAIModel
from easyremote.inference.models.catalog import load_model_class, models_of

__all__ = ["BaseAIModel", "load_model_class", "models_of"]
