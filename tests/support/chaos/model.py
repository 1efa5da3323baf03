"""A model that costs nothing and says which version of it answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from easyremote import BaseAIModel


class ChaosModel(BaseAIModel):
    """Answers with its tag, which an order gives; `configured` is what the node's settings name.

    Parameters
    ----------
    tag : str
        What it answers with: the version that the order names too.
    """

    name = "chaos"
    function = "which"
    version = "configured"

    def __init__(self, tag: str = "configured") -> None:
        super().__init__()
        self._tag = tag

    def load_model(self) -> str:
        time.sleep(0.05)  # as weights take: calls come meanwhile
        return self._tag

    def preprocess(self, input: Any) -> Any:
        return input

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        return [{"call": call, "tag": self.model} for call in batch]

    def postprocess(self, output: Any) -> tuple[Any, float]:
        return output, 1.0

    def sample_input(self) -> str:
        return "sample"
