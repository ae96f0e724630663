"""Calibration: runs a model over images, and keeps histograms of its tensors and means of its convolutions' inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import closing

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import CalibrationData, Ranges
from fcn_deploy.calibration.channel_means import MeanBuilder
from fcn_deploy.calibration.histogram import HistogramBuilder
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.graph.model import ExportedModel, serialize
from fcn_deploy.passes.forget_shapes import ForgetShapes
from fcn_deploy.quantization.prequantized import check_not_prequantized
from fcn_deploy.quantization.selection import quantizable_inputs
from fcn_deploy.quantization.tensors import observed_tensors, ranged_tensor
from fcn_deploy.runtime.image import check_images, check_size, normalize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


class Observer:
    """Runs a model over images, one at a time, and accumulates; memory does not grow with the number of images.

    Histograms do not depend on the order of the images; means only by the rounding of their sums in float64.

    Args:
        model: As `export` writes it.
        threads: CPU threads; None for ONNX Runtime's default.

    Raises:
        InputError: The model is quantised already, or ONNX Runtime cannot load it.
    """

    def __init__(self, model: ExportedModel, *, threads: int | None = None) -> None:
        graph_model = model.copy()
        check_not_prequantized(graph_model)
        self._normalization, self._min_size = model.spec.normalization, model.spec.min_size
        observed = [str(value.name) for value in observed_tensors(graph_model.graph)]
        # Some of these have no histogram of their own, such as the output of a max-pool. A tensor that is not computed
        # from the image has neither range nor mean.
        read = [str(value.name) for value in quantizable_inputs(graph_model.graph) if ranged_tensor(value, observed)]
        self._builders = {name: HistogramBuilder() for name in observed}
        self._means = {name: MeanBuilder() for name in read}
        self._model_sha256 = model.sha256
        self._images, self._count = hashlib.sha256(), 0
        try:
            self._backend = OnnxRuntimeBackend(_with_outputs(graph_model, [*observed, *read]), threads=threads)
        except ArtifactError as error:  # the model is the user's input, not an artifact built for this machine
            raise InputError(error.what, got=error.got) from error

    def add(self, image: NDArray[np.uint8]) -> None:
        """Observes one image.

        Args:
            image: uint8 [H, W, 3], RGB.

        Raises:
            InputError: It is not such an array, does not fit the model, or gives a tensor that is not finite.
        """
        images = check_images(image)
        if len(image.shape) != 3:
            raise InputError("one image at a time", got=f"a batch, {list(image.shape)}", expected="uint8 [H, W, 3]")
        check_size(images, self._min_size)
        feed = normalize(images, self._normalization)
        batch = self._backend.inputs[0].shape[0]
        if isinstance(batch, int):  # a fixed batch: it holds the image several times, and only the first counts
            feed = np.repeat(feed, batch, axis=0)
        values = {"image": feed, **self._backend.infer({"image": feed})}
        for name, builder in self._builders.items():
            _add(builder, values[name][:1], name, self._count + 1)
        for name, means in self._means.items():
            means.add(values[name][:1])
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
        )

    def close(self) -> None:
        """Frees the model."""
        self._backend.close()


def observe(
    model: ExportedModel,
    images: Iterable[NDArray[np.uint8]],
    *,
    size: tuple[int, int] | None = None,
    random: bool = False,
    threads: int | None = None,
) -> Ranges:
    """Observes a model over images.

    Args:
        model: As `export` writes it.
        images: uint8 [H, W, 3], RGB, of any sizes; at least one.
        size: [height, width] that the caller has resized them to; recorded.
        random: Whether they are random noise; recorded.
        threads: CPU threads; None for ONNX Runtime's default.

    Returns:
        The histograms and means, with the hashes of model and images.

    Raises:
        InputError: There are no images, one of them is not an image, the model is quantised already, or a tensor is not
            finite.
    """
    observer = Observer(model, threads=threads)
    with closing(observer):
        for image in images:
            observer.add(image)
        return observer.ranges(size=size, random=random)


def _with_outputs(model: ir.Model, names: list[str]) -> bytes:
    """Makes the named tensors outputs of the graph."""
    graph = ForgetShapes()(model).model.graph
    for node in graph:
        for value in node.outputs:
            if value.name in names and not value.is_graph_output():
                value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
                graph.outputs.append(value)
    return serialize(model)


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
