"""Runs a model that another tool exported as if it were an exported model: the reference of its adoption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.geometry import Padding, PadMode
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.artifacts.shapes import ImageShape, Layout, TensorSpec
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.onnx_export.comparison import SHAPES
from fcn_deploy.onnx_export.foreign import ForeignImage, ForeignModel
from fcn_deploy.runtime.backend import Array, Closable
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend

_TO_NCHW = (0, 3, 1, 2)
_TO_NHWC = (0, 2, 3, 1)
_PAD_MODES: dict[PadMode, Literal["edge", "constant", "reflect"]] = {
    "edge": "edge",
    "zero": "constant",
    "reflect": "reflect",
}
REAL = ImageShape(1, 360, 480)
_LARGEST = 2**31  # bytes of images
# Sizes of real images, of which nets that take only multiples of a number take one.
_TRIED = (REAL, *(ImageShape(1, *size) for size in ((256, 320), (512, 1024), (384, 768), (420, 840))))


@dataclass(frozen=True)
class ForeignLogits:
    """The output of a model that gives logits.

    Attributes:
        layout: The order of its axes.
        channels: C.
    """

    layout: Layout
    channels: int


class ForeignBackend(Closable):
    """A Backend that takes `image`, float32 [N, 3, H, W], and gives `logits`, float32 [N, C, H, W].

    What the model itself takes and gives is made of these and into these with numpy, so that it can be compared with
    the model that was adopted from it.

    Args:
        model: The model.
        layout: Of its logits, if their shape leaves a choice.
        resize: How coarse logits are resized; None if they have the size of the image.

    Attributes:
        logits: What the output is.
        padding: How images are padded before the model sees them; None for no padding.

    Raises:
        InputError: ONNX Runtime cannot run it, or what it gives is not logits of the size of its image.
    """

    name: str = "onnxruntime"

    def __init__(self, model: ForeignModel, layout: Layout | None = None, resize: ResizeMode | None = None) -> None:
        self._what, self._image, self._resize = model.what, model.image, resize
        self._tensor = model.logits
        self.padding: Padding | None = None
        try:
            self._backend = OnnxRuntimeBackend(model.content, simulate_quantization=True)
        except ArtifactError as error:  # the model is the user's input, not an artifact built for this machine
            raise InputError(error.what, got=error.got) from error
        names = [size or name for size, name in zip(model.image.sizes, ("batch", "height", "width"), strict=True)]
        batch, height, width = names
        try:
            self.logits = self._measured(layout)
        except BaseException:
            self.close()
            raise
        self.inputs = (TensorSpec("image", "float32", (batch, 3, height, width)),)
        self.outputs = (TensorSpec("logits", "float32", (batch, self.logits.channels, height, width)),)
        self.metadata: Mapping[str, str] = {}

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the model once; see `Backend.infer`.

        Args:
            feeds: `image`; of whole numbers in 0..255 if the model takes uint8.

        Raises:
            InputError: It cannot run at this size, or gives logits of another size.
        """
        image = feeds["image"]
        batch, _, height, width = image.shape
        if self.padding is not None:
            image = padded(image, self.padding)
        values = self._run(image)
        if values.ndim == 4 and self.logits.layout == "nhwc":
            values = values.transpose(_TO_NCHW)
        if values.ndim == 4 and self._resize is not None:
            values = resized(values, image.shape[2:], self._resize)
        if values.shape != (batch, self.logits.channels, *image.shape[2:]):
            raise self._misfit(list(values.shape), ImageShape(batch, *image.shape[2:]))
        return {"logits": np.ascontiguousarray(values[:, :, :height, :width])}

    def close(self) -> None:
        """Frees the session."""
        self._backend.close()

    def noise(self, shape: ImageShape) -> NDArray[np.float32]:
        """Returns an image that the model takes, float32 [N, 3, H, W], the same each time."""
        return noise(self._image, shape)

    def takes(self, shape: ImageShape) -> str | None:
        """Returns why the model does not take images of a shape; None if it does."""
        try:
            self.infer({"image": self.noise(shape)})
        except InputError as error:
            return f"{error.got}"
        return None

    def _run(self, image: Array) -> NDArray[np.float32]:
        fed = image.transpose(_TO_NHWC) if self._image.layout == "nhwc" else image
        try:
            found = self._backend.infer({self._image.name: fed.astype(self._image.dtype)})
        except ArtifactError as error:
            raise InputError(f"{self._what} does not run", got=f"{error.what}: {error.got}") from error
        return cast("NDArray[np.float32]", np.asarray(found[self._tensor], np.float32))

    def _measured(self, layout: Layout | None) -> ForeignLogits:
        """Runs the model at the first size that it takes, and looks at what it gives."""
        failed: InputError | None = None
        for shape in dict.fromkeys(map(self._image.at, (*_TRIED, *SHAPES[1:]))):
            self._check_memory(shape)
            try:
                found = self._run(self.noise(shape))
            except InputError as error:
                failed = failed or error
                continue
            self._check_finite(found)
            return self._read(found.shape, shape, layout)
        assert failed is not None
        raise failed

    def _check_memory(self, shape: ImageShape) -> None:
        if shape.batch * 3 * shape.height * shape.width * np.dtype(np.float32).itemsize > _LARGEST:
            raise InputError(
                f"{self._what} takes images that are too large to run it on",
                got=str(shape),
                expected="at most 2 GB as float32",
                fix="name a smaller `shape`, or export the model for smaller images or for any size",
            )

    def _check_finite(self, found: NDArray[np.float32]) -> None:
        if not np.isfinite(found).all():
            raise InputError(
                f"{self._what} gives numbers that are not finite",
                got=f"{self._tensor} with {np.mean(~np.isfinite(found)):.0%} NaN or infinite, for normally distributed "
                "images",
                expected="finite logits",
                fix="look for divisions by 0 and, in FP16, for values beyond 65504",
            )

    def _read(self, found: tuple[int, ...], shape: ImageShape, wanted: Layout | None) -> ForeignLogits:
        possible = [layout for layout in _spatial_axes if _fits(found, shape, layout, exactly=True)]
        if not possible:
            coarse = [layout for layout in _spatial_axes if _fits(found, shape, layout, exactly=False)]
            # What is smaller by exactly one factor is no coincidence.
            possible = [layout for layout in coarse if _scaled(found, shape, layout)] or coarse
            if not possible or self._resize is None:
                raise self._misfit(list(found), shape, coarse=bool(possible))
        if wanted in possible:
            possible = [wanted]
        if len(possible) > 1:
            raise InputError(
                f"the shape of the logits of {self._what} does not say which axis is that of the classes",
                got=f"{list(found)} for {shape}",
                fix='add `layout="nchw"` or `layout="nhwc"`',
            )
        return ForeignLogits(possible[0], found[1 if possible[0] == "nchw" else 3])

    def _misfit(self, found: list[int], shape: ImageShape, coarse: bool = False) -> InputError:
        return InputError(
            f"{self._what} gives logits smaller than the image"
            if coarse
            else f"{self._what} does not give logits as large as the image",
            got=f"{self._tensor} {found} for images of {shape}",
            expected="[N, C, H, W] or [N, H, W, C] with the batch, height and width of the image",
            fix='add `resize_logits="bilinear"`, or "nearest"' if coarse else self._one_size(found),
        )

    def _one_size(self, found: list[int]) -> str | None:
        """What helps if a model that states no size was made for one, and gives logits of that size."""
        if self._image.fixed is not None or len(found) != 4:
            return None
        height, width = (found[axis] for axis in _spatial_axes[self._image.layout])
        stated = f"{self._image.sizes[0] or found[0]}x{height}x{width}"
        return f'if it was made for one size, name it: `shape="{stated}"`' if min(height, width) > 1 else None


