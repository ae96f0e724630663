"""Checkpoint files: reads them safely, recognises their key layout, loads them into an FCN."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fcn_deploy.artifacts.geometry import Geometry
from fcn_deploy.artifacts.spec import CheckpointInfo, ModelSpec
from fcn_deploy.errors import InputError
from fcn_deploy.files import as_path, sha256_file
from fcn_deploy.models.fcn import FC_CHANNELS, FCN, VARIANTS, Stride
from fcn_deploy.models.keys import State, listed, shared_prefix, stripped, without_wrappers
from fcn_deploy.models.layouts import LAYOUTS, Layout
from fcn_deploy.models.state import check_fit, finite_float32, nets_in, part_advice, stripped_while, tensors_of
from fcn_deploy.models.weights_file import read_content
from fcn_deploy.models.weights_options import WeightsOptions


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
        spec: The spec that this package wrote into the file; None for a file of another program.
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
    path: str | os.PathLike[str],
    variant: str | None = None,
    input_padding: int | None = None,
    weights: WeightsOptions | None = None,
) -> Checkpoint:
    """Reads a `.pth` or `.safetensors` file of one of the published nets; never runs code from the file.

    Args:
        path: The file. Entries (`state_dict`, `model`), wrappers (`module.`, `_orig_mod.`) and a prefix that all keys
            share are removed, half-precision tensors become float32.
        variant: `fcn32s`, `fcn16s` or `fcn8s`: what the net must be; None for any.
        input_padding: 0 or 100 for a net whose input padding is not that of its layout; see `Geometry`.
        weights: Which part of the file holds the weights.

    Raises:
        InputError: The file cannot be read, is truncated, needs code to load, has an unknown layout, or is not of that
            `variant`; tensors are missing, unexpected or of another shape (all are listed); or a weight is not a
            dense, finite float.
    """
    path = as_path(path)
    tensors, spec = read_tensors(path, weights)
    unwrapped = stripped_while(without_wrappers(tensors), lambda one: _layout(one) is not None, path)
    layout, state = _layout(unwrapped), dict(unwrapped)
    if layout is None and "features.0.weight" in state and "score_fr.weight" not in state:
        raise InputError(
            f"{path} is torchvision's VGG16, a classifier without score layers",
            expected="a trained segmentation net",
            fix="train a net that starts from it: tools/train.py",
        )
    if layout is None:
        prefixes, others = nets_in(unwrapped, lambda part: _layout(part) is not None)
        if prefixes:
            raise InputError(
                f"{path} holds more than one net",
                got=listed([f"{prefix}*" for prefix in prefixes] + others),
                expected="one published net",
                fix=part_advice(prefixes, others),
            )
        raise InputError(
            f"{path} has an unknown key layout",
            got=f"{len(state)} tensors: {listed(state)}",
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


def known_layout(tensors: State) -> Layout | None:
    """Returns the key layout of the tensors that `read_tensors` read; None if it is not that of a published net."""
    state = without_wrappers(tensors)
    while (layout := _layout(state)) is None and (prefix := shared_prefix(state)) is not None:
        state = stripped(state, prefix)
    return layout


def _layout(state: Mapping[str, Tensor]) -> Layout | None:
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


def read_tensors(path: Path, weights: WeightsOptions | None = None) -> tuple[State, ModelSpec | None]:
    """Reads the tensors of a `.pth` or `.safetensors` file; never runs code from the file.

    Args:
        path: The file.
        weights: Which part of it is read.

    Returns:
        Tensors by key, those of the one entry that holds weights; and the spec in the file, or None.

    Raises:
        InputError: The file cannot be read, is no checkpoint, needs code to load, or holds no tensors, or more than one
            set of them.
    """
    content, spec = read_content(path)
    return tensors_of(content, path, weights), spec
