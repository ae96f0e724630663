"""Checkpoint files: reads them safely, recognises their key layout, loads them into an FCN."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcn_deploy.artifacts.geometry import Geometry
from fcn_deploy.artifacts.spec import METADATA_KEY, CheckpointInfo, ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.files import reading, sha256_file
from fcn_deploy.models.fcn import FC_CHANNELS, FCN, VARIANTS, Stride
from fcn_deploy.models.layouts import LAYOUTS, Layout

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN_KEYS = 6


@dataclass(frozen=True)
class Checkpoint:
    """A state_dict of a known layout, and what its tensors say about the net.

    Attributes:
        info: Hash and layout of the file.
        stride: 32, 16 or 8.
        num_classes: Output channels of the score layers.
        width: Channel multiplier.
        geometry: Which of the published geometries the net has, as far as layout and tensors tell.
        state: float32 tensors under the names of `FCN`.
        spec: The spec in the file, which files written by this package have; None if there is none.
    """

    info: CheckpointInfo
    stride: Stride
    num_classes: int
    width: float
    geometry: Geometry
    state: Mapping[str, Tensor]
    spec: ModelSpec | None = None

    @property
    def variant(self) -> str:
        """`fcn32s`, `fcn16s` or `fcn8s`."""
        return f"fcn{self.stride}s"


def read_checkpoint(
    path: str | os.PathLike[str], variant: str | None = None, input_padding: int | None = None
) -> Checkpoint:
    """Reads a `.pth` or `.safetensors` file of one of the published nets; never runs code from the file.

    Args:
        path: The file. Wrappers (`state_dict`, `model_state_dict`, `module.` prefixes) are removed, half-precision
            tensors become float32.
        variant: `fcn32s`, `fcn16s` or `fcn8s`: what the net must be; None for any.
        input_padding: 0 or 100 for a net whose input padding is not that of its layout; see `Geometry`.

    Raises:
        InputError: The file cannot be read, is truncated, needs code to load, has an unknown layout, or is not of that
            `variant`; tensors are missing, unexpected or of another shape (all are listed); or a weight is not a
            dense, finite float.
    """
    path = Path(path)
    tensors, spec = read_tensors(path)
    state = {strip_prefixes(key): tensor for key, tensor in tensors.items()}
    layout = known_layout(tensors)
    if layout is None and "features.0.weight" in state and "score_fr.weight" not in state:
        raise InputError(
            f"{path} is torchvision's VGG16, a classifier without score layers",
            expected="a trained segmentation net",
            fix="train a net that starts from it: tools/train.py",
        )
    if layout is None:
        raise InputError(
            f"{path} has an unknown key layout",
            got=f"{len(state)} tensors: {', '.join(list(state)[:_SHOWN_KEYS])}, ...",
            expected=" or ".join(f"{layout.name} ({layout.signs})" for layout in LAYOUTS),
            fix='for a custom net add `model="package.module:callable"`, which makes it; otherwise rename the keys',
        )
    stride = layout.stride(state)
    if variant is not None and VARIANTS.get(variant) != stride:
        raise InputError(
            f"{path} holds another variant", got=f"fcn{stride}s", expected=variant, fix="leave out `variant`"
        )
    num_classes, channels = state["score_fr.weight"].shape[:2]
    state = layout.rename(state, stride)
    width = channels / FC_CHANNELS
    geometry = layout.geometry(state)
    if input_padding is not None:
        geometry = replace(geometry, input_padding=input_padding)
    wanted = _empty_model(stride, num_classes, width, geometry).state_dict()
    state = _with_biases(state, wanted)
    what = f"{path} does not fit an FCN-{stride}s of width {width:g} with {num_classes} classes"
    check_fit(state, wanted, what)
    return Checkpoint(
        info=CheckpointInfo(sha256_file(path), layout.name),
        stride=stride,
        num_classes=num_classes,
        width=width,
        geometry=geometry,
        state={key: finite_float32(key, tensor, path) for key, tensor in state.items()},
        spec=spec,
    )


def known_layout(tensors: Mapping[str, Tensor]) -> Layout | None:
    """Returns the key layout of the tensors that `read_tensors` read; None if it is not that of a published net."""
    state = {strip_prefixes(key): tensor for key, tensor in tensors.items()}
    return next((layout for layout in LAYOUTS if layout.knows(state)), None)


def load_model(checkpoint: Checkpoint, geometry: Geometry | None = None) -> FCN:
    """Returns the checkpoint's net in evaluation mode.

    Args:
        checkpoint: The weights.
        geometry: If None, the checkpoint's; pass another one to add what tensors cannot tell, the scales of the skips.
    """
    geometry = geometry or checkpoint.geometry
    model = _empty_model(checkpoint.stride, checkpoint.num_classes, checkpoint.width, geometry)
    model.load_state_dict(dict(checkpoint.state), assign=True)
    return model.eval()


def _empty_model(stride: Stride, num_classes: int, width: float, geometry: Geometry) -> FCN:
    """The net without memory for its weights, so that tensors which claim a huge size cost none."""
    with torch.device("meta"):
        return FCN(stride, num_classes, width, geometry)


def _with_biases(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds a bias of zero to each deconvolution that was trained without a bias."""
    biases = {key for key in wanted if re.fullmatch(r"upscore\w+\.bias", key)} - state.keys()
    return {**state, **{key: torch.zeros(wanted[key].shape) for key in biases}}


