"""Picks calibration images out of a large folder, so that few of them stand for all.

    python calibration/recipes/pick_frames.py recordings/ calib/ --count 200
    python calibration/recipes/pick_frames.py recordings/ calib/ --count 200 --diverse

Evenly spaced in sorted order is right for video, whose file names follow time. `--diverse` is for folders in no
order: it takes the images that differ most in colour and layout. It also takes the odd ones (a lens cap, a test
chart), so look at what it took.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fcn_deploy.data.images import open_untrusted

_THUMBNAIL = (8, 6)


def read_thumbnail(path: Path) -> NDArray[np.float32] | None:
    """Returns a few colours that stand for an image, float32 [144] in 0..1, or None where the file is no image."""
    try:
        with open_untrusted(path) as image:
            # For JPEG this decodes at an eighth of the size, which is most of the time saved.
            image.draft("RGB", (64, 48))
            small = image.convert("RGB").resize(_THUMBNAIL, Image.Resampling.BOX)
    except (UnidentifiedImageError, OSError):
        return None
    return np.asarray(small, np.float32).ravel() / 255


def is_image(path: Path) -> bool:
    """Returns whether Pillow knows the file by its content, whatever its name."""
    try:
        with open_untrusted(path):
            return True
    except (UnidentifiedImageError, OSError):
        return False


def evenly(total: int, count: int) -> list[int]:
    """Returns `count` indices into `total`, each in the middle of its share."""
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]


def farthest(points: NDArray[np.float32], count: int) -> list[int]:
    """Returns indices of points that lie far from one another.

    Farthest-point sampling (Gonzalez 1985, https://doi.org/10.1016/0304-3975(85)90224-5): begin with the point nearest
    to the mean, then always add the one whose nearest chosen point is farthest away. It takes no random choice.

    Args:
        points: float32 [N, D].
        count: At most N.

    Returns:
        `count` indices, in ascending order.
    """
    chosen = [int(np.argmin(np.linalg.norm(points - points.mean(0), axis=1)))]
    gap = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < count:
        # A copy of a chosen image has no gap either; that each is taken once must not depend on it.
        gap[chosen] = -1
        chosen.append(int(np.argmax(gap)))
        gap = np.minimum(gap, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return sorted(chosen)


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", type=click.IntRange(1), default=200, show_default=True, help="How many images to pick.")
@click.option("--diverse", is_flag=True, help="Pick the images that differ most, instead of evenly spaced ones.")
def main(source: Path, target: Path, count: int, diverse: bool) -> None:
    """Copies COUNT images of the folder SOURCE to the folder TARGET."""
    files = sorted(path for path in source.iterdir() if path.is_file())
    if diverse:
        thumbnails = [(path, thumbnail) for path in files if (thumbnail := read_thumbnail(path)) is not None]
        images = [path for path, _ in thumbnails]
    else:
        images = [path for path in files if is_image(path)]
    if len(images) < count:
        raise click.ClickException(f"{source} holds {len(images)} images, fewer than --count {count}")
    if target.exists() and any(target.iterdir()):
        raise click.ClickException(f"{target} is not empty; what is in it would be calibrated on as well")
    target.mkdir(parents=True, exist_ok=True)
    picks = (
        farthest(np.stack([thumbnail for _, thumbnail in thumbnails]), count) if diverse else evenly(len(images), count)
    )
    for index in picks:
        shutil.copy2(images[index], target / images[index].name)
    click.echo(f"copied {count} of {len(images)} images to {target}")


if __name__ == "__main__":
    main()
