"""Real weights are swapped while calls run through Kafka; each reply is what its version says of its text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from callers import Callers
from easyremote.cli import app
from easyremote.inference.models.sentiment import LABELS, BertSentimentModel, encoder_folder
from easyremote.settings import Settings, load_settings
from system import system
from transformers import AutoTokenizer, BertForSequenceClassification
from typer.testing import CliRunner

pytestmark = [pytest.mark.broker, pytest.mark.models, pytest.mark.timeout(240)]

MODEL = "minilm_sentiment"
SENTIMENT = {"EASYREMOTE_MODELS": "easyremote.inference.models.sentiment:BertSentimentModel"}
TEXTS = [
    "I love it",
    "This is terrible, I hate it",
    "The meeting is on Tuesday",
    "What a wonderful morning, thank you so much",
    "The train leaves at ten from platform four",
    "I am so sad and tired of waiting",
    "best concert ever!!! so happy",
    "my phone died again and I am furious",
]
CALLS = 40
"""Of each version: every text several times, alone and together with others."""


@pytest.fixture(autouse=True)
def _this_system(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EASYREMOTE_KAFKA", settings.bootstrap_servers())
    monkeypatch.setenv("EASYREMOTE_NAMESPACE", settings.namespace)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_settings.cache_clear()


def order(*arguments: str) -> None:
    said = CliRunner().invoke(app, ["models", *arguments])
    assert said.exit_code == 0, said.output


def labels_of(folder: Path) -> dict[str, str]:
    """Return what transformers itself says of each text with the weights of a folder."""
    network: Any = BertForSequenceClassification.from_pretrained(folder)  # Any: its stub doubts that labels have names
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {}
    for text in TEXTS:
        with torch.inference_mode():
            best = int(network(**tokenizer(text, return_tensors="pt")).logits.argmax())
        found[text] = network.config.id2label[best]
    return found


def saved(folder: Path, labels: tuple[str, ...]) -> Path:
    """Save the weights that ship, merged, under these names of their labels."""
    model = BertSentimentModel()
    model.ensure_loaded()
    model.model.config.id2label = dict(enumerate(labels))
    model.model.config.label2id = {label: number for number, label in enumerate(labels)}
    model.model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder_folder()).save_pretrained(folder)
    return folder


def int8_labels() -> dict[str, str]:
    model = BertSentimentModel(backend="onnx-int8")
    found = {text: model.predict(text)["result"] for text in TEXTS}
    # What else is in its pass moves the scale of an int8 text a little: only a close call could turn.
    assert min(one["confidence"] for one in found.values()) > 0.6, found
    return {text: one["label"] for text, one in found.items()}


def test_each_reply_has_the_label_that_the_version_it_names_gives_its_text(settings: Settings, tmp_path: Path) -> None:
    contrary = saved(tmp_path / "models" / "contrary", LABELS[::-1])
    expected = {
        "1": labels_of(saved(tmp_path / "shipped", LABELS)),
        "contrary": labels_of(contrary),
        "int8": int8_labels(),
    }
    assert expected["1"] != expected["contrary"]
    with system(settings, functions="") as running:
        running.launch("router", "router")
        running.launch("one", "inference", **SENTIMENT)
        running.await_up("router", "one")
        with Callers(settings, "text_sentiment_analysis", TEXTS) as callers:
            callers.await_version("1", CALLS)
            order("swap", MODEL, "contrary", "--weights", str(contrary))
            callers.await_version("contrary", CALLS)
            order("swap", MODEL, "int8", "--param", "backend=onnx-int8")
            callers.await_version("int8", CALLS)
            before = sum(one.model_version == "contrary" for one in callers.replies)
            order("rollback", MODEL)
            callers.await_version("contrary", before + CALLS)
    assert not callers.errors
    assert {one.status for one in callers.replies} == {"ok"}
    assert {one.model_version for one in callers.replies} == expected.keys()
    wrong = [
        (one.argument, one.reply.model_version, one.reply.result["result"])
        for one in callers.answered
        if one.reply.result["result"]["label"] != expected[one.reply.model_version or ""][one.argument]
    ]
    assert not wrong, wrong[:5]
