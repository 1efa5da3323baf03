"""A model that says which version of it answered, and its versions that fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from easyremote import BaseAIModel
from easyremote.errors import ModelError


class Versioned(BaseAIModel):
    """Answers with its version."""

    name = "versioned"
    function = "which_version"
    version = "configured"

    def load_model(self) -> str:
        return "weights"

    def preprocess(self, input: Any) -> Any:
        return input

    def inference(self, batch: Sequence[Any]) -> Sequence[str]:
        if self.model != "weights":
            raise ModelError("half loaded")
        return [self.version for _ in batch]

    def postprocess(self, output: str) -> tuple[str, float]:
        return output, 1.0

    def sample_input(self) -> str:
        return "sample"


class NoWeights(Versioned):
    """Cannot be loaded."""

    def load_model(self) -> str:
        raise ModelError("its weights are missing")


class FailsCold(Versioned):
    """Loads, and fails at its first pass."""

    def inference(self, batch: Sequence[Any]) -> Sequence[str]:
        raise ModelError("its first pass failed")


class Another(Versioned):
    """Another model, which no node holds at its start."""

    name = "another"
    function = "which_other"
