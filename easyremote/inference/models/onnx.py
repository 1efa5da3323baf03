"""ONNX Runtime in torch's place: a network is exported at its first use, and found again in the user's cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import structlog

from easyremote.errors import ModelError
from easyremote.inference.models.devices import pass_threads
from easyremote.settings import user_cache_dir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Export", "OnnxNetwork", "onnx_network"]

log = structlog.get_logger(__name__)

_PACKAGES = ("onnx", "onnxruntime")
_OPSET = 17
_FORMAT = "1"
"""Of what this module makes: another number makes every file anew."""


@dataclass(frozen=True)
class Export:
    """A network of torch, and what its exporter must know.

    Parameters
    ----------
    name : str
        Of the model; the cached files begin with it.
    network : torch.nn.Module
        In evaluation mode, on the CPU, with its weights; its forward gives one tensor.
    example : dict
        Tensors by the names that the inputs get, in the order of `forward`.
    dynamic : dict
        Of each input, and of `output`, which dimensions vary, and what each is called: `{"pixels": {0: "n"}}`.
    """

    name: str
    network: Any  # Any: torch is not imported here
    example: dict[str, Any]
    dynamic: dict[str, dict[int, str]]


class OnnxNetwork:
    """A network that ONNX Runtime computes; several threads may use it at once.

    Parameters
    ----------
    path : Path
        Of the `.onnx` file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = pass_threads()
        # Its idle threads would spin on cores that the broker and the client want.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [one for one in wanted if one in onnxruntime.get_available_providers()]
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)

    def __call__(self, **inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Return the output for inputs by the names of the export."""
        (found,) = self._session.run(None, inputs)
        output: Any = found  # Any: its type leaves open what else an output may be
        logits: NDArray[np.float32] = output
        return logits


def onnx_network(export: Export, *, quantized: bool) -> OnnxNetwork:
    """Return the network for ONNX Runtime, exported now or before.

    Files are keyed by the weights, the architecture and the versions of all that makes them; one that is not what was
    written, cut short say, is made anew.

    Parameters
    ----------
    export : Export
        The network.
    quantized : bool
        Whether the weights of its linear layers become int8, and what they are multiplied with at each pass.

    Raises
    ------
    ModelError
        If ONNX Runtime is not installed, or the network cannot be exported.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"the back end onnx needs {' and '.join(missing)}: pip install 'easyremote-kafka[onnx]', or leave "
            "EASYREMOTE_BACKEND at torch"
        )
    key = f"{export.name}-{_key(export)}"
    folder = user_cache_dir() / "onnx"
    path = _cached(folder / f"{key}.onnx", lambda to: _export(export, to))
    if quantized:
        whole = path
        path = _cached(folder / f"{key}-int8.onnx", lambda to: _quantize(whole, to))
    return OnnxNetwork(path)


def _key(export: Export) -> str:
    import torch

    digest = hashlib.blake2b(digest_size=12)
    versions = [importlib.metadata.version(name) for name in ("torch", *_PACKAGES)]
    # Its text has what no weight tells: activations, the epsilon of a normalization.
    digest.update("\n".join([_FORMAT, *versions, str(export.network)]).encode())
    for name, tensor in export.network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _cached(path: Path, make: Callable[[Path], None]) -> Path:
    try:
        if not _is_whole(path):
            _make(path, make)
    except OSError as error:
        raise ModelError(f"{path} cannot be used ({error}): make room for it, or set XDG_CACHE_HOME") from error
    return path


def _make(path: Path, make: Callable[[Path], None]) -> None:
    log.info("exporting a model for ONNX Runtime, this once", file=str(path))
    started = perf_counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and then renamed: whatever ends this process, no other finds half a file.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as folder:
        made = Path(folder) / path.name
        make(made)
        told = _checksum(made)
        told.write_text(_sha256(made))
        made.replace(path)
        told.replace(_checksum(path))
    log.info("exported", file=str(path), seconds=round(perf_counter() - started, 1))


def _checksum(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_whole(path: Path) -> bool:
    try:
        if _checksum(path).read_text() == _sha256(path):
            return True
        log.warning("a cached model is damaged and is made anew", file=str(path))
    except FileNotFoundError:
        pass  # it was never made, or not to its end
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _export(export: Export, to: Path) -> None:
    import torch

    try:
        with warnings.catch_warnings():
            # That this exporter is the older one, which needs no further package, and what it takes for constant;
            # the logits are compared with torch's by tests.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                export.network,
                tuple(export.example.values()),
                str(to),
                dynamo=False,
                opset_version=_OPSET,
                input_names=list(export.example),
                output_names=["output"],
                dynamic_axes=export.dynamic,
            )
    except (RuntimeError, torch.onnx.OnnxExporterError) as error:
        raise ModelError(f"{export.name} cannot be exported to ONNX: use the back end torch ({error})") from error


def _quantize(whole: Path, to: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        # A scale for each channel keeps 98% of sentiment's labels instead of 95; seven bits, because the sums of eight
        # overflow on processors without VNNI.
        quantize_dynamic(prepared, to, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
