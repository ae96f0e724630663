"""`expected.npz`: images, and what PyTorch gives for them, so that a device without PyTorch can be held against it."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fcn_deploy.artifacts.sidecar import Io
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.evaluation.comparison import Sample
from fcn_deploy.runtime.backend import Array

# At most so many images, and so many bytes of all arrays before they are compressed; but two images in any case, the
# fewest that an interval can be had of.
MOST_IMAGES = 20
MOST_BYTES = 64 << 20
LEAST_IMAGES = 2
# No more than this is read into memory, whatever a file claims to hold.
_READ_AT_MOST = 2 << 30
# What an archive or its content may make zipfile, zlib and numpy raise.
_MALFORMED = (
    InputError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    OSError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
_KINDS = {"image": ("uint8",), "labels": ("uint8", "int32"), "logits": ("float32",), "truth": ("uint8", "int32")}


@dataclass(frozen=True, eq=False)
class Expected:
    """What PyTorch gives for one image.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        result: Labels, uint8 or int32 [H, W]; for engines that give logits the logits, float32 [C, H, W].
        truth: Ground truth, uint8 or int32 [H, W]; None without labels.

    Raises:
        InputError: The arrays do not fit each other.
    """

    image: NDArray[np.uint8]
    result: Array
    truth: Array | None = None

    def __post_init__(self) -> None:
        size = self.image.shape[:2]
        fits = self.image.ndim == 3 and self.image.shape[2] == 3 and self.result.shape[-2:] == size and min(size) >= 1
        if not fits or (self.truth is not None and self.truth.shape != size):
            shapes = [each.shape for each in (self.image, self.result, self.truth) if each is not None]
            raise InputError("an image and what is expected of it differ in size", got=shapes)


def images_that_fit(sizes: Sequence[tuple[int, int]], channels: int | None) -> list[int]:
    """Returns the indices of the images to put into a bundle, evenly spread over all.

    Args:
        sizes: Height and width of each image there is.
        channels: Of the logits that go with each; None for labels.
    """
    count = min(len(sizes), MOST_IMAGES)
    while count > LEAST_IMAGES:
        chosen = _spread(len(sizes), count)
        pixels = sum(sizes[index][0] * sizes[index][1] for index in chosen)
        # Image, ground truth, and labels or logits.
        if pixels * (3 + 1 + (1 if channels is None else 4 * channels)) <= MOST_BYTES:
            break
        count -= 1
    return _spread(len(sizes), count)


def _spread(total: int, count: int) -> list[int]:
    return [index * total // count for index in range(count)]


def save_expected(examples: Sequence[Expected], io_kind: Io) -> bytes:
    """Returns the content of `expected.npz`.

    Args:
        examples: One or more.
        io_kind: `image` if their results are labels, `tensor` if they are logits.
    """
    arrays: dict[str, Array] = {}
    for index, example in enumerate(examples):
        arrays[f"image_{index:02}"] = example.image
        arrays[f"{_result(io_kind)}_{index:02}"] = example.result
        if example.truth is not None:
            arrays[f"truth_{index:02}"] = _narrow(example.truth)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy takes the keywords for its own
    return content.getvalue()


def _narrow(truth: Array) -> Array:
    return truth.astype(np.uint8 if truth.min() >= 0 and truth.max() < 256 else np.int32)


def load_expected(data: bytes, io_kind: Io, count: int) -> list[Expected]:
    """Reads what `save_expected` wrote. Sizes are checked before memory is taken, and nothing is unpickled.

    Args:
        data: Content of the file.
        io_kind: As it was written with.
        count: Number of images that it must have.

    Raises:
        ArtifactError: It is not such a file, or does not have these images.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = dict(_arrays(archive))
        if count > len(arrays):
            raise ValueError(f"{len(arrays)} arrays for {count} images")
        examples = [_example(arrays, io_kind, f"{index:02}") for index in range(count)]
    except _MALFORMED as error:
        raise ArtifactError(f"the expected results of the bundle are malformed: {error}") from error
    if arrays:
        raise ArtifactError("the expected results of the bundle are malformed", got=f"also {', '.join(sorted(arrays))}")
    with_truth = [example.truth is not None for example in examples]
    if any(with_truth) != all(with_truth):
        raise ArtifactError("some images of the bundle have ground truth, and others do not")
    return examples


