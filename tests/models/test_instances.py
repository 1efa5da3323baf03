from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from easyremote.bench.bare import Kind, inputs
from easyremote.inference.models import BaseAIModel
from easyremote.inference.models.images import EfficientNetLite0Model
from easyremote.inference.models.sentiment import BertSentimentModel

pytestmark = pytest.mark.models


@pytest.mark.parametrize(("kind", "made"), [("sentiment", BertSentimentModel), ("image", EfficientNetLite0Model)])
def test_passes_at_once_give_what_one_alone_gives(kind: Kind, made: type[BaseAIModel]) -> None:
    model = made()
    given = inputs(kind)[:48]
    batches = [given[start : start + 4] for start in range(0, len(given), 4)]
    alone = [_results(model, batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(lambda batch: _results(model, batch), batches))
    for one, other in zip(alone, at_once, strict=True):
        assert [name for name, _ in one] == [name for name, _ in other]
        assert [sure for _, sure in one] == pytest.approx([sure for _, sure in other], abs=1e-5)


def _results(model: BaseAIModel, batch: Sequence[str]) -> list[tuple[Any, float]]:
    best = (outcome["result"] for outcome in model.predict_batch(batch))
    return [
        (one["label"], one["confidence"]) if isinstance(one, dict) else (one[0]["class_id"], one[0]["probability"])
        for one in best
    ]
