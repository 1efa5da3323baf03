from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from easyremote import BaseAIModel
from easyremote.inference.node import AINodeManager


class Lengths(BaseAIModel):
    """A model of sentiment, as far as its function's name goes."""

    name = "lengths"
    function = "text_sentiment_analysis"

    def load_model(self) -> Any:
        return len

    def preprocess(self, input: Any) -> Any:
        if not isinstance(input, str):
            raise TypeError(f"{input!r} is no text")
        return input

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        return [self.model(text) for text in batch]

    def postprocess(self, output: Any) -> tuple[Any, float]:
        return output, 1.0


def test_a_nodes_status_has_exactly_the_keys_of_the_contract_and_counts_its_calls() -> None:
    node = AINodeManager("nlp", [Lengths()])
    assert node.get_node_status()["loaded_models"] == []
    node.load()
    node.stats.record("text_sentiment_analysis", 0.1, ok=True)
    node.stats.record("text_sentiment_analysis", 0.3, ok=False)
    status = node.get_node_status()
    load_time = status["model_stats"]["lengths"].pop("load_time")
    assert load_time >= 0
    assert status == {
        "node_type": "nlp",
        "loaded_models": ["lengths"],
        "model_stats": {"lengths": {"model_name": "lengths", "inference_count": 0, "model_loaded": True}},
        "request_stats": {
            "total_requests": 2,
            "successful_requests": 1,
            "failed_requests": 1,
            "average_response_time": 0.2,
        },
    }


def test_a_node_offers_the_functions_of_the_contract_and_a_failing_text_keeps_its_place() -> None:
    node = AINodeManager("nlp", [Lengths()])
    assert {one.name for one in node.registry} == {
        "text_sentiment_analysis", "batch_text_analysis", "get_node_status",
    }  # fmt: skip
    function = node.registry.get("batch_text_analysis")
    good, bad = function.call(["four", 5])
    assert (good["result"], good["model_name"]) == (4, "lengths")
    assert bad == {"error": {"type": "TypeError", "message": "5 is no text"}}
