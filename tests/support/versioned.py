"""A model that says which version of it answered, and its versions that fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easyremote import BaseAIModel
from easyremote.errors import ModelError

LOAD_S = 0.05
"""As weights take: long enough for calls to come meanwhile."""
PASS_S = 0.005
"""As a pass takes: long enough for a swap to find one under way."""


class Versioned(BaseAIModel):
    """Answers with its version."""

    name = "versioned"
    function = "which_version"
    version = "configured"

    warm = False

    def load_model(self) -> str:
        time.sleep(LOAD_S)
        return "weights"

    def preprocess(self, input: Any) -> Any:
        return input

    def inference(self, batch: Sequence[Any]) -> Sequence[str]:
        if self.model != "weights":
            raise ModelError("half loaded")
        self.warm = self.warm or list(batch) == [self.sample_input()]
        if not self.warm and self.version != "configured":  # those are loaded before calls come
            raise ModelError("a call came before the first pass")
        time.sleep(PASS_S)
        return [self.version for _ in batch]

    def postprocess(self, output: str) -> tuple[str, float]:
        return output, 1.0

    def sample_input(self) -> str:
        return "sample"


class Gated(Versioned):
    """Is loaded when somebody writes into the gate, which is a FIFO."""

    def __init__(self, gate: str) -> None:
        super().__init__()
        self._gate = Path(gate)

    def load_model(self) -> str:
        self._gate.read_text()
        return super().load_model()


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
