"""Calibration: runs a model over images, and keeps histograms of its tensors and means of its convolutions' inputs.

If it is given a few images for that, it first balances the channels of tensors: see `quantization.balance`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import CalibrationData, Ranges
from fcn_deploy.calibration.channel_means import MeanBuilder
from fcn_deploy.calibration.channel_power import channel_rms
from fcn_deploy.calibration.histogram import HistogramBuilder
from fcn_deploy.calibration.watched import WatchedModel
from fcn_deploy.errors import InputError
from fcn_deploy.graph.model import ExportedModel
from fcn_deploy.quantization.balance import Scales, balance, channel_scales
from fcn_deploy.quantization.prequantized import check_not_prequantized
from fcn_deploy.quantization.selection import quantizable_inputs
from fcn_deploy.quantization.tensors import observed_tensors, ranged_tensor


class Observer:
    """Runs a model over images, one at a time, and accumulates; memory does not grow with the number of images.

    Histograms do not depend on the order of the images; means only by the rounding of their sums in float64.

    Args:
        model: As `export` writes it.
        scales: What the channels of tensors are divided by before anything is observed.
        threads: CPU threads; None for ONNX Runtime's default.

    Raises:
        InputError: The model is quantised already, or ONNX Runtime cannot load it.
    """

    def __init__(self, model: ExportedModel, scales: Scales | None = None, *, threads: int | None = None) -> None:
        graph_model = model.copy()
        check_not_prequantized(graph_model)
        self._scales = scales or {}
        balance(graph_model.graph, self._scales)
        observed = [str(value.name) for value in observed_tensors(graph_model.graph)]
        # Some of these have no histogram of their own, such as the output of a max-pool. A tensor that is not computed
        # from the image has neither range nor mean.
        read = [str(value.name) for value in quantizable_inputs(graph_model.graph) if ranged_tensor(value, observed)]
        self._builders = {name: HistogramBuilder() for name in observed}
        self._means = {name: MeanBuilder() for name in read}
        self._model_sha256 = model.sha256
        self._images, self._count = hashlib.sha256(), 0
        self._watched = WatchedModel(graph_model, model.spec, [*observed, *read], threads=threads)

    def add(self, image: NDArray[np.uint8]) -> None:
        """Observes one image.

        Args:
            image: uint8 [H, W, 3], RGB.

        Raises:
            InputError: It is not such an array, does not fit the model, or gives a tensor that is not finite.
        """
        values = self._watched.run(image)
        for name, builder in self._builders.items():
            _add(builder, values[name], name, self._count + 1)
        for name, means in self._means.items():
            means.add(values[name])
        self._images.update(repr(image.shape).encode() + image.tobytes())
        self._count += 1

    def ranges(self, *, size: tuple[int, int] | None = None, random: bool = False) -> Ranges:
        """Returns what has been observed so far.

        Args:
            size: [height, width] that the caller has resized the images to; recorded.
            random: Whether the images were random noise; recorded.

        Raises:
            InputError: No image has been observed.
        """
        if not self._count:
            raise InputError("no images to calibrate on", expected="at least one")
        return Ranges(
            model_sha256=self._model_sha256,
            data=CalibrationData(self._count, self._images.hexdigest(), size, random),
            histograms={name: builder.build() for name, builder in self._builders.items()},
            means={name: means.build() for name, means in self._means.items()},
            scales=self._scales,
        )

    def close(self) -> None:
        """Frees the model."""
        self._watched.close()


def observe(
    model: ExportedModel,
    images: Iterable[NDArray[np.uint8]],
    *,
    balanced_by: Iterable[NDArray[np.uint8]] | None = None,
    size: tuple[int, int] | None = None,
    random: bool = False,
    threads: int | None = None,
) -> Ranges:
    """Observes a model over images.

    Args:
        model: As `export` writes it.
        images: uint8 [H, W, 3], RGB, of any sizes; at least one.
        balanced_by: A few of them that are like all: channels are balanced by what they are on these, before anything
            is observed. If None, nothing is balanced.
        size: [height, width] that the caller has resized them to; recorded.
        random: Whether they are random noise; recorded.
        threads: CPU threads; None for ONNX Runtime's default.

    Returns:
        The histograms and means of the balanced net, its scales, and the hashes of model and images.

    Raises:
        InputError: There are no images, one of them is not an image, the model is quantised already, or a tensor is not
            finite.
    """
    check_not_prequantized(model.copy())
    scales = channel_scales(channel_rms(model, balanced_by, threads=threads)) if balanced_by is not None else {}
    observer = Observer(model, scales, threads=threads)
    with closing(observer):
        for image in images:
            observer.add(image)
        return observer.ranges(size=size, random=random)


def _add(builder: HistogramBuilder, values: NDArray[np.float32], name: str, image: int) -> None:
    try:
        builder.add(values)
    except InputError as error:
        raise InputError(
            f"tensor {name} of image {image} has {error.what}",
            got=error.got,
            expected=str(error.expected),
            fix="check the checkpoint and the normalisation",
        ) from error
