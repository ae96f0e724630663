"""Segmenter: an engine as a function from images to labels. The class users embed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, Io, Sidecar, load_sidecar, sidecar_path
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.errors import ArtifactError, ClosedError, FcnDeployError, InputError, UsageError, WrongIoError
from fcn_deploy.runtime.backend import PLAN_SUFFIXES, Array, Backend, Provider
from fcn_deploy.runtime.cpu import has_vnni
from fcn_deploy.runtime.image import check_images, normalize
from fcn_deploy.runtime.open import open_backend
from fcn_deploy.runtime.tiling import Size, Tiling

Labels = NDArray[np.integer[Any]]


class Segmenter:
    """Labels every pixel of an image with an engine.

    Calls from several threads are safe. Use it as a context manager, or call `close`.

    Args:
        engine: A file made by `build-engine`, with its sidecar beside it; an exported ONNX model; or a Backend.
        threads: CPU threads of one inference of an ONNX engine; the library's default where None.
        provider: `cpu` or `cuda`, for ONNX engines; the CPU where None.
        device: Index of the GPU.
        spec: The net, for an engine without a sidecar; where there is one it takes precedence over its spec.
        allow_host_code: Lets a TensorRT plan run code on the host.
        tile: Height and width of the tiles that larger images are run in, for memory that does not grow with the image;
            rounded up to multiples of the net's stride, and fed with as much around them as the net sees. The results
            are those of the image as a whole. None runs every image as a whole.

    Raises:
        ArtifactError: Engine, sidecar and this machine do not fit together.
        DependencyError: A library or a device is missing.
        InputError: The file does not exist, or the sidecar cannot be read.
        UsageError: An option does not go with this engine; or `tile`, and the net cannot be run in tiles.
    """

    def __init__(
        self,
        engine: str | Path | Backend,
        *,
        threads: int | None = None,
        provider: Provider | None = None,
        device: int | None = None,
        spec: ModelSpec | None = None,
        allow_host_code: bool = False,
        tile: Size | None = None,
    ) -> None:
        path = Path(engine) if isinstance(engine, str | Path) else None
        if path is None and (threads, provider, device, allow_host_code) != (None, None, None, False):
            raise UsageError("these options are for opening a file", got="a backend that is open already")
        # The sidecar comes first: what it rules out must never reach a library.
        sidecar = _checked_sidecar(path, spec) if path else None
        self._backend: Backend | None = (
            open_backend(path, threads=threads, provider=provider, device=device, allow_host_code=allow_host_code)
            if path
            else engine  # type: ignore[assignment]
        )
        backend = self._open_backend()
        try:
            if backend.metadata.get(ENGINE_KEY) == "int8-vnni":
                _require_vnni(path)
            self.sidecar = sidecar
            self.backend = backend.name
            self.io = _io(backend)
            self.spec = spec or (sidecar.spec if sidecar else _embedded_spec(backend, path))
            _check_classes(backend, self.io, self.spec)
            self._tiling = _tiling(tile, self.spec, self.fixed_shape) if tile is not None else None
        except FcnDeployError:
            if path is not None:  # what was opened here; a backend that was given stays its owner's
                self.close()
            raise
        self._input, self._output = backend.inputs[0].name, backend.outputs[0].name

    def __call__(self, image: NDArray[np.uint8]) -> Labels:
        """Labels an image or a batch.

        Args:
            image: uint8 [H, W, 3] or [N, H, W, 3], RGB.

        Returns:
            Labels 0..C-1, [H, W] or [N, H, W], uint8 up to 256 classes, else int32.

        Raises:
            ClosedError: The segmenter has been closed.
            InputError: `image` is no such array, or not of the size a fixed engine takes.
        """
        labels = self._run(self._labels, check_images(image))
        return labels if image.ndim == 4 else labels[0]

    def logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores an image or a batch, with an engine built with `--io tensor` or an exported model.

        Args:
            image: uint8 [H, W, 3] or [N, H, W, 3], RGB; normalised here.

        Returns:
            float32 [C, H, W] or [N, C, H, W].

        Raises:
            ClosedError: The segmenter has been closed.
            InputError: `image` is no such array, or not of the size a fixed engine takes.
            WrongIoError: The engine gives labels only; also a TypeError.
        """
        self._open_backend()
        if self.io == "image":
            raise WrongIoError(
                "this engine gives labels, not logits",
                got="an engine built with --io image",
                expected="one built with --io tensor",
                fix="fcn-deploy build-engine --io tensor",
            )
        logits = self._run(self._infer, check_images(image))
        return logits if image.ndim == 4 else logits[0]

    @property
    def fixed_batch(self) -> int | None:
        """The one batch size the engine takes, or None where any does."""
        batch = self._open_backend().inputs[0].shape[0]
        return batch if isinstance(batch, int) else None

    @property
    def fixed_shape(self) -> ImageShape | None:
        """The one shape of images the engine takes, or None where it takes more than one."""
        sizes = self._open_backend().inputs[0].shape
        batch, height, width = sizes[:3] if self.io == "image" else (sizes[0], *sizes[2:])
        if isinstance(batch, int) and isinstance(height, int) and isinstance(width, int):
            return ImageShape(batch, height, width)
        return None

    def close(self) -> None:
        """Frees the engine; every later call raises ClosedError."""
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_backend(self) -> Backend:
        backend = self._backend
        if backend is None:
            raise ClosedError("this segmenter is closed", fix="open the engine again")
        return backend

    def _run(self, net: Callable[[NDArray[np.uint8]], Array], images: NDArray[np.uint8]) -> Array:
        return net(images) if self._tiling is None else self._tiling.run(net, images)

    def _labels(self, images: NDArray[np.uint8]) -> Array:
        output = self._infer(images)
        if self.io == "image":
            return output
        labels: Array = output.argmax(axis=1).astype(np.uint8 if self.spec.num_classes <= 256 else np.int32)
        return labels

    def _infer(self, images: NDArray[np.uint8]) -> Array:
        backend = self._open_backend()
        feed = images if self.io == "image" else normalize(images, self.spec.normalization)
        return backend.infer({self._input: feed})[self._output]


