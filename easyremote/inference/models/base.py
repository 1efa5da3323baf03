"""What every model is: load, preprocess, infer, postprocess; one input at a time or many in one forward pass."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from time import perf_counter
from typing import Any, ClassVar

import structlog

from easyremote.errors import ModelError
from easyremote.topics.causes import message_of, name_of

__all__ = ["BaseAIModel"]

log = structlog.get_logger(__name__)


class BaseAIModel(ABC):
    """A model of a user's own is a subclass with these four methods; the node does the rest.

    Attributes
    ----------
    name : str
        What replies call it.
    version : str
        Which weights these are; every reply names it.
    function : str
        The function by which callers reach it.
    max_batch : int
        Most inputs of one forward pass.
    max_batch_bytes : int
        Most bytes of inputs, as they travel, of one forward pass; a larger input goes alone.
    instances : int
        How many forward passes may run at once, each on a thread of its own; more than one only where several threads
        may be in these methods at once.
    retry_on : tuple of exception classes
        What it may raise and be tried again after, on another node if there is one; as in `easyremote.function`.
    limit_s : float or None
        How long one forward pass may take, s; 0: as long as it likes; None: `EASYREMOTE_CALL_LIMIT_S`.

    Examples
    --------
    >>> class Lengths(BaseAIModel):
    ...     name = "lengths"
    ...     function = "text_length"
    ...
    ...     def load_model(self):
    ...         return len
    ...
    ...     def preprocess(self, input):
    ...         return input.strip()
    ...
    ...     def inference(self, batch):
    ...         return [self.model(text) for text in batch]
    ...
    ...     def postprocess(self, output):
    ...         return output, 1.0
    >>> Lengths().predict(" abc ")["result"]
    3
    """

    name: ClassVar[str]
    function: ClassVar[str]
    version: str = "1"
    max_batch: int = 32
    max_batch_bytes: int = 16 * 1024 * 1024
    instances: int = 1
    retry_on: ClassVar[tuple[type[BaseException], ...]] = ()
    limit_s: float | None = None

    def __init__(self) -> None:
        self.model: Any = None  # Any: what `load_model` returned
        self._lock = threading.Lock()
        self._count = 0
        self._load_s = 0.0
        self._loaded = False

    @abstractmethod
    def load_model(self) -> Any:
        """Return the loaded model, kept as `self.model`; called once, before the first input.

        Raises
        ------
        ModelError
            If its weights are missing; the message says what to do.
        """

    @abstractmethod
    def preprocess(self, input: Any) -> Any:  # noqa: A002  # the contract's word
        """Return one input as the model takes it.

        Raises
        ------
        InvalidInput
            If it is none; the message names what it got.
        """

    def preprocess_many(self, inputs: Sequence[Any]) -> list[Any]:
        """Return each input as `preprocess` does, the exception in place of one that fails.

        A model for which many at once are cheaper than one by one overrides it.
        """
        prepared: list[Any] = []
        for one in inputs:
            try:
                prepared.append(self.preprocess(one))
            except BaseException as error:  # noqa: BLE001  # one input's failure is that input's alone
                prepared.append(error)
        return prepared

    @abstractmethod
    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Return the model's output for each preprocessed input, in one forward pass."""

    @abstractmethod
    def postprocess(self, output: Any) -> tuple[Any, float]:
        """Return one output's result as callers get it, and its confidence from 0 to 1."""

    def batch_key(self, input: Any) -> Hashable:  # noqa: A002  # a model of one's own may look at it
        """Return what inputs must share to go into one forward pass, such as a bucket of lengths or a shape.

        It is asked as each call comes, so it must be quick. By default all inputs go together.
        """
        return None

    def ensure_loaded(self) -> None:
        """Load the model unless it is loaded; other threads wait meanwhile."""
        with self._lock:
            if self._loaded:
                return
            started = perf_counter()
            self.model = self._made()
            self._load_s = perf_counter() - started
            self._loaded = True
            log.info("model loaded", model=self.name, version=self.version, seconds=round(self._load_s, 2))

    def _made(self) -> Any:  # Any: as `load_model`
        try:
            return self.load_model()
        except Exception:
            raise
        except BaseException as error:  # it would end the worker without a word
            raise ModelError(f"{self.name}: load_model raised {name_of(error)}: {message_of(error)}") from error

    def sample_input(self) -> Any:
        """Return an input for a pass before the first caller's; None, as by default: there is no such pass."""
        return None

    def warm_up(self) -> None:
        """Load the model and run one pass, so that the first caller waits for neither.

        Raises
        ------
        Exception
            Whatever the pass raised: this model answers nothing.
        """
        self.ensure_loaded()
        sample = self.sample_input()
        if sample is not None:
            self.predict(sample)

    def predict(self, input: Any) -> dict[str, Any]:  # noqa: A002  # the contract's word
        """Return `{"result", "model_name", "inference_time", "confidence"}` for one input.

        `inference_time` is in s, from the input to the result.

        Raises
        ------
        InvalidInput
            If the model cannot read it.
        """
        outcome = self.predict_each([input])[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def predict_batch(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Return as `predict` does for each input, in one forward pass; `{"error": ...}` in place of one that fails."""
        return [
            {"error": {"type": name_of(outcome), "message": message_of(outcome)}}
            if isinstance(outcome, BaseException)
            else outcome
            for outcome in self.predict_each(inputs)
        ]

    def predict_each(self, inputs: Sequence[Any]) -> list[dict[str, Any] | BaseException]:
        """Return as `predict` does for each input, in one forward pass; the exception in place of one that fails."""
        self.ensure_loaded()
        started = perf_counter()
        outcomes: list[Any] = list(self.preprocess_many(inputs))
        places = [place for place, one in enumerate(outcomes) if not isinstance(one, BaseException)]
        outputs = self.inference([outcomes[place] for place in places]) if places else []
        if len(outputs) != len(places):
            raise ModelError(f"{self.name}: inference gave {len(outputs)} outputs for {len(places)} inputs")
        for place, output in zip(places, outputs, strict=True):
            try:
                result, confidence = self.postprocess(output)
            except BaseException as error:  # noqa: BLE001  # one input's failure is that input's alone
                outcomes[place] = error
            else:
                outcomes[place] = {"result": result, "model_name": self.name, "confidence": confidence}
        took_s = (perf_counter() - started) / max(1, len(places))
        with self._lock:
            self._count += len(places)
        for outcome in outcomes:
            if isinstance(outcome, dict):
                outcome["inference_time"] = took_s
        return outcomes

    def get_stats(self) -> dict[str, Any]:
        """Return `{"model_name", "inference_count", "load_time", "model_loaded"}`; `load_time` in s."""
        return {
            "model_name": self.name,
            "inference_count": self._count,
            "load_time": self._load_s,
            "model_loaded": self._loaded,
        }
