"""`calibrate`: runs an exported model over images and keeps histograms of its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.errors import UsageError
from fcn_deploy.files import StrPath
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime.options import check_threads
from fcn_deploy.workflows.image_sizes import check_image_sizes, check_stated_size
from fcn_deploy.workflows.models import check_model, exported_model
from fcn_deploy.workflows.parameters import Size, check_max_images, image_folder, image_size, input_file, output_file

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel

# Images by which channels are balanced before all are observed.
_BALANCED_BY = 16
_RANDOM_IMAGES = 8


def calibrate(
    model: StrPath | ExportedModel,
    calib_data: StrPath | ImageFolder | None = None,
    *,
    calib_size: str | Size | None = None,
    max_images: int | None = None,
    recursive: bool = False,
    random_calibration: bool = False,
    balance: bool = True,
    threads: int | None = None,
    output: StrPath | None = None,
    progress: Progress | None = None,
) -> Ranges:
    """Runs an exported model over images and keeps histograms of its tensors.

    The histograms let calibration methods be tried later without the images.

    Args:
        model: An exported ONNX file, or one that is loaded.
        calib_data: Folder of images like those that the net will see.
        calib_size: `HxW` or (height, width) to resize them to; they are taken as they are if None.
        max_images: At most so many, evenly spread over the folder; for noise 8 if None.
        recursive: Whether sub-folders of the folder are searched too.
        random_calibration: Noise instead of images. The ranges record it, and are good for timing only. Needs
            `calib_size`.
        balance: Whether the channels of tensors are balanced first, by 16 of the images (see
            `fcn_deploy.quantization.balance`). The ranges are then those of the balanced net, which computes the same.
            Noise balances nothing.
        threads: CPU threads; ONNX Runtime's default if None.
        output: The `.json` file to write; nothing is written if None.
        progress: Told of each image.

    Raises:
        InputError: The model or an image cannot be read, or does not fit; or the output cannot be written.
        UsageError: Both images and noise, or neither.

    Example:
        >>> import fcn_deploy as fd
        >>> ranges = fd.calibrate("fcn8s.onnx", "frames", max_images=100, output="ranges.json")
    """
    progress = progress or Silent()
    file = output_file(output, (".json",), reads=(model,))
    if random_calibration == (calib_data is not None):
        raise UsageError("calibrate needs images", expected="`calib_data`, or `random_calibration=True`, not both")
    check_max_images(max_images)
    check_threads(threads)
    size = image_size(calib_size, "calib_size")
    check_model(model)
    if calib_data is None:
        if size is None:
            raise UsageError("random calibration needs a size", expected="`calib_size`")
        count = max_images or _RANDOM_IMAGES
        folder, total, images, what = None, count, _noise(size, count), "calibrating on noise"
    else:
        folder = image_folder(calib_data, max_images=max_images, size=size, recursive=recursive)
        total, images, what, size = len(folder), iter(folder), "calibrating", folder.size
    from fcn_deploy.calibration.observer import observe  # after all that can be wrong at once: it takes a second

    net = exported_model(model)
    check_image_sizes(folder, net.spec.min_size)
    check_stated_size(size, net.spec.min_size, "calib_size")
    shown = progress.track(images, total, what)
    sample = None
    if balance and folder is not None:
        few = folder.spread(_BALANCED_BY)
        sample = progress.track(few, len(few), "balancing channels")
    ranges = observe(net, shown, balanced_by=sample, size=size, random=random_calibration, threads=threads)
    if file is not None:
        ranges.save(file)
    return ranges


def load_ranges(path: StrPath) -> Ranges:
    """Reads a ranges file.

    Args:
        path: The file.

    Raises:
        InputError: It cannot be read, or is not a ranges file.
    """
    return Ranges.load(input_file(path))


def _noise(size: Size, count: int) -> Iterator[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return (random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count))
