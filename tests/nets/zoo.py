"""Takes a public net the whole way: export, FP32 engine by its gate, INT8 engine at three sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fcn_deploy.demo import make_scene, write_scenes
from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import ExportedModel
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.exporting import export
from fcn_deploy.workflows.verifying import verify

# A multiple of 32, a multiple of nothing, a multiple of 64.
SIZES = ((96, 128), (131, 195), (192, 256))
# For nets that pool a map of stride 32 three times more.
LARGE = ((256, 288), (259, 323), (320, 384))
# Nets are trained from small weights at the end of residual branches (Goyal et al. 2017, section 5.1). With random
# weights of full size a net of 101 layers makes errors of 1e-4 of float32's own rounding, and noise of INT8's.
_BRANCH = 0.2
_IMAGES = 3  # of each size
_CALIBRATION = 4  # of each size
_MEAN, _STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
_NAMED = re.compile(r'`(\w+)="?(\w+)"?`')


@dataclass(frozen=True)
class Outcome:
    """What became of a net.

    Attributes:
        named: The options that the refusal without options named; empty if nothing was refused.
        export_error: Largest error of the exported model against PyTorch, over the sizes that `export` compares.
        agreement: Share of pixels with the label of PyTorch, of the FP32 engine on images of all sizes.
        error: Of its logits, likewise.
        sqnr: Of the logits of the INT8 engine against the exported model, in dB, at each of the sizes.
        int8_convolutions: Number of its convolutions in INT8.
        convolutions: Number of its convolutions.
    """

    named: dict[str, str | int]
    export_error: float
    agreement: float
    error: float
    sqnr: tuple[float, ...]
    int8_convolutions: int
    convolutions: int


def write_images(folder: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
    """Writes the images that nets are calibrated on and compared on."""
    for number, size in enumerate(sizes):
        first = 1000 * number
        write_scenes(folder / "calibration", range(first, first + _CALIBRATION), size)
        seeds = range(first + 500, first + 500 + _IMAGES)
        write_scenes(folder / _name(size), seeds, size)
        write_scenes(folder / "all", seeds, size)


def write_checkpoint(net: nn.Module, path: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
    """Writes the weights of a net, its batch normalisation fitted to street scenes, as training would fit it."""
    net.eval()  # what is random in training stays as it is
    for module in net.modules():
        if (last := _last_of_branch(module)) is not None:
            nn.init.constant_(last.weight, _BRANCH)
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean of the batches
            module.train()
    with torch.inference_mode():
        for number, size in enumerate((sizes[0], sizes[-1])):  # which every net takes
            scenes = [make_scene(seed, size) for seed in range(4 * number, 4 * number + 4)]
            images = np.stack([(scene.image / 255 - _MEAN) / _STD for scene in scenes]).astype(np.float32)
            net(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
    torch.save(net.state_dict(), path)


def _last_of_branch(module: nn.Module) -> nn.BatchNorm2d | None:
    """The normalisation that a residual branch of torchvision's blocks ends in; None for another module."""
    if hasattr(module, "downsample"):
        return getattr(module, "bn3", None) or getattr(module, "bn2", None)
    if getattr(module, "use_res_connect", False):
        return [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)][-1]
    return None


def whole_way(weights: Path, maker: str, images: Path, sizes: Sequence[tuple[int, int]] = SIZES) -> Outcome:
    """Exports a net with the option that the tool names, if it names one, and builds and verifies engines.

    Args:
        weights: The net's checkpoint.
        maker: What makes the net, `package.module:callable`.
        images: What `write_images` wrote.
        sizes: Of the images.

    Raises:
        FcnDeployError: The net cannot be exported even so, or an engine fails.
    """
    model, named = _exported(weights, maker)
    calibration = images / "calibration" / "images"
    plain = build_engine(model, precision="fp32", io="tensor")
    checked = verify(plain, data=images / "all" / "images", weights=weights, model=maker, **named)
    checked.require_passed()
    quantized = build_engine(model, precision="int8", calib_data=calibration, io="tensor")
    sqnr = [verify(quantized, model, images / _name(size) / "images").sqnr for size in sizes]
    layers = list(quantized.sidecar.precision.layers.values())
    assert model.error is not None
    assert checked.error is not None
    return Outcome(
        named=named,
        export_error=model.error,
        agreement=checked.agreement,
        error=checked.error,
        sqnr=tuple(-math.inf if value is None else float(value) for value in sqnr),
        int8_convolutions=layers.count("int8"),
        convolutions=len(layers),
    )


def _exported(weights: Path, maker: str) -> tuple[ExportedModel, dict[str, Any]]:
    try:
        return export(weights, model=maker, normalization="imagenet"), {}
    except InputError as error:
        named = _options(error)
        if not named:
            raise
    return export(weights, model=maker, normalization="imagenet", **named), named


def _options(error: InputError) -> dict[str, Any]:
    found = _NAMED.findall(error.fix or "")
    return {option: int(value) if value.isdecimal() else value for option, value in found}


def _name(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
