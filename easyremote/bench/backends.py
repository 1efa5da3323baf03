"""What computes the models, compared: how right each back end is, how near to torch, how fast."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from easyremote.bench.bare import BareModel, Kind, inputs
from easyremote.bench.report import Report, step
from easyremote.bench.tweets import held_out
from easyremote.inference.models.images import EfficientNetLite0Model
from easyremote.inference.models.sentiment import BertSentimentModel
from easyremote.settings import Backend

__all__ = ["main"]

_TURNS = 3
_BATCHES = (1, 8, 32)
_MODELS: dict[Kind, type[BertSentimentModel | EfficientNetLite0Model]] = {
    "sentiment": BertSentimentModel,
    "image": EfficientNetLite0Model,
}


def main(json_file: Path | None, seconds: float) -> None:
    """Measure each back end of each model that comes along, print, and write."""
    report = Report()
    rows = held_out()
    _compare(report, "sentiment", [text for text, _ in rows], [label for _, label in rows])
    _compare(report, "image", inputs("image", 8), None)
    for kind in _MODELS:
        _time(report, kind, seconds / _TURNS)
    report.finish(json_file)


def _compare(report: Report, kind: Kind, given: list[str], labels: Sequence[int] | None) -> None:
    logits = {backend: _logits(kind, backend, given) for backend in _MODELS[kind].backends}
    for backend, found in logits.items():
        best = found.argmax(1)
        name = f"{kind}_{backend}"
        if labels is not None:
            report.add(f"{name}_accuracy", float((best == np.asarray(labels)).mean()) * 100, f"% of {len(labels)}")
        if backend != "torch":
            same = float((best == logits["torch"].argmax(1)).mean())
            report.add(f"{name}_same_label", same * 100, f"% of {len(given)}")
            report.add(
                f"{name}_largest_difference_1e6", float(np.abs(found - logits["torch"]).max()) * 1e6, "logit/1e6"
            )


def _logits(kind: Kind, backend: Backend, given: list[str]) -> NDArray[np.float32]:
    model: Any = _MODELS[kind](backend=backend)  # Any: what they give is logits, of one type or another
    with step(f"{kind}: loading {backend}"):
        model.ensure_loaded()
    with step(f"{kind}: asking {backend} {len(given)} times"):
        return np.stack([np.asarray(one) for one in model.inference(model.preprocess_many(given))])


def _time(report: Report, kind: Kind, seconds: float) -> None:
    backends = _MODELS[kind].backends
    with ExitStack() as stack, step(f"{kind}: timing {', '.join(backends)} in turns"):
        models = {backend: stack.enter_context(closing(BareModel(kind, backend))) for backend in backends}
        for model in models.values():
            model.run(max(_BATCHES), seconds)
        turns = [
            {(backend, batch): models[backend].run(batch, seconds)[0] for batch in _BATCHES for backend in backends}
            for _ in range(_TURNS)
        ]
    for backend in backends:
        for batch in _BATCHES:
            rate = statistics.median(turn[backend, batch] for turn in turns)
            report.add(f"{kind}_{backend}_batch_{batch}", rate, "items/s")
            if backend != "torch":
                report.ratios[f"{kind}_{backend}_to_torch_batch_{batch}"] = statistics.median(
                    turn[backend, batch] / turn["torch", batch] for turn in turns
                )
