"""The results that a bundle brings, in the place of PyTorch: a Backend that looks them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.artifacts.sidecar import Io
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.bundle.expected import Expected
from fcn_deploy.errors import InputError
from fcn_deploy.files import sha256_bytes
from fcn_deploy.runtime.backend import Array, Closable, backend_closed, check_feeds
from fcn_deploy.runtime.image import normalize


class RecordedBackend(Closable):
    """A Backend that gives what was recorded for the images of a bundle, and knows no others.

    Args:
        examples: The images, and what PyTorch gave for them.
        spec: The net's.
        io_kind: `image` or `tensor`, as the engines that are compared with it.
    """

    name = "recorded"

    def __init__(self, examples: Sequence[Expected], spec: ModelSpec, io_kind: Io) -> None:
        first = examples[0].result
        if io_kind == "image":
            self.inputs: tuple[TensorSpec, ...] = (TensorSpec("image", "uint8", ("batch", "height", "width", 3)),)
            output = TensorSpec("labels", first.dtype.name, ("batch", "height", "width"))
        else:
            self.inputs = (TensorSpec("image", "float32", ("batch", 3, "height", "width")),)
            output = TensorSpec("logits", "float32", ("batch", spec.channels, "height", "width"))
        self.outputs: tuple[TensorSpec, ...] = (output,)
        self.metadata: Mapping[str, str] = {}
        results: dict[tuple[tuple[int, ...], str], Array] = {}
        for example in examples:
            image = example.image[np.newaxis]
            fed: Array = image if io_kind == "image" else normalize(image, spec.normalization)
            results[_key(fed[0])] = example.result
        self._results: dict[tuple[tuple[int, ...], str], Array] | None = results

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Returns what was recorded for a batch of the images; see `Backend`."""
        if self._results is None:
            raise backend_closed()
        check_feeds(self.inputs, feeds)
        keys = [_key(image) for image in feeds["image"]]
        found = [self._results[key] for key in keys if key in self._results]
        if len(found) < len(keys):
            raise InputError("nothing was recorded for this image", expected="an image of the bundle")
        return {self.outputs[0].name: np.stack(found)}

    def close(self) -> None:
        """Forgets the results."""
        self._results = None


def _key(image: Array) -> tuple[tuple[int, ...], str]:
    return image.shape, sha256_bytes(image.tobytes())