_spatial_axes: dict[Layout, tuple[int, int]] = {"nchw": (2, 3), "nhwc": (1, 2)}


def _fits(found: tuple[int, ...], shape: ImageShape, layout: Layout, exactly: bool) -> bool:
    """Returns whether an output is that of a segmentation net: as large as the image, or smaller by one factor."""
    if len(found) != 4 or found[0] != shape.batch:
        return False
    height, width = (found[axis] for axis in _spatial_axes[layout])
    if exactly:
        return (height, width) == (shape.height, shape.width)
    factor = shape.height / height
    return height > 1 and width > 1 and factor >= 1 and abs(shape.width / factor - width) <= 1


def _scaled(found: tuple[int, ...], shape: ImageShape, layout: Layout) -> bool:
    height, width = (found[axis] for axis in _spatial_axes[layout])
    return shape.height * width == shape.width * height


def noise(image: ForeignImage, shape: ImageShape) -> NDArray[np.float32]:
    """Returns normally distributed values, or whole numbers in 0..255 for a model that takes uint8.

    Args:
        image: What the model takes.
        shape: Of the images.

    Returns:
        float32 [N, 3, H, W], the same each time.
    """
    random, size = np.random.default_rng(0), (shape.batch, 3, shape.height, shape.width)
    if image.dtype == "uint8":
        return random.integers(0, 256, size).astype(np.float32)
    return random.normal(size=size).astype(np.float32)


def padded(image: NDArray[np.float32], padding: Padding) -> NDArray[np.float32]:
    """Pads images at the bottom and the right.

    Args:
        image: float32 [N, 3, H, W].
        padding: To what, and with what.
    """
    rows, columns = (padding.padded(size) - size for size in image.shape[2:])
    return np.pad(image, ((0, 0), (0, 0), (0, rows), (0, columns)), mode=_PAD_MODES[padding.mode])


def resized(logits: NDArray[np.float32], size: Sequence[int], mode: ResizeMode) -> NDArray[np.float32]:
    """Resizes logits as torch's `interpolate` does without aligned corners.

    Args:
        logits: float32 [N, C, h, w].
        size: (H, W).
        mode: `bilinear` or `nearest`.

    Returns:
        float32 [N, C, H, W].
    """
    for axis, wanted in zip((2, 3), size, strict=True):
        own = logits.shape[axis]
        if mode == "nearest":
            places = np.arange(wanted, dtype=np.float32) / np.float32(wanted / own)
            logits = logits.take(places.astype(np.int64).clip(0, own - 1), axis)
            continue
        centres = ((np.arange(wanted) + 0.5) * own / wanted - 0.5).clip(0, own - 1)
        low = np.floor(centres).astype(np.int64)
        weight: NDArray[Any] = (centres - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(4)])
        logits = logits.take(low, axis) * (1 - weight) + logits.take((low + 1).clip(max=own - 1), axis) * weight
    return logits