def check_values(examples: Sequence[Expected], io_kind: Io, spec: ModelSpec, ignore_index: int | None) -> None:
    """Checks that labels and ground truth are classes of the net, and that something can be measured of them.

    Args:
        examples: As they were read.
        io_kind: `image` if their results are labels.
        spec: The net's.
        ignore_index: The value of ground truth that does not count; None if every value counts.

    Raises:
        ArtifactError: They hold another value, logits have another number of channels, or all of the
            ground truth is ignored.
    """
    malformed, counted = "the expected results of the bundle are malformed", 0
    for example in examples:
        labels = [example.result] if io_kind == "image" else []
        if example.truth is not None:
            labels.append(_counted(example.truth, ignore_index))
            counted += labels[-1].size
        if any(each.size and not 0 <= each.min() <= each.max() < spec.num_classes for each in labels):
            raise ArtifactError(malformed, got=f"labels beyond {spec.num_classes} classes")
        if io_kind == "tensor" and len(example.result) != spec.channels:
            raise ArtifactError(malformed, got=f"{len(example.result)} channels", expected=spec.channels)
    if examples[0].truth is not None and not counted:
        raise ArtifactError(
            "the ground truth of the bundle labels no pixel, so that nothing can be measured",
            got=f"{ignore_index} everywhere, which is ignored",
            fix="make the bundle again, with labels of classes or without labels",
        )


def _counted(truth: Array, ignore_index: int | None) -> Array:
    return truth if ignore_index is None else truth[truth != ignore_index]


def _example(arrays: dict[str, Array], io_kind: Io, name: str) -> Expected:
    """Takes the arrays of one image out of all."""
    image, result = arrays.pop(f"image_{name}"), arrays.pop(f"{_result(io_kind)}_{name}")
    if result.ndim != (2 if io_kind == "image" else 3):
        raise ValueError(f"{_result(io_kind)}_{name} of shape {list(result.shape)}")
    return Expected(image, result, arrays.pop(f"truth_{name}", None))


def _result(io_kind: Io) -> str:
    return "labels" if io_kind == "image" else "logits"


def _arrays(archive: zipfile.ZipFile) -> Iterator[tuple[str, Array]]:
    """Yields name and content of each array of an archive of numpy's."""
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > _READ_AT_MOST:
        raise ValueError(f"arrays of more than {_READ_AT_MOST} bytes")
    if len({entry.filename for entry in entries}) != len(entries):
        raise ValueError("two arrays of one name")
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        with archive.open(entry) as file:
            # One more than it states: it has to end there.
            yield name, _array(name, file.read(entry.file_size + 1))


def _array(name: str, content: bytes) -> Array:
    """Reads an array in numpy's format, whose header has to fit the content to the byte."""
    kind = name.partition("_")[0]
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"{name} is in format {version} of numpy")
    try:
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
    except (SyntaxError, tokenize.TokenError, MemoryError) as error:  # numpy has Python parse it
        raise ValueError(f"the header of {name} cannot be read") from error
    if kind not in _KINDS or dtype.hasobject or dtype.newbyteorder("=").name not in _KINDS[kind]:
        raise ValueError(f"{name} is of type {dtype}")
    rest = content[stream.tell() :]
    if fortran or len(rest) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} of shape {shape} has {len(rest)} bytes")
    return np.frombuffer(rest, dtype).reshape(shape)


def samples_of(examples: Sequence[Expected]) -> Iterator[Sample]:
    """Yields the images with their ground truth, or None."""
    return ((example.image, example.truth) for example in examples)
