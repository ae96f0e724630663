"""The demo: a generator of labelled street-like scenes, and a slim FCN-8s trained on them.

Importing this package imports neither torch nor any other library of the extra `host`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path

from PIL import Image

from fcn_deploy.artifacts.palette import Rgb
from fcn_deploy.demo.canvas import VOID
from fcn_deploy.demo.scenes import DEFAULT_SIZE, Scene, make_scene
from fcn_deploy.files import make_folder, write_bytes

CLASSES = ("sky", "building", "road", "sidewalk", "vegetation", "car", "pedestrian", "pole")
# Colours of Cityscapes: https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/helpers/labels.py
PALETTE: tuple[Rgb, ...] = (
    (70, 130, 180),
    (70, 70, 70),
    (128, 64, 128),
    (244, 35, 232),
    (107, 142, 35),
    (0, 0, 142),
    (220, 20, 60),
    (153, 153, 153),
)
IGNORE_INDEX = VOID

# Each scene has one purpose: a figure measured on scenes that a net was trained or calibrated on says nothing.
TRAINING_SEEDS = range(100_000)
CALIBRATION_SEEDS = range(100_000, 200_000)
EVALUATION_SEEDS = range(200_000, 300_000)

__all__ = [
    "CALIBRATION_SEEDS",
    "CLASSES",
    "DEFAULT_SIZE",
    "EVALUATION_SEEDS",
    "IGNORE_INDEX",
    "PALETTE",
    "TRAINING_SEEDS",
    "Scene",
    "checkpoint_path",
    "make_scene",
    "write_scenes",
]


def checkpoint_path() -> Path:
    """Returns the path of the packaged demo checkpoint, a slim FCN-8s with its spec."""
    # Wheels are installed unpacked, so the resource is a file that is still there after the context.
    with as_file(files(__package__) / "fcn8s_demo.safetensors") as path:
        return path


def write_scenes(folder: Path, seeds: Iterable[int], size: tuple[int, int] = DEFAULT_SIZE) -> None:
    """Writes scenes as `folder/images/scene_00012.png` and `folder/labels/scene_00012.png`, and `folder/classes.csv`.

    Label images have one 8-bit channel of class indices, 255 for pixels that are not labelled. The file of classes has
    a line for each: its name and its colour.

    Args:
        folder: Made if it is not there; files of the same names are replaced.
        seeds: One scene for each; the number in its file name.
        size: Height and width in pixels.

    Raises:
        InputError: A scene cannot be made of these arguments, or a file cannot be written.
    """
    for kind in ("images", "labels"):
        make_folder(folder / kind)
    lines = (f"{name},{red},{green},{blue}" for name, (red, green, blue) in zip(CLASSES, PALETTE, strict=True))
    write_bytes(folder / "classes.csv", "\n".join((*lines, "")).encode())
    for seed in seeds:
        scene = make_scene(seed, size)
        for kind, pixels in (("images", scene.image), ("labels", scene.labels)):
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "PNG", optimize=True)
            write_bytes(folder / kind / f"scene_{seed:05d}.png", encoded.getvalue())
