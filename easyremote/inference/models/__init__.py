"""The models: what each is made of, and which of them a node holds by default."""

import os

# Between two passes OpenMP's threads would spin on the cores that the broker and the callers want; docs/performance.md
# says what that costs. It is read once, when torch is imported; so it stands before all else here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from easyremote.inference.models.base import BaseAIModel
from easyremote.inference.models.catalog import load_model_class, models_of

__all__ = ["BaseAIModel", "load_model_class", "models_of"]
