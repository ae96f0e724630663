"""Calibration: runs a model over images and keeps histograms of its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.errors import InputError
from fcn_deploy.files import sha256_bytes
from fcn_deploy.graph import exported_spec, parse, serialize
from fcn_deploy.quant.histogram import HistogramBuilder
from fcn_deploy.quant.ranges import CalibrationData, Ranges
from fcn_deploy.quant.tensors import observed_tensors
from fcn_deploy.runtime.image import check_images, normalize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


def observe(
    model: bytes,
    images: Iterable[NDArray[np.uint8]],
    *,
    size: tuple[int, int] | None = None,
    random: bool = False,
    threads: int | None = None,
) -> Ranges:
    """Observes a model's tensors while it runs over images, one at a time.

    Memory does not depend on how many images there are.

    Args:
        model: Content of an ONNX file as `export` writes it, with its spec in the metadata.
        images: uint8 [H, W, 3], RGB, of any sizes; must yield at least one.
        size: [height, width] the caller has resized them to; recorded.
        random: Whether the caller has made them up; recorded.
        threads: CPU threads; ONNX Runtime's default where None.

    Returns:
        The histograms, with the hashes of model and images.

    Raises:
        InputError: There are no images, one of them is none, the model has no spec, or a tensor is not finite.
    """
    graph_model = parse(model)
    spec = exported_spec(graph_model)
    observed = [str(value.name) for value in observed_tensors(graph_model.graph)]
    builders = {name: HistogramBuilder() for name in observed}
    digest, count = hashlib.sha256(), 0
    backend = OnnxRuntimeBackend(_with_outputs(graph_model, observed), threads=threads)
    batch = backend.inputs[0].shape[0]
    try:
        for image in images:
            digest.update(repr(image.shape).encode() + image.tobytes())
            count += 1
            feed = normalize(check_images(image), spec.normalization)
            if isinstance(batch, int) and batch > 1:  # a fixed batch: the same image in every place of it
                feed = np.repeat(feed, batch, axis=0)
            values = {"image": feed, **backend.infer({"image": feed})}
            for name, builder in builders.items():
                _add(builder, values[name][:1], name, count)
    finally:
        backend.close()
    if not count:
        raise InputError("no images to calibrate on", expected="at least one")
    return Ranges(
        model_sha256=sha256_bytes(model),
        data=CalibrationData(count, digest.hexdigest(), size, random),
        histograms={name: builder.build() for name, builder in builders.items()},
    )


def _with_outputs(model: ir.Model, names: list[str]) -> bytes:
    """Makes the named tensors outputs of the graph."""
    graph = model.graph
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
