"""What a Backend gave for some images, kept in files: a net can be compared with after it has left the memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.files import sha256_bytes, writing
from fcn_deploy.runtime.backend import Array, Backend, Closable, check_feeds


class RecordedBackend(Closable):
    """A Backend that gives again what another one gave, for the same images.

    Args:
        original: The other one: it has one input, `image`, and one output. It is not kept.
        folder: Where to keep the outputs, a file for each image. It has to outlive this object.

    Attributes:
        name: Of the original, and so are the next three.
        inputs: Of the original.
        outputs: Of the original.
        metadata: Of the original.
    """

    def __init__(self, original: Backend, folder: Path) -> None:
        self.name = original.name
        self.inputs, self.outputs, self.metadata = original.inputs, original.outputs, original.metadata
        self._folder = folder

    def keep(self, image: NDArray[np.float32], output: Array) -> None:
        """Writes an output, so that `infer` gives it for this image.

        Raises:
            InputError: The file cannot be written.
        """
        file = self._file(image)
        with writing(file):
            np.save(file, output)

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Returns what the original gave for an image; see `Backend.infer`.

        Raises:
            LookupError: The original has not run on this image.
        """
        check_feeds(self.inputs, feeds)
        file = self._file(feeds["image"])
        if not file.is_file():
            raise LookupError(f"{self.name} has not run on this image, {list(feeds['image'].shape)}")
        return {self.outputs[0].name: np.load(file)}

    def close(self) -> None:
        """Does nothing: there is nothing in memory."""

    def _file(self, image: Array) -> Path:
        sizes = "x".join(map(str, image.shape))
        return self._folder / f"{self.name}-{sizes}-{sha256_bytes(image.tobytes())}.npy"


def record(backend: Backend, images: Iterable[NDArray[np.float32]], folder: Path) -> RecordedBackend:
    """Runs a Backend on images and keeps what it gives.

    Args:
        backend: It has one input, `image`, and one output.
        images: float32 [N, 3, H, W], each made when its turn comes.
        folder: Where to keep the outputs.

    Raises:
        InputError: A file cannot be written.
    """
    recorded = RecordedBackend(backend, folder)
    for image in images:
        recorded.keep(image, backend.infer({"image": image})[backend.outputs[0].name])
    return recorded
