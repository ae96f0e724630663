"""The inputs of `deploy --demo`: what a user would bring, generated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fcn_deploy.demo import CALIBRATION_SEEDS, EVALUATION_SEEDS, checkpoint_path, write_scenes
from fcn_deploy.files import read_bytes, write_bytes

_CALIBRATION_IMAGES = 32
_EVALUATION = slice(100, 200)  # the first hundred chose among the nets of a training run, so they flatter it


@dataclass(frozen=True)
class DemoInputs:
    """Where the inputs are.

    Attributes:
        weights: A copy of the packaged checkpoint.
        calib_data: Folder of images to calibrate on.
        data: Folder of images to judge on; none of them was trained or calibrated on.
        labels: Folder of their ground truth.
    """

    weights: Path
    calib_data: Path
    data: Path
    labels: Path


def write_inputs(folder: Path) -> DemoInputs:
    """Generates the scenes of the demo.

    Args:
        folder: Where to; made if it is not there.

    Raises:
        InputError: The folder cannot be written.
    """
    write_scenes(folder / "calibration", CALIBRATION_SEEDS[:_CALIBRATION_IMAGES])
    weights = folder / checkpoint_path().name
    write_bytes(weights, read_bytes(checkpoint_path()))
    write_scenes(folder / "evaluation", EVALUATION_SEEDS[_EVALUATION])
    return DemoInputs(
        weights=weights,
        calib_data=folder / "calibration" / "images",
        data=folder / "evaluation" / "images",
        labels=folder / "evaluation" / "labels",
    )
