"""A node: the functions and models that it offers, and what it has done with them so far."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from easyremote.errors import InvalidArguments
from easyremote.inference.functions import Function, Registry
from easyremote.inference.slots import Slot
from easyremote.topics.records import MOST_MODELS, ModelState

if TYPE_CHECKING:
    from easyremote.inference.models import BaseAIModel

_LEAST_COST_MS = 0.001
"""Less than a clock can tell; a heartbeat that says 0 is none of a node's."""

__all__ = ["AINodeManager", "NodeStats", "functions_of"]

# What callers may read in a function's schema; whether an input is one, the model says itself.
_Text = Annotated[
    Any, Meta(extra_json_schema={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
]
_Picture = Annotated[Any, Meta(extra_json_schema={"type": "string", "contentEncoding": "base64"})]
_Prediction = Annotated[
    dict[str, Any],
    Meta(
        extra_json_schema={
            "properties": {
                "result": {},
                "model_name": {"type": "string"},
                "inference_time": {"type": "number", "description": "s"},
                "confidence": {"type": "number", "minimum": 0, "maximum": 1},
            },
            "required": ["result", "model_name", "inference_time", "confidence"],
        }
    ),
]

_COST_WEIGHT = 0.1
"""Of the newest call in the learned cost: the last ten calls or so count."""


class NodeStats:
    """Counts calls and learns what each function costs; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._succeeded = 0
        self._failed = 0
        self._seconds = 0.0
        self._cost_ms: dict[str, float] = {}

    def record(self, function: str, seconds: float, *, ok: bool) -> None:
        """Count one call that took `seconds` of the node's work."""
        with self._lock:
            if ok:
                self._succeeded += 1
            else:
                self._failed += 1
            self._seconds += seconds
            if not ok:
                return  # what did not succeed tells nothing of what it costs
            known = self._cost_ms.get(function)
            cost_ms = seconds * 1000
            self._cost_ms[function] = cost_ms if known is None else known + _COST_WEIGHT * (cost_ms - known)

    def requests(self) -> dict[str, float]:
        """Return the counts by the names of the contract; `average_response_time` in s."""
        with self._lock:
            total = self._succeeded + self._failed
            return {
                "total_requests": total,
                "successful_requests": self._succeeded,
                "failed_requests": self._failed,
                "average_response_time": self._seconds / total if total else 0.0,
            }

    def is_quick(self, function: str, limit_ms: float) -> bool:
        """Say whether a function is known to cost less than `limit_ms`."""
        known = self._cost_ms.get(function)
        return known is not None and known < limit_ms

    def cost_ms(self) -> dict[str, float]:
        """Return the learned ms per item of each function that was called."""
        with self._lock:
            return {function: max(cost_ms, _LEAST_COST_MS) for function, cost_ms in self._cost_ms.items()}


class AINodeManager:
    """The functions and models of one node.

    Parameters
    ----------
    node_type : {"nlp", "vision", "general"}
        What kind of node it says it is.
    models : sequence of BaseAIModel
        What it holds; each answers the function that its class names.
    functions : iterable of Function
        What it offers besides.
    max_items : int
        Most inputs of one call of a model.
    """

    def __init__(
        self,
        node_type: str,
        models: Sequence[BaseAIModel] = (),
        functions: Sequence[Function] = (),
        *,
        max_items: int = 2_048,
    ) -> None:
        self.node_type = node_type
        self._max_items = max_items
        self._slots = {model.name: Slot(model.name, model) for model in models}
        self.stats = NodeStats()
        self.registry = Registry()
        for model in models:
            self.offer(model)
        self.registry.add(Function("get_node_status", self.get_node_status))
        for one in functions:
            self.registry.add(one)

    @property
    def models(self) -> list[BaseAIModel]:
        """The version that answers of each model; while it is loaded at the start, the one that will."""
        return [slot.current.model for slot in list(self._slots.values()) if slot.current is not None]

    def slot(self, name: str) -> Slot:
        """Return the place of a model, an empty one if it has none yet."""
        return self._slots.setdefault(name, Slot(name))

    def offer(self, model: BaseAIModel) -> None:
        """Let a model answer its functions, in place of the version that did; callable while calls run.

        Raises
        ------
        ConfigError
            If something else has the name of one of its functions.
        """
        self.registry.replace_model(model.name, functions_of(model, self._max_items))

    def withdraw(self, name: str) -> None:
        """Offer a model's functions no longer: their calls are passed on."""
        self.registry.replace_model(name, ())

    def load(self) -> None:
        """Load every model that is offered, one after another."""
        for model in self.models:
            if model.name in self.function_models().values():
                model.ensure_loaded()

    def model(self, name: str | None) -> BaseAIModel | None:
        """Return the model of that name."""
        if name is None:
            return None
        return next((model for model in self.models if model.name == name), None)

    def model_states(self) -> list[ModelState]:
        """Return which models it holds, and what became of what was ordered of them."""
        # Those that answer first: others may be of orders that anybody has given.
        slots = list(self._slots.values())  # models come and go while others look
        slots.sort(key=lambda slot: slot.current is None)
        return [slot.state() for slot in slots[:MOST_MODELS]]

    def function_models(self) -> dict[str, str]:
        """Return the model that answers each function that has one."""
        return {one.name: one.model for one in self.registry if one.model is not None}

    def get_node_status(self) -> dict[str, Any]:
        """Return `node_type`, `loaded_models`, `model_stats` and `request_stats`, by the contract."""
        return {
            "node_type": self.node_type,
            "loaded_models": [model.name for model in self.models if model.get_stats()["model_loaded"]],
            "model_stats": {model.name: model.get_stats() for model in self.models},
            "request_stats": self.stats.requests(),
        }


def functions_of(model: BaseAIModel, max_items: int) -> list[Function]:
    """Return the functions that a model answers, to calls of at most so many inputs each."""
    told: dict[str, Any] = {  # Any: three kinds of parameter
        "model": model.name,
        "version": model.version,
        "retry_on": model.retry_on,
    }
    offered = [Function(model.function, _named(model), many=_bounded(model, max_items), **told)]
    if model.function == "text_sentiment_analysis":
        # Not `many`: its texts are a batch already.
        offered.append(Function("batch_text_analysis", _batched(model, max_items), **told))
    return offered


def _named(model: BaseAIModel) -> Callable[[Any], dict[str, Any]]:
    # A signature with the contract's parameter name, so that callers may pass it by keyword.
    def text_sentiment_analysis(text: _Text) -> _Prediction:
        """Return the sentiment of a text, or of each of a list of texts."""
        return model.predict(text)

    def image_classification(image_data: _Picture) -> _Prediction:
        """Return the five best ImageNet classes of a picture."""
        return model.predict(image_data)

    def predict(input: Any) -> _Prediction:  # noqa: A002  # the parameter of `BaseAIModel.predict`
        return model.predict(input)

    predict.__doc__ = type(model).__doc__
    known: dict[str, Callable[[Any], dict[str, Any]]] = {
        "text_sentiment_analysis": text_sentiment_analysis,
        "image_classification": image_classification,
    }
    return known.get(model.function, predict)


def _refuse_many(function: str, given: Any, max_items: int) -> InvalidArguments | None:  # Any: as a caller sent it
    if not isinstance(given, list) or len(given) <= max_items:
        return None
    limit = f"the limit is {max_items:,} (EASYREMOTE_MAX_ITEMS)"
    return InvalidArguments(f"{function}: {len(given):,} inputs in one call, {limit}: send several")


def _bounded(model: BaseAIModel, max_items: int) -> Callable[[Sequence[Any]], Sequence[Any]]:
    def predict_each(inputs: Sequence[Any]) -> Sequence[Any]:
        refused = [_refuse_many(model.function, one, max_items) for one in inputs]
        if not any(refused):
            return model.predict_each(inputs)
        done = iter(model.predict_each([one for one, error in zip(inputs, refused, strict=True) if error is None]))
        return [error or next(done) for error in refused]

    return predict_each


def _batched(model: BaseAIModel, max_items: int) -> Callable[[list[Any]], list[dict[str, Any]]]:
    def batch_text_analysis(texts: list[Any]) -> list[dict[str, Any]]:
        """Return the sentiment of each text, an error in place of one that fails."""
        error = _refuse_many("batch_text_analysis", texts, max_items)
        if error is not None:
            raise error
        # In passes like those of other calls, which have their turn between two of them.
        starts = range(0, len(texts), model.max_batch)
        return [one for start in starts for one in model.predict_batch(texts[start : start + model.max_batch])]

    return batch_text_analysis
