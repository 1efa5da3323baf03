from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from easyremote import BaseAIModel
from easyremote.inference.node import AINodeManager, functions_of
from easyremote.topics.records import ErrorBody
from executing import bench


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


def test_a_call_of_too_many_inputs_is_refused_with_their_number_and_the_limit() -> None:
    with bench([Lengths()]) as one:
        one.node.registry.replace_model("lengths", functions_of(one.node.models[0], 3))
        calls = {
            name: one.put(name, ["text"] * number)
            for name, number in (("batch_text_analysis", 4), ("text_sentiment_analysis", 5))
        }
        replies = one.replies(2)
        errors = [replies[call].error for call in calls.values()]
        for name, number, error in zip(calls, (4, 5), errors, strict=True):
            assert isinstance(error, ErrorBody)
            assert error.type == "InvalidArguments"
            assert error.message == (
                f"{name}: {number} inputs in one call, the limit is 3 (EASYREMOTE_MAX_ITEMS): send several"
            )
        good = one.put("batch_text_analysis", ["four"] * 3)
        assert [each["result"] for each in one.replies(1)[good].result] == [4, 4, 4]


def test_a_batch_is_worked_in_passes_of_the_models_size() -> None:
    class Passes(Lengths):
        max_batch = 10
        passes: ClassVar[list[int]] = []

        def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
            self.passes.append(len(batch))
            return super().inference(batch)

    node = AINodeManager("nlp", [Passes()])
    found = node.registry.get("batch_text_analysis").call(["x" * number for number in range(25)])
    assert [one["result"] for one in found] == list(range(25))
    assert Passes.passes == [10, 10, 5]