def _tiling(tile: Size, spec: ModelSpec, fixed: ImageShape | None) -> Tiling:
    if fixed is not None:
        raise UsageError(
            "this engine takes images of one shape, so it cannot be run in tiles",
            got=str(fixed),
            fix="build it of a model that was exported without --shape",
        )
    if spec.receptive_field is None:
        raise UsageError(
            "this engine does not say how far its net sees, so it cannot be run in tiles",
            fix="export the net again; where it cannot be run in tiles, fcn-deploy export --debug says why",
        )
    return Tiling.of(tile, spec.receptive_field)


def _checked_sidecar(engine: Path, spec: ModelSpec | None) -> Sidecar | None:
    if not sidecar_path(engine).is_file() and (spec is not None or engine.suffix not in PLAN_SUFFIXES):
        return None  # a model may have its spec in its metadata, a plan has none
    sidecar = load_sidecar(engine)
    if "int8" in sidecar.precision.layers.values() and sidecar.target.get("cpu") == "vnni":
        _require_vnni(engine)
    return sidecar


def _require_vnni(engine: Path | None) -> None:
    if not has_vnni():
        raise ArtifactError(
            f"{engine or 'the engine'} was built for CPUs with VNNI, whose 8-bit products do not saturate",
            got="a CPU without it" if has_vnni() is False else "a system that does not say what its CPU has",
            fix="build it with --target-cpu generic, or run it on such a CPU",
        )


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
        fix="export the net with fcn-deploy export",
    )


def _check_classes(backend: Backend, io: Io, spec: ModelSpec) -> None:
    classes = backend.outputs[0].shape[1] if io == "tensor" and len(backend.outputs[0].shape) == 4 else None
    if isinstance(classes, int) and classes != spec.num_classes:
        raise ArtifactError(
            "the spec is that of another net",
            got=f"{spec.num_classes} classes",
            expected=f"{classes}, as the engine has",
        )


def _embedded_spec(backend: Backend, path: Path | None) -> ModelSpec:
    """The spec in the model's metadata, which only an exported model may run by."""
    if path is not None and ENGINE_KEY in backend.metadata:
        load_sidecar(path)  # raises: an engine without its sidecar
    if METADATA_KEY not in backend.metadata:
        raise ArtifactError(
            "nothing says how the engine's images are normalised and what its classes are",
            expected=f"a sidecar, or {METADATA_KEY} in the model's metadata",
            fix="copy the sidecar along with the engine, or pass spec= to Segmenter",
        )
    try:
        return ModelSpec.loads(backend.metadata[METADATA_KEY])
    except InputError as error:
        raise ArtifactError(f"the model's metadata: {error}") from error
