import io
from pathlib import Path

import pytest
import torch
from easyremote.errors import ModelError
from easyremote.inference.models.images import EfficientNetLite0Model, ImageClassificationModel
from PIL import Image
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


def test_resnet_gives_torchvisions_own_logits(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = resnet50().eval()
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    model = ImageClassificationModel(str(path))
    model.ensure_loaded()
    content = _photograph("chelsea")
    ours = model.inference([model.preprocess(content)])[0]
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    with torch.inference_mode():
        theirs = network(ResNet50_Weights.IMAGENET1K_V2.transforms(resize_size=256)(picture)[None])[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_missing_weights_say_what_to_do() -> None:
    with pytest.raises(ModelError, match="state dict"):
        ImageClassificationModel("nowhere.pt").ensure_loaded()
