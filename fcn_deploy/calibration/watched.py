"""A model that also gives the tensors inside it, one image at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.graph.model import serialize
from fcn_deploy.passes.forget_shapes import ForgetShapes
from fcn_deploy.runtime.backend import Closable
from fcn_deploy.runtime.image import check_images, check_size, normalize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


class WatchedModel(Closable):
    """Runs a model, and returns tensors inside it.

    Args:
        model: It takes `image`, float32 [N, 3, H, W]; changed.
        spec: What it is.
        names: Of the tensors.
        threads: CPU threads; None for ONNX Runtime's default.

    Raises:
        InputError: ONNX Runtime cannot load the model.
    """

    def __init__(self, model: ir.Model, spec: ModelSpec, names: Collection[str], *, threads: int | None = None) -> None:
        self._normalization, self._min_size = spec.normalization, spec.min_size
        try:
            self._backend = OnnxRuntimeBackend(_with_outputs(model, names), threads=threads)
        except ArtifactError as error:  # the model is the user's input, not an artifact built for this machine
            raise InputError(error.what, got=error.got) from error

    def run(self, image: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        """Runs one image.

        Args:
            image: uint8 [H, W, 3], RGB.

        Returns:
            Every output and watched tensor, and `image` as the net reads it, float32 [1, ...] each.

        Raises:
            InputError: It is not such an array, or does not fit the model.
        """
        images = check_images(image)
        if len(image.shape) != 3:
            raise InputError("one image at a time", got=f"a batch, {list(image.shape)}", expected="uint8 [H, W, 3]")
        check_size(images, self._min_size)
        feed = normalize(images, self._normalization)
        batch = self._backend.inputs[0].shape[0]
        if isinstance(batch, int):  # a fixed batch: it holds the image several times, and only the first counts
            feed = np.repeat(feed, batch, axis=0)
        return {name: value[:1] for name, value in {"image": feed, **self._backend.infer({"image": feed})}.items()}

    def close(self) -> None:
        """Frees the model."""
        self._backend.close()


def _with_outputs(model: ir.Model, names: Collection[str]) -> bytes:
    """Makes the named tensors outputs of the graph."""
    graph = ForgetShapes()(model).model.graph
    for node in graph:
        for value in node.outputs:
            if value.name in names and not value.is_graph_output():
                value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
                graph.outputs.append(value)
    return serialize(model)
