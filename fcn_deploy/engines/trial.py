"""Runs a new engine before it is written: one that loads may still fail at the size of real images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.engines.checks import ONNXRUNTIME, OPENVINO
from fcn_deploy.engines.engine import Engine
from fcn_deploy.errors import ArtifactError
from fcn_deploy.runtime.backend import Backend

# For engines of which no image is known.
ORDINARY = ImageShape(1, 360, 480)


def trial_shapes(images: ImageShape) -> tuple[ImageShape, ImageShape]:
    """Returns the shapes to run an engine at: that of real images, and one of about half its height and width."""
    return images, ImageShape(images.batch, images.height // 2 + 1, images.width // 2 + 1)


def try_engine(engine: Engine, shapes: Iterable[ImageShape]) -> None:
    """Runs an engine on noise, if its library runs on this CPU; plans run on the machines they are built for.

    Args:
        engine: A new one.
        shapes: Of the images. A size that the engine fixes replaces theirs.

    Raises:
        ArtifactError: It cannot run, or its output is not as large as the image.
    """
    opened = _opened(engine)
    if opened is None:
        return
    random = np.random.default_rng(0)
    with opened as backend:
        image, output = backend.inputs[0], backend.outputs[0]
        places = (0, 1, 2) if engine.sidecar.io == "image" else (0, 2, 3)
        smallest = engine.sidecar.spec.min_size
        fed = (_fitted(image.shape, shape.at_least(smallest), places) for shape in shapes)
        for shape in dict.fromkeys(fed):
            noise = random.integers(0, 256, shape, np.uint8) if image.dtype == "uint8" else random.normal(size=shape)
            found = backend.infer({image.name: noise.astype(image.dtype)})[output.name].shape
            wanted = [shape[place] for place in places]
            if [found[0], *found[-2:]] != wanted:
                raise ArtifactError(
                    "the engine does not give an output of the size of its image",
                    got=f"{output.name} {list(found)} for {image.name} {list(shape)}",
                )


def _opened(engine: Engine) -> Backend | None:
    """Opens an engine with the library that its sidecar names; None for a plan."""
    # Imported here: what is wrong with a command is said before the library is loaded.
    if engine.sidecar.backend == ONNXRUNTIME:
        from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(engine.data)
    if engine.sidecar.backend == OPENVINO:
        from fcn_deploy.runtime.openvino.backend import OpenVinoBackend

        return OpenVinoBackend(engine.data)
    return None


def _fitted(own: tuple[int | str, ...], images: ImageShape, places: tuple[int, ...]) -> tuple[int, ...]:
    sizes = dict(zip(places, (images.batch, images.height, images.width), strict=True))
    return tuple(size if isinstance(size, int) else sizes[place] for place, size in enumerate(own))
