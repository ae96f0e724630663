"""Runs an ONNX model beside its reference and refuses it if the results differ.

The reference of an export is the net in PyTorch; that of a simplified model is the model before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import ArtifactError, GateError, InputError
from fcn_deploy.evaluation.gates import DEFAULT_GATES
from fcn_deploy.evaluation.parity import compare_backends
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime.backend import Backend

if TYPE_CHECKING:
    from fcn_deploy.onnx_export.guards import Guard

# The smallest image, odd sizes, height above width and width above height, several batches.
SHAPES = tuple(ImageShape(*shape) for shape in ((1, 1, 1), (1, 33, 64), (3, 65, 97), (1, 130, 75), (2, 96, 128)))
# The size of real images, and one between: maps that are 1x1 in small images are larger in these.
REAL = (ImageShape(1, 187, 250), ImageShape(1, 360, 480))


def comparison_shapes(backend: Backend, min_size: tuple[int, int] = (1, 1)) -> list[ImageShape]:
    """Returns the shapes to compare a model at: `SHAPES` and `REAL`, with each size that the model fixes in its place.

    Args:
        backend: A model whose first input is [N, 3, H, W].
        min_size: The smallest height and width that the net takes.

    Returns:
        Each shape once, in the order of `SHAPES` and `REAL`.
    """
    batch, _, height, width = (size if isinstance(size, int) else None for size in backend.inputs[0].shape)
    smallest = (shape.at_least(min_size) for shape in (*SHAPES, *REAL))
    shapes = (ImageShape(batch or s.batch, height or s.height, width or s.width) for s in smallest)
    return list(dict.fromkeys(shapes))


def noise(shape: ImageShape) -> NDArray[np.float32]:
    """Returns normally distributed images, float32 [N, 3, H, W]: for each shape the same ones every time."""
    random = np.random.default_rng(0)
    return random.normal(size=(shape.batch, 3, shape.height, shape.width)).astype(np.float32)


_LIMIT = DEFAULT_GATES["fp32"].error or 0.0
_FIX = "export with `simplify=False`, another `opset`, or one fixed `shape`"


def compare_models(
    reference: Backend,
    candidate: Backend,
    shapes: Sequence[ImageShape],
    name: str,
    progress: Progress,
    *,
    images: Callable[[ImageShape], NDArray[np.float32]] | None = None,
    limit: float = _LIMIT,
    fix: str = _FIX,
) -> float:
    """Runs a model and its reference on the same input, and checks that the logits are the same.

    Args:
        reference: Takes `image`, float32 [N, 3, H, W]; its first output is compared.
        candidate: The model to check, with the same input and output.
        shapes: The shapes of the input, at least one.
        name: What errors and progress call the reference, such as `PyTorch`.
        progress: Told of each shape.
        images: Makes the input of a shape, float32 [N, 3, H, W]; `noise` if None.
        limit: The largest error; that of the gate for FP32.
        fix: What the user can do if the results differ.

    Returns:
        The error of the output over all shapes; see `ErrorTally`.

    Raises:
        ArtifactError: The candidate cannot run at one of the shapes.
        GateError: The outputs differ in shape, or by more than the limit.
    """
    feeds = (
        {"image": (images or noise)(shape)} for shape in progress.track(shapes, len(shapes), f"comparing with {name}")
    )
    try:
        error = compare_backends(reference, candidate, feeds)
    except InputError as mismatch:
        raise GateError(f"the model does not give the results of {name}", got=str(mismatch)) from mismatch
    if not error <= limit:
        raise GateError(
            f"the model does not give the results of {name}",
            got=f"an error of {error:.2e} of the logits' range",
            expected=f"at most {limit:.0e}",
            fix=f"nothing was written; {fix}",
        )
    return error


def shapes_of(guards: Sequence[Guard]) -> list[ImageShape]:
    """Returns the shapes of the images that `require_harmless` runs for some guards, each once."""
    tried = (shape for guard in guards for shape in (guard.met_by, guard.violated_by))
    return list(dict.fromkeys(shape for shape in tried if shape is not None))


def require_harmless(guard: Guard, reference: Backend, candidate: Backend) -> None:
    """Checks that an exported model gives PyTorch's results also for an image that violates a guard.

    Args:
        guard: What torch.export assumed, and an image for which it is false.
        reference: The net in PyTorch.
        candidate: The exported model.

    Raises:
        InputError: The results differ, the model cannot run, or the guard cannot be evaluated, so that no image is
            known to try.
    """
    got = "a condition that cannot be evaluated"
    if guard.violated_by is not None:
        try:
            # A second image, because the error is a share of a range, and one pixel of a binary net has none.
            compare_models(reference, candidate, [guard.violated_by, guard.met_by], "PyTorch", Silent())
        except (GateError, ArtifactError) as error:
            got = f"{error.what} at {guard.violated_by}: {error.got}"
        else:
            return
    if guard.numbers:
        raise made_a_number(guard.numbers)
    raise InputError(
        f"the exported model is right only if {guard.condition}",
        got=got,
        expected="a net that does the same at every size",
        fix="remove from the net: conditions on the size, sizes converted to int or float; or export for one size with "
        "`shape`",
    )


def made_a_number(numbers: Sequence[str]) -> InputError:
    """Returns the refusal of a net whose Python code makes numbers of sizes.

    Args:
        numbers: Where it does, at least one place.
    """
    return InputError(
        "the net makes a number of a size, and torch exports it for the size it is traced at",
        got="; ".join(numbers),
        expected="sizes that are computed with +, -, *, // and math.floor alone",
        fix="divide whole numbers with // in place of int() or float(), or export for one size with `shape`",
    )
