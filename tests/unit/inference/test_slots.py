"""Which version of a model answers, and what orders mean which nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from easyremote import BaseAIModel
from easyremote.errors import ConfigError
from easyremote.inference.functions import Function
from easyremote.inference.node import AINodeManager
from easyremote.inference.slots import Held, Slot
from easyremote.topics.model_control import CONFIGURED, ModelOrder, ModelSource, Orders, Scope


class Echo(BaseAIModel):
    name = "echo"
    function = "echo"

    def load_model(self) -> object:
        return object()

    def preprocess(self, input: Any) -> Any:
        return input

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        return batch

    def postprocess(self, output: Any) -> tuple[Any, float]:
        return output, 1.0

    def sample_input(self) -> str:
        return "sample"


def version(name: str) -> Held:
    model = Echo()
    model.version = name
    model.ensure_loaded()
    return Held(ModelSource(version=name), model)


def test_the_version_before_is_kept_and_one_more_is_not() -> None:
    slot = Slot("echo")
    first, second, third = version("1"), version("2"), version("3")
    for held in (first, second, third):
        slot.swap(held)
    assert slot.find(second.source) is second
    assert slot.find(first.source) is None
    assert (slot.state().version, slot.state().previous) == ("3", "2")


def test_what_failed_is_told_until_something_else_answers() -> None:
    slot = Slot("echo", Echo())
    slot.begin("2")
    slot.fail("ModelError: no weights")
    state = slot.state()
    assert (state.state, state.coming, state.reason, state.version) == ("failed", "2", "ModelError: no weights", "1")
    slot.swap(version("3"))
    assert (slot.state().state, slot.state().reason) == ("ready", None)


def test_warming_up_loads_and_makes_a_pass() -> None:
    model = Echo()
    model.warm_up()
    assert model.get_stats()["model_loaded"]
    assert model.get_stats()["inference_count"] == 1


def test_a_model_takes_no_function_that_something_else_offers() -> None:
    node = AINodeManager("general", functions=[Function("echo", lambda: None)])
    with pytest.raises(ConfigError, match="two functions are called 'echo'"):
        node.offer(Echo())
    assert node.registry.get("echo").model is None


def test_the_last_order_that_means_a_node_holds_and_taking_it_back_brings_the_one_before() -> None:
    orders = Orders()
    everywhere = ModelOrder(id="1", model="echo", wanted=ModelSource(version="2"))
    here = ModelOrder(id="2", model="echo", wanted=CONFIGURED, scope=Scope(node="a"))
    for one in (everywhere, here):
        orders.add(one.key, one)
    assert orders.meant_for("a", "general", "general")["echo"].id == "2"
    assert orders.meant_for("b", "general", "general")["echo"].id == "1"
    assert orders.covering("echo", Scope(node="a")) is here
    assert orders.covering("echo", Scope()) is everywhere
    orders.add(here.key, None)
    assert orders.meant_for("a", "general", "general")["echo"].id == "1"


def test_the_order_that_holds_again_after_a_failed_one_is_settled_and_the_failure_still_told() -> None:
    slot = Slot("echo", Echo())
    slot.swap(version("2"))
    slot.settle("first")
    slot.begin("3")
    slot.fail("ModelError: no weights")
    slot.settle("second")
    assert slot.is_settled("second")
    assert slot.is_settled("first")
    assert not slot.is_settled("third")
    assert slot.state().state == "failed"
