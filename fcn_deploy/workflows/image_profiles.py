"""The shapes of images that TensorRT engines of a deployment take: what the user states, or the sizes of the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.data.images import stated_size
from fcn_deploy.engines.tensorrt.profiles import DEFAULT, ImageProfile
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.workflows.parameters import Size


def profiles_for(
    asked: Sequence[ImageProfile], judged: ImageFolder, observed: ImageFolder
) -> tuple[tuple[ImageProfile, ...], str]:
    """Returns the profiles to build for, and where they come from, in words.

    If the user states none, there is one: from the smallest to the largest height and width of all images, tuned for
    the size that most of them have, one image at a time. Only the headers of the images are read.

    Args:
        asked: What the user states; may be empty.
        judged: The images that engines are verified on, one at a time.
        observed: The calibration images.

    Raises:
        InputError: An image to verify on fits no profile.
        UsageError: No profile takes a single image.
    """
    if asked:
        check_single(asked)
        _check_images(asked, judged)
        return tuple(asked), "as you state"
    sizes = [*image_sizes(judged), *image_sizes(observed)]
    if not sizes:  # no header can be read; what is wrong with the images is said when they are
        return (DEFAULT,), "the default"
    heights, widths = zip(*sizes, strict=True)
    (common, _), *_ = Counter(sizes).most_common(1)
    profile = ImageProfile(
        ImageShape(1, min(heights), min(widths)),
        ImageShape(1, *common),
        ImageShape(1, max(heights), max(widths)),
    )
    return (profile,), "the sizes of your images; see `min_shape`, `opt_shape` and `max_shape`"


def check_single(profiles: Sequence[ImageProfile]) -> None:
    """Checks that a single image can be run: engines are verified and timed on images one at a time.

    Raises:
        UsageError: Every profile takes larger batches only.
    """
    if profiles and all(profile.min.batch > 1 for profile in profiles):
        raise UsageError(
            "engines are verified on one image at a time",
            got=f"`min_shape` {profiles[0].min}",
            expected="a batch of 1 in one of them",
        )


def image_sizes(images: ImageFolder) -> list[Size]:
    """Returns the height and width of each image of a folder whose header can be read, as they are run."""
    if images.size is not None:
        return [images.size] * len(images.paths)
    return [size for path in images.paths if (size := stated_size(path)) is not None]


def _check_images(profiles: Sequence[ImageProfile], images: ImageFolder) -> None:
    for path in images.paths:
        size = images.size or stated_size(path)
        if size is not None and not any(profile.takes(ImageShape(1, *size)) for profile in profiles):
            raise InputError(
                f"{path} fits no profile",
                got=f"{size[0]}x{size[1]}",
                expected="; ".join(map(str, profiles)),
                fix="state profiles that your images fit, or leave them out",
            )
