"""What every model promises, held with a model of one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import pytest
from easyremote import BaseAIModel
from easyremote.errors import InvalidInput, ModelError
from easyremote.inference.models.catalog import make_model
from easyremote.settings import Backend


class Doubled(BaseAIModel):
    name: ClassVar[str] = "doubled"
    function: ClassVar[str] = "double"

    def __init__(self) -> None:
        super().__init__()
        self.loads = 0
        self.passes: list[int] = []

    def load_model(self) -> Any:
        self.loads += 1
        return lambda number: 2 * number

    def preprocess(self, input: Any) -> Any:
        if not isinstance(input, int):
            raise InvalidInput(f"doubled takes a whole number, not {type(input).__name__}")
        return input

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        self.passes.append(len(batch))
        return [self.model(number) for number in batch]

    def postprocess(self, output: Any) -> tuple[Any, float]:
        return output, 1 / 0 if output == 26 else 1.0


def test_predict_has_exactly_the_keys_of_the_contract() -> None:
    model = Doubled()
    outcome = model.predict(4)
    assert outcome.pop("inference_time") >= 0
    assert outcome == {"result": 8, "model_name": "doubled", "confidence": 1.0}


def test_a_batch_is_one_forward_pass_of_the_good_inputs_and_keeps_each_ones_error() -> None:
    model = Doubled()
    outcomes = model.predict_batch([1, "two", 3, None, 13, 5])
    assert model.passes == [4]
    assert [one.get("result") for one in outcomes] == [2, None, 6, None, None, 10]
    assert outcomes[1] == {"error": {"type": "InvalidInput", "message": "doubled takes a whole number, not str"}}
    assert outcomes[3]["error"]["message"] == "doubled takes a whole number, not NoneType"
    assert outcomes[4]["error"]["type"] == "ZeroDivisionError"


def test_a_batch_without_a_good_input_runs_no_forward_pass() -> None:
    model = Doubled()
    assert [set(one) for one in model.predict_batch(["a", "b"])] == [{"error"}, {"error"}]
    assert model.predict_batch([]) == []
    assert model.passes == []


def test_stats_count_inputs_and_say_when_the_model_is_loaded() -> None:
    model = Doubled()
    assert model.get_stats() == {
        "model_name": "doubled",
        "inference_count": 0,
        "load_time": 0.0,
        "model_loaded": False,
    }
    model.predict(1)
    model.predict_batch([1, 2, "three"])
    stats = model.get_stats()
    assert stats.pop("load_time") > 0
    assert stats == {"model_name": "doubled", "inference_count": 3, "model_loaded": True}
    assert model.loads == 1


def test_a_model_that_loses_an_output_is_an_error_and_mixes_nobodys_up() -> None:
    class Lossy(Doubled):
        def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
            return super().inference(batch)[1:]

    with pytest.raises(ModelError, match="gave 1 outputs for 2 inputs"):
        Lossy().predict_batch([1, 2])


class Computed(Doubled):
    backends: ClassVar[tuple[Backend, ...]] = ("torch", "onnx")

    def __init__(self, weights: str | None = None, backend: Backend = "torch") -> None:
        super().__init__()
        self.made_of = (weights, backend)


def test_another_version_is_computed_as_the_settings_say_unless_its_arguments_do() -> None:
    def made_of(params: dict[str, Any]) -> tuple[str | None, Backend]:
        return cast(Computed, make_model(Computed, "weights", params, "onnx-int8")).made_of

    assert made_of({}) == ("weights", "onnx")
    assert made_of({"backend": "torch"}) == ("weights", "torch")
    assert isinstance(make_model(Doubled, None, {}, "onnx"), Doubled)
