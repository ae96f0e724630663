"""Whether images and ground truth are exchanged, judged before the net and its colours are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fcn_deploy.data.images import decode
from fcn_deploy.errors import InputError

_INSPECTED = 3  # pairs
_MANY = 64  # a photo has more colours, a map of classes hardly ever


def check_not_exchanged(images: Sequence[Path], labels: Sequence[Path]) -> None:
    """Checks, on a few pairs, that images and ground truth are not exchanged.

    Only index images in place of images are found here. What looks like a mask in the classes' colours can be told when
    these are known: `labels.TruthReader.check_folders`.

    Args:
        images: Files of images.
        labels: The file of ground truth of each.

    Raises:
        InputError: They are exchanged, or one of the files cannot be read.
    """
    pairs = list(zip(images, labels, strict=True))[:_INSPECTED]
    if pairs and all(_exchanged(*pair) for pair in pairs):
        image, truth = pairs[0]
        raise InputError(
            "images and ground truth are exchanged",
            got=f"{image}, which holds classes, in `data`, and {truth}, which is an image, in `labels`",
            fix="swap `data` and `labels`",
        )


def _exchanged(image: Path, truth: Path) -> bool:
    other = decode(truth).image
    if other.mode not in ("RGB", "RGBA") or other.getcolors(_MANY) is not None:
        return False
    here = decode(image).image
    return here.mode not in ("RGB", "RGBA") and here.getcolors(_MANY) is not None
