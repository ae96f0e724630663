"""`inspect` and `doctor`: what a file is, and what this machine can build and run."""

from __future__ import annotations

from typing import Any

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.diagnostics.checkup import Checkup, check_up
from fcn_deploy.diagnostics.inspection import inspect_file
from fcn_deploy.files import StrPath, as_path
from fcn_deploy.workflows.parameters import image_shape


def inspect(file: StrPath, *, shape: str | ImageShape | None = None) -> dict[str, Any]:
    """Describes a checkpoint, an exported model, an engine, ranges, a sidecar, a summary or a bundle.

    Args:
        file: The file, or the folder of a bundle.
        shape: Of the images for which a model's outputs and MACs are computed: `NxHxW` or `HxW`; the model's own, or
            1x512x512, if None.

    Returns:
        JSON data, its `kind` first.

    Raises:
        ArtifactError: An engine does not fit its sidecar, or a plan has none.
        InputError: The file cannot be read, or is of another kind.
        UsageError: The model does not take this shape, or the file is not a model.
    """
    return inspect_file(as_path(file), None if shape is None else image_shape(shape))


def doctor() -> Checkup:
    """Returns what this machine is, what is installed, what each library can build and run, and what to install."""
    return check_up()