def check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Checks that a state_dict has every tensor of a net, and no other.

    Args:
        state: The state_dict that was read.
        wanted: The state_dict of the net.
        what: The first words of the error.

    Raises:
        InputError: Tensors are missing, unexpected or of another shape; all are listed.
    """
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    misshapen = [
        f"{key} {list(state[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    problems = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
    if any(keys for _, keys in problems):
        raise InputError(
            what,
            got=" | ".join(f"{name}: {', '.join(keys)}" for name, keys in problems if keys),
            fix="save model.state_dict() of the whole net",
        )


def finite_float32(key: str, tensor: Tensor, path: Path) -> Tensor:
    """Returns a weight as float32, after checking that it is real, dense, finite, and holds what its shape claims.

    Raises:
        InputError: It fails one of these checks.
    """
    dense = tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_quantized
    if not dense or not tensor.is_floating_point():
        kind = "quantized" if tensor.is_quantized else "empty" if tensor.is_meta else f"{tensor.layout}"
        raise InputError(
            f"{path}: {key} is not a plain weight", got=f"{tensor.dtype}, {kind}", expected="a dense tensor of floats"
        )
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"{path}: {key} claims more values than it holds", got=f"{list(tensor.shape)}")
    weights = tensor.float()
    if not torch.isfinite(weights).all():
        raise InputError(f"{path}: {key} has values that are not finite", expected="finite weights")
    return weights


def read_tensors(path: Path) -> tuple[dict[str, Tensor], ModelSpec | None]:
    """Reads the tensors of a `.pth` or `.safetensors` file; never runs code from the file.

    Returns:
        Tensors by key, without wrappers; and the spec in the file, or None.

    Raises:
        InputError: The file cannot be read, is truncated, needs code to load, or holds no tensors.
    """
    with reading(path), path.open("rb"):
        pass
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _unwrap(_read_pickle(path), path), None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], ModelSpec | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file",
            got=_first_line(error),
            fix="copy or download it again; it may be truncated",
        ) from error
    spec = ModelSpec.loads(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
    return tensors, spec


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # If a newer pickle protocol cannot be read, that is one of the errors below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} cannot be read as weights alone, and code from a checkpoint is never run",
            got=_reason(error),
            expected="a state_dict of tensors",
            fix="if you trust the file, load it in your own code and save model.state_dict()",
        ) from error
    except Exception as error:
        # Damaged files raise nearly every type of exception; each means that the file cannot be read.
        raise InputError(
            f"{path} is not a readable PyTorch checkpoint",
            got=_first_line(error),
            fix="copy or download it again; it may be truncated",
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _reason(error: Exception) -> str:
    # torch's message is a page of advice; only the sentence about the global that it refuses helps.
    match = re.search(r"(Unsupported (?:global|class|operand)[^\n]*|GLOBAL [^\n]*)", str(error))
    return (match.group(1) if match else _first_line(error)).strip()


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise InputError(
            f"{path} holds no state_dict",
            got=_describe(content),
            expected=f"tensors by name, plain or under one of {', '.join(_WRAPPERS)}",
            fix="save model.state_dict()",
        )
    return dict(content)


def _describe(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a dict with {', '.join(map(str, list(content)[:_SHOWN_KEYS])) or 'no keys'}"
    return f"a {type(content).__name__}"


def strip_prefixes(key: str) -> str:
    """Returns a key without the prefixes that DataParallel and torch.compile add, in any order."""
    while prefix := next((prefix for prefix in _PREFIXES if key.startswith(prefix)), None):
        key = key.removeprefix(prefix)
    return key
