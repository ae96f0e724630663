"""The root mean square of each channel of tensors, over a few images: what `quantization.balance` goes by."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.calibration.watched import WatchedModel
from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import ExportedModel
from fcn_deploy.quantization.balance import balanceable


def channel_rms(
    model: ExportedModel, images: Iterable[NDArray[np.uint8]], *, threads: int | None = None
) -> dict[str, NDArray[np.float64]]:
    """Returns the root mean squares of the channels of the tensors that can be balanced.

    Args:
        model: As `export` writes it.
        images: uint8 [H, W, 3], RGB, of any sizes; at least one.
        threads: CPU threads; None for ONNX Runtime's default.

    Returns:
        By tensor name, float64 [C]; every pixel of every image has the same weight. Tensors with values that are not
        finite are left out: the observer says so.

    Raises:
        InputError: There are no images, or one of them is not an image or does not fit the model.
    """
    graph_model = model.copy()
    names = [str(each.value.name) for each in balanceable(graph_model.graph)]
    if not names:
        return {}
    squares: dict[str, NDArray[np.float64]] = {}
    pixels = dict.fromkeys(names, 0)
    with WatchedModel(graph_model, model.spec, names, threads=threads) as watched:
        for image in images:
            values = watched.run(image)
            for name in names:
                square = np.square(values[name], dtype=np.float64).sum(axis=(0, 2, 3))
                squares[name] = squares[name] + square if name in squares else square
                pixels[name] += values[name].size // values[name].shape[1]
    if not squares:
        raise InputError("no images to balance channels by", expected="at least one")
    found = {name: np.sqrt(square / pixels[name]) for name, square in squares.items()}
    return {name: rms for name, rms in found.items() if np.isfinite(rms).all()}
