"""Segmenter: an engine as a function from images to labels. The class that users embed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, Io, Sidecar, find_sidecar, load_sidecar
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.errors import ArtifactError, ClosedError, FcnDeployError, InputError, UsageError, WrongIoError
from fcn_deploy.files import StrPath, as_path, check_file
from fcn_deploy.runtime.backend import Array, Backend, Closable, Provider
from fcn_deploy.runtime.image import check_images, check_size, normalize
from fcn_deploy.runtime.labels import labels_of
from fcn_deploy.runtime.open import open_backend
from fcn_deploy.runtime.options import ImageColor, RuntimeOptions, kind_of
from fcn_deploy.runtime.requirements import check_cpu, require_exact_8_bits
from fcn_deploy.runtime.tensorrt.settings import Specialization
from fcn_deploy.runtime.tiling import Size, Tiling
from fcn_deploy.text import printable

if TYPE_CHECKING:
    from typing_extensions import Self  # in `typing` from Python 3.11 on

Labels = NDArray[np.integer[Any]]


class Segmenter(Closable):
    """Labels every pixel of an image with an engine.

    Calls from several threads are safe. Use it in a `with`, or call `close`:

        with Segmenter("fcn8s.int8.onnx", threads=2) as segmenter:
            labels = segmenter(image)  # uint8 [H, W, 3], RGB -> [H, W]

    Args:
        engine: A file made by `build-engine`, with its sidecar next to it; an exported ONNX model; or a Backend, which
            the segmenter closes.
        threads: CPU threads of one inference of an ONNX engine; the library's default if None.
        provider: `cpu` or `cuda`, for engines of ONNX Runtime; the CPU if None.
        device: Index of the GPU; 0 if None.
        device_name: `CPU`, `GPU` or `NPU`, for engines of OpenVINO; the CPU if None.
        fast_math: Lets ONNX Runtime multiply matrices of FP32 in BF16, on a 64-bit Arm CPU that has it.
        spec: The net's spec, for an engine without a sidecar. It takes precedence over the spec of a sidecar.
        allow_host_code: Lets a TensorRT plan run code on the host.
        tile: Height and width of the tiles that larger images are run in, so that memory does not grow with the image.
            They are rounded up to multiples of the net's stride, and fed with the pixels around them that the net sees:
            the results are those of the whole image. If None, every image is run as a whole.
        color: Channel order of the images that are passed in: `rgb`, or `bgr` for frames of OpenCV.
        contexts: How many calls on a TensorRT plan run at the same time; 8 if None. Others wait.
        graphs: How many CUDA graphs each of them keeps; 4 if None, and none with 0.
        specialization: When TensorRT-RTX compiles kernels for a shape: `lazy`, `eager` or `none`; see `RuntimeOptions`.

    Attributes:
        spec: The net's spec: classes, palette, normalisation.
        io: `image` if the engine maps uint8 images to labels, `tensor` if it maps normalised images to logits.
        backend: The name of the library that runs the engine.
        sidecar: The engine's sidecar; None if it has none.

    Raises:
        ArtifactError: Engine, sidecar and this machine do not fit together.
        DependencyError: A library or a device is missing.
        InputError: The file does not exist, or the sidecar cannot be read.
        UsageError: An option has a bad value or does not go with this engine, or the net cannot be run in tiles.
    """

    def __init__(
        self,
        engine: StrPath | Backend,
        *,
        threads: int | None = None,
        provider: Provider | None = None,
        device: int | None = None,
        device_name: str | None = None,
        fast_math: bool = False,
        spec: ModelSpec | None = None,
        allow_host_code: bool = False,
        tile: Size | None = None,
        color: ImageColor = "rgb",
        contexts: int | None = None,
        graphs: int | None = None,
        specialization: Specialization | None = None,
    ) -> None:
        options = RuntimeOptions(
            threads=threads,
            provider=provider,
            device=device,
            allow_host_code=allow_host_code,
            tile=tile,
            color=color,
            device_name=device_name,
            fast_math=fast_math,
            contexts=contexts,
            graphs=graphs,
            specialization=specialization,
        )
        path, sidecar = None, None
        if isinstance(engine, str | os.PathLike):
            path = as_path(engine)
            check_file(path, pipe=False)
            # The sidecar comes first: an engine that it rules out must never reach a library.
            sidecar = _checked_sidecar(path, spec)
            backend = open_backend(path, replace(options, tile=None, color="rgb"))
        else:
            _require_no_file_options(options)
            backend = engine
        self._backend: Backend | None = backend
        try:
            if backend.metadata.get(ENGINE_KEY) == "int8-vnni":
                require_exact_8_bits(path)
            self.sidecar = sidecar
            self.backend = backend.name
            self.io = _io(backend)
            self.spec = spec or (sidecar.spec if sidecar else _embedded_spec(backend, path))
            _check_channels(backend, self.io, self.spec)
            self._tiling = _tiling(tile, self.spec, self.fixed_shape) if tile is not None else None
        except FcnDeployError:
            if path is not None:  # it was opened here; a backend that the caller opened is not closed on an error
                self.close()
            raise
        self._bgr, self._threads = color == "bgr", threads
        self._file = "a backend" if path is None else path.name
        self._input, self._output = backend.inputs[0].name, backend.outputs[0].name

    @classmethod
    def open(cls, engine: StrPath | Backend, options: RuntimeOptions, *, spec: ModelSpec | None = None) -> Self:
        """Opens an engine with its options in one object: `Segmenter.open("a.onnx", RuntimeOptions(threads=2))`.

        Args:
            engine: As for `Segmenter`.
            options: How it runs.
            spec: As for `Segmenter`.
        """
        keywords: dict[str, Any] = {field.name: getattr(options, field.name) for field in fields(options)}
        return cls(engine, spec=spec, **keywords)

    def __repr__(self) -> str:
        precision = () if self.sidecar is None else (self.sidecar.precision.requested,)
        threads = () if self._threads is None else (f"threads {self._threads}",)
        state = "closed" if self._backend is None else "open"
        kind = (self.backend, f"io {self.io}", f"{self.spec.num_classes} classes")
        return printable(f"Segmenter({', '.join((self._file, *kind, *precision, *threads, state))})")

    def __call__(self, image: NDArray[np.uint8]) -> Labels:
        """Labels an image or a batch.

        Args:
            image: uint8 [H, W, 3] or [N, H, W, 3], RGB or what `color` says.

        Returns:
            Labels, [H, W] or [N, H, W], uint8 up to 256 classes, else int32.

        Raises:
            ClosedError: The segmenter is closed.
            InputError: `image` is not such an array, is smaller than the net takes, or does not have the size that a
                fixed engine takes.
        """
        labels = self._run(self._labels, self._rgb(image))
        return labels if image.ndim == 4 else labels[0]

    def logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores an image or a batch with an exported model or an engine built with `io="tensor"`.

        Args:
            image: uint8 [H, W, 3] or [N, H, W, 3], RGB or what `color` says; it is normalised here.

        Returns:
            float32 [C, H, W] or [N, C, H, W].

        Raises:
            ClosedError: The segmenter is closed.
            InputError: `image` is not such an array, is smaller than the net takes, or does not have the size that a
                fixed engine takes.
            WrongIoError: The engine gives labels only; this is also a TypeError.
        """
        self._require_open()
        if self.io == "image":
            raise WrongIoError(
                "this engine gives labels, not logits",
                got='an engine built with `io="image"`',
                expected='an engine built with `io="tensor"`, or an exported model',
                fix='build it again with `io="tensor"`',
            )
        logits = self._run(self._infer, self._rgb(image))
        return logits if image.ndim == 4 else logits[0]

    @property
    def fixed_batch(self) -> int | None:
        """The one batch size that the engine takes, or None if it takes more than one."""
        batch = self._require_open().inputs[0].shape[0]
        return batch if isinstance(batch, int) else None

    @property
    def fixed_shape(self) -> ImageShape | None:
        """The one shape of images that the engine takes, or None if it takes more than one."""
        sizes = self._require_open().inputs[0].shape
        batch, height, width = sizes[:3] if self.io == "image" else (sizes[0], *sizes[2:])
        if isinstance(batch, int) and isinstance(height, int) and isinstance(width, int):
            return ImageShape(batch, height, width)
        return None

    def close(self) -> None:
        """Frees the engine; every later call raises ClosedError."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    def _require_open(self) -> Backend:
        backend = self._backend
        if backend is None:
            raise ClosedError("this segmenter is closed", fix="open the engine again")
        return backend

    def _rgb(self, image: object) -> NDArray[np.uint8]:
        images = check_images(image)
        check_size(images, self.spec.min_size)
        return np.ascontiguousarray(images[..., ::-1]) if self._bgr else images

    def _run(self, net: Callable[[NDArray[np.uint8]], Array], images: NDArray[np.uint8]) -> Array:
        return net(images) if self._tiling is None else self._tiling.run(net, images)

    def _labels(self, images: NDArray[np.uint8]) -> Array:
        output = self._infer(images)
        return output if self.io == "image" else labels_of(output, self.spec)

    def _infer(self, images: NDArray[np.uint8]) -> Array:
        backend = self._require_open()
        feed = images if self.io == "image" else normalize(images, self.spec.normalization)
        return backend.infer({self._input: feed})[self._output]


def _require_no_file_options(options: RuntimeOptions) -> None:
    given = [name for name in options.asked if name not in ("tile", "color")]
    if given:
        raise UsageError(
            "options for opening a file do not go with a backend, which is open already",
            got=", ".join(f"`{name}`" for name in given),
            fix="pass them to what opens the backend",
        )


def _tiling(tile: Size, spec: ModelSpec, fixed: ImageShape | None) -> Tiling:
    if fixed is not None:
        raise UsageError(
            "this engine takes images of one shape only, so it cannot run larger ones in tiles",
            got=str(fixed),
            fix="build it from a model that was exported without `shape`",
        )
    if spec.receptive_field is None:
        raise UsageError(
            "this engine does not say how far its net sees, so it cannot run images in tiles",
            fix="export the net again; if it cannot be run in tiles, the debug log of the export says why",
        )
    return Tiling.of(tile, spec.receptive_field)


def _checked_sidecar(engine: Path, spec: ModelSpec | None) -> Sidecar | None:
    if find_sidecar(engine) is None and (spec is not None or kind_of(engine) != "plan"):
        return None  # a model may have its spec in its metadata; a plan has no metadata
    sidecar = load_sidecar(engine)
    check_cpu(sidecar, engine)
    return sidecar


def _io(backend: Backend) -> Io:
    kinds = {("image", "uint8", "labels"): "image", ("image", "float32", "logits"): "tensor"}
    inputs, outputs = backend.inputs, backend.outputs
    if len(inputs) == len(outputs) == 1:
        kind = kinds.get((inputs[0].name, inputs[0].dtype, outputs[0].name))
        if kind:
            return kind  # type: ignore[return-value]
    raise ArtifactError(
        "the engine does not have the inputs and outputs of a segmentation engine",
        got="; ".join(map(str, (*inputs, *outputs))),
        expected="image and labels, or image and logits",
        fix="make it with fcn-deploy export",
    )


def _check_channels(backend: Backend, io: Io, spec: ModelSpec) -> None:
    channels = backend.outputs[0].shape[1] if io == "tensor" and len(backend.outputs[0].shape) == 4 else None
    if isinstance(channels, int) and channels != spec.channels:
        raise ArtifactError(
            "the spec belongs to another net",
            got=f"logits of {spec.channels} channels",
            expected=f"{channels}, as the engine has",
        )


def _embedded_spec(backend: Backend, path: Path | None) -> ModelSpec:
    """Reads the spec in the metadata of an exported model; an engine needs its sidecar."""
    if path is not None and ENGINE_KEY in backend.metadata:
        load_sidecar(path)  # raises, because the sidecar is missing
    if METADATA_KEY not in backend.metadata:
        raise ArtifactError(
            "nothing says how the engine's images are normalised and what its classes are",
            expected=f"a sidecar, or {METADATA_KEY} in the model's metadata",
            fix="copy the sidecar along with the engine, or pass `spec`",
        )
    try:
        return ModelSpec.loads(backend.metadata[METADATA_KEY])
    except InputError as error:
        raise ArtifactError(f"the model's metadata: {error}") from error
