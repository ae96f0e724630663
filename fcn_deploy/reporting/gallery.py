"""The images on which an engine agrees the least with PyTorch, as small pictures for a report."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcn_deploy.artifacts.gallery import KINDS, Gallery, ShownImage
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.evaluation.comparison import Compared
from fcn_deploy.reporting.pictures import encode_png
from fcn_deploy.runtime import colorize

# How many images are kept for each engine, and how large their pictures may be, in pixels.
MOST = 8
LARGEST = 480

# Of a picture that is read back, in bytes: those that are written here have less than half of it.
_LARGEST_FILE = 1 << 21

# What differences are drawn in: the engine is wrong, PyTorch is, or both are; without ground truth any difference.
ENGINE_WRONG, PYTORCH_WRONG, BOTH_WRONG = (213, 94, 0), (0, 114, 178), (20, 20, 20)
DIFFERENT = (230, 0, 120)
# Where the ground truth says nothing.
IGNORED = (128, 128, 128)

# Shades of the image below the differences: few, so that the file is small.
_SHADES = 24

Pictures: TypeAlias = Mapping[str, bytes]


@dataclass(frozen=True)
class Kept:
    """An image with what PyTorch and one engine make of it, as files.

    Attributes:
        name: Of the image's file.
        agreement: Share of its pixels with the same label, 0..1.
        shape: [height, width] of the image.
        pictures: The content of a PNG or JPEG file, by kind.
    """

    name: str
    agreement: float
    shape: tuple[int, int]
    pictures: Pictures


@dataclass(frozen=True, eq=False)
class _Reduced:
    """The arrays of an image, small enough to be shown."""

    index: int
    agreement: float
    shape: tuple[int, int]
    image: NDArray[np.uint8]
    labels: Mapping[str, NDArray[np.integer[Any]]]


@dataclass(eq=False)
class WorstImages:
    """Keeps, for each of several engines, the images on which it agrees the least with the reference.

    Attributes:
        names: Of the files of all images, in the order in which they will be added.
        engines: What the engines are called, in the order of `Compared.found`.
        spec: The net's.
        ignore_index: The value of the ground truth that does not count, or None.
    """

    names: Sequence[str]
    engines: Sequence[str]
    spec: ModelSpec
    ignore_index: int | None
    _worst: dict[str, list[_Reduced]] = field(default_factory=dict)
    _added: int = 0

    def add(self, compared: Compared) -> None:
        """Adds the next image."""
        for engine, labels in zip(self.engines, compared.found, strict=True):
            agreement = float((labels == compared.expected).mean())
            kept = self._worst.setdefault(engine, [])
            if len(kept) < MOST or agreement < kept[-1].agreement:
                kept.append(_reduced(self._added, agreement, compared, labels))
                kept.sort(key=lambda each: (each.agreement, each.index))
                del kept[MOST:]
        self._added += 1

    def result(self) -> dict[str, tuple[Kept, ...]]:
        """Returns the images by engine, the one with the lowest agreement first."""
        return {engine: tuple(map(self._drawn, kept)) for engine, kept in self._worst.items()}

    def _drawn(self, found: _Reduced) -> Kept:
        pictures = {"image": _jpeg(found.image)}
        for kind, labels in found.labels.items():
            colors = colorize(labels, self.spec.palette)
            if kind == "truth" and self.ignore_index is not None:
                colors[labels == self.ignore_index] = IGNORED
            pictures[kind] = encode_png(colors)
        pictures["difference"] = encode_png(difference_map(found.image, found.labels, self.ignore_index))
        ordered = {kind: pictures[kind] for kind in KINDS if kind in pictures}
        return Kept(self.names[found.index], found.agreement, found.shape, ordered)


def _reduced(index: int, agreement: float, compared: Compared, labels: NDArray[np.integer[Any]]) -> _Reduced:
    height, width = labels.shape
    share = min(1.0, LARGEST / max(height, width))
    rows, columns = (_chosen(size, max(1, round(size * share))) for size in (height, width))
    image = Image.fromarray(compared.image)
    if share < 1:
        image = image.resize((len(columns), len(rows)), Image.Resampling.BOX)
    shown = {"truth": compared.truth, "pytorch": compared.expected, "engine": labels}
    # Labels of single pixels: a mean of labels is no label. Indexed by arrays, they are copies.
    small = {kind: each[np.ix_(rows, columns)] for kind, each in shown.items() if each is not None}
    return _Reduced(index, agreement, (height, width), np.asarray(image).copy(), small)


def _chosen(size: int, kept: int) -> NDArray[np.int64]:
    """Returns the indices of the pixels that are nearest to the centres of `kept` equal parts of `size` pixels."""
    return ((np.arange(kept) + 0.5) * size / kept).astype(np.int64)


def difference_map(
    image: NDArray[np.uint8], labels: Mapping[str, NDArray[np.integer[Any]]], ignore_index: int | None
) -> NDArray[np.uint8]:
    """Draws where an engine and PyTorch differ, over the image in light grey.

    Args:
        image: uint8 [H, W, 3].
        labels: Integer [H, W], of `pytorch`, `engine`, and of `truth` if there is any.
        ignore_index: The value of the ground truth that does not count: any difference there is drawn as without truth.

    Returns:
        uint8 [H, W, 3].
    """
    grey = image.mean(-1, dtype=np.float32) / 255
    shade = (190 + 60 * np.floor(grey * _SHADES) / _SHADES).astype(np.uint8)
    drawn = np.repeat(shade[..., np.newaxis], 3, -1)
    pytorch, engine, truth = labels["pytorch"], labels["engine"], labels.get("truth")
    differ = pytorch != engine
    drawn[differ] = DIFFERENT
    if truth is not None:
        counts = differ if ignore_index is None else differ & (truth != ignore_index)
        drawn[counts] = BOTH_WRONG
        drawn[counts & (pytorch == truth)] = ENGINE_WRONG
        drawn[counts & (engine == truth)] = PYTORCH_WRONG
    return drawn


def gallery_of(summary: Summary, kept: Mapping[str, Sequence[Kept]]) -> tuple[Gallery | None, dict[str, bytes]]:
    """Returns the gallery of the engine that people will ask about, and the files of its pictures, by name.

    That is the engine to ship; without one, the first that missed its gate; if all met theirs, the last.

    Args:
        summary: Of the deployment.
        kept: What was kept of each engine, by precision.

    Returns:
        None and no files if nothing was kept of that engine.
    """
    engine = next(
        (each for each in summary.engines if summary.ship is not None and each.file == summary.ship.engine),
        next((each for each in summary.engines if not each.gate.passed), summary.engines[-1]),
    )
    images: list[ShownImage] = []
    files: dict[str, bytes] = {}
    for index, each in enumerate(kept.get(engine.precision, ())):
        names = {kind: f"{index:02}_{kind}.{'jpg' if kind == 'image' else 'png'}" for kind in each.pictures}
        files |= {names[kind]: content for kind, content in each.pictures.items()}
        images.append(ShownImage(each.name, each.agreement, each.shape, names))
    return (Gallery(engine.file, tuple(images)), files) if images else (None, {})


def is_small_picture(content: bytes) -> bool:
    """Returns whether the content of a file is a picture as they are written here: PNG or JPEG, whole, and small.

    Pictures are read from a folder that may come from other people, and go into a page.
    """
    if len(content) > _LARGEST_FILE:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns of what it half understands, and of sizes that are an attack
        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
                if max(picture.size) > LARGEST:  # known from the header
                    return False
                picture.load()
        except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
            return False
    return True


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
