"""The inputs of the demo: what a user would bring to `deploy`, generated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fcn_deploy.demo import CALIBRATION_SEEDS, EVALUATION_SEEDS, checkpoint_path, write_scenes
from fcn_deploy.files import read_bytes, write_bytes

_CALIBRATION_IMAGES = 32
# Not the first hundred: the demo net was chosen on them in training, so their figures would be too good.
_EVALUATION = slice(100, 200)


@dataclass(frozen=True)
class DemoInputs:
    """Where the inputs are, or will be after they are written.

    Attributes:
        folder: The folder that holds all of them.
    """

    folder: Path

    @property
    def weights(self) -> Path:
        """A copy of the packaged checkpoint."""
        return self.folder / checkpoint_path().name

    @property
    def calib_data(self) -> Path:
        """Folder of images to calibrate on."""
        return self.folder / "calibration" / "images"

    @property
    def data(self) -> Path:
        """Folder of images to evaluate on; the net was neither trained nor calibrated on them."""
        return self.folder / "evaluation" / "images"

    @property
    def labels(self) -> Path:
        """Folder of their ground truth."""
        return self.folder / "evaluation" / "labels"

    def write(self) -> None:
        """Generates the scenes of the demo; the folder is made if it is not there.

        Raises:
            InputError: The folder cannot be written.
        """
        write_scenes(self.calib_data.parent, CALIBRATION_SEEDS[:_CALIBRATION_IMAGES])
        write_bytes(self.weights, read_bytes(checkpoint_path()))
        write_scenes(self.data.parent, EVALUATION_SEEDS[_EVALUATION])
