"""A model whose inputs say what becomes of it, for tests of what one input does to the others.

An input is `{"journal", "call", "mood"}`; the mood is `good`, `poison` (its pass raises), `hangs` (its pass never ends)
or the path of a gate, which its pass waits for.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easyremote import BaseAIModel
from marking import note

GOOD, POISON, HANGS = "good", "poison", "hangs"
FULL_BATCH = 64
GATE_S = 60.0


class MoodyModel(BaseAIModel):
    """Answers each input with its own name and the size of its pass."""

    name = "moody"
    function = "mood"
    max_batch = FULL_BATCH
    limit_s = float(os.environ.get("MOODY_LIMIT_S", "0"))

    def load_model(self) -> Any:
        return None

    def preprocess(self, input: Any) -> Any:
        return input

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        for one in batch:
            note(one["journal"], one["call"])
        for one in batch:
            _live_through(one["mood"])
        return [{"call": one["call"], "pass_size": len(batch)} for one in batch]

    def postprocess(self, output: Any) -> tuple[Any, float]:
        return output, 1.0


def _live_through(mood: str) -> None:
    if mood == POISON:
        raise ValueError("this input is poison")
    if mood == HANGS:
        threading.Event().wait()
    if mood != GOOD:
        deadline = time.monotonic() + GATE_S
        while not Path(mood).exists() and time.monotonic() < deadline:
            time.sleep(0.01)  # a file tells nobody that it came
