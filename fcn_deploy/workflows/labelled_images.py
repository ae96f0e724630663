"""Labels image files, and writes pictures of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.data.images import read_image
from fcn_deploy.errors import FcnDeployError, InputError
from fcn_deploy.evaluation.grouping import grouped
from fcn_deploy.files import make_folder, write_bytes
from fcn_deploy.reporting.pictures import KINDS, encode_png, overlaid
from fcn_deploy.workflows.labelling import Labelling, Labels, Meter
from fcn_deploy.workflows.predictions import Speed

Named = tuple[Path, NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class ImagesLabelled:
    """What was made of images.

    Attributes:
        count: How many were labelled.
        files: What was written.
        speed: None if none was labelled.
    """

    count: int
    files: Sequence[Path]
    speed: Speed | None


def label_images(
    labelling: Labelling,
    targets: Mapping[Path, Sequence[Path]],
    fail: Callable[[Path, InputError], None],
    max_pixels: int | None = None,
) -> ImagesLabelled:
    """Labels images and writes their pictures.

    Args:
        labelling: How.
        targets: The files to write of each image, one for each kind.
        fail: Told of what cannot be labelled, if such images are left out.
        max_pixels: Most pixels that an image may have.

    Raises:
        FcnDeployError: An image cannot be read or does not fit, or a picture cannot be written; it says how many
            images were done.
    """
    if not targets:
        return ImagesLabelled(0, [], None)
    return _Images(labelling, targets, fail, max_pixels).run()


class _Images:
    def __init__(
        self,
        labelling: Labelling,
        targets: Mapping[Path, Sequence[Path]],
        fail: Callable[[Path, InputError], None],
        max_pixels: int | None,
    ) -> None:
        self._labelling, self._targets, self._max_pixels = labelling, targets, max_pixels
        self._tell = fail
        self._done = self._failed = 0
        self._written: list[Path] = []
        self._stopped: InputError | None = None  # by an image that cannot be read

    def run(self) -> ImagesLabelled:
        labelling, meter = self._labelling, Meter("images")
        with labelling.progress.counting("predicting", len(self._targets), meter.note) as show:
            try:
                for group in grouped(self._images(), labelling.batch, lambda each: each[1]):
                    for each, labels in zip(group, self._labels(group, meter), strict=False):
                        self._write(*each, labels)
                        self._done += 1
                    show(self._done)
                if self._stopped is not None:
                    raise self._stopped
            except FcnDeployError as error:
                raise _with_count(error, self._done, len(self._targets)) from error
        return ImagesLabelled(self._done - self._failed, self._written, meter.speed())

    def _images(self) -> Iterator[Named]:
        for path in self._targets:
            if self._labelling.ended:
                return
            try:
                image = read_image(path, max_pixels=self._max_pixels)
            except InputError as error:
                if not self._labelling.skipping:
                    self._stopped = error  # raised after what was read before it is written
                    return
                self._fail(path, error)
                continue
            yield path, image

    def _labels(self, group: Sequence[Named], meter: Meter) -> list[Labels]:
        try:
            return self._labelling.labels([image for _, image in group], meter)
        except InputError as error:
            if not self._labelling.skipping:
                raise
            for path, _ in group:
                self._fail(path, error)
            return []

    def _fail(self, path: Path, error: InputError) -> None:
        self._tell(path, error)
        self._failed += 1
        self._done += 1

    def _write(self, path: Path, image: NDArray[np.uint8], labels: Labels) -> None:
        spec = self._labelling.segmenter.spec
        if self._targets[path]:
            make_folder(self._targets[path][0].parent)
        for kind, target in zip(self._labelling.kinds, self._targets[path], strict=True):
            write_bytes(target, encode_png(KINDS[kind](image, labels, spec)))
            self._written.append(target)
        if self._labelling.window is not None:
            self._labelling.window.show(overlaid(image, labels, spec))


def _with_count(error: FcnDeployError, done: int, total: int) -> FcnDeployError:
    what = f"stopped with {done} of {total} images done: {error.what}"
    return type(error)(what, got=error.got, expected=error.expected, fix=error.fix)
