"""`verify`: compares an engine with a reference and checks it against its gate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fcn_deploy.artifacts.geometry import PadMode, SizeDivisor
from fcn_deploy.artifacts.measures import Parity
from fcn_deploy.artifacts.outputs import ResizeMode
from fcn_deploy.artifacts.sidecar import Io
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.errors import GateError, UsageError
from fcn_deploy.evaluation.comparison import compare
from fcn_deploy.evaluation.gates import Criterion, GateOption, GateResult, check_gate, gates_by_precision
from fcn_deploy.evaluation.truth import parity_warnings
from fcn_deploy.files import StrPath
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.runtime.backend import Provider
from fcn_deploy.runtime.options import RuntimeOptions
from fcn_deploy.runtime.tensorrt.settings import Specialization
from fcn_deploy.text import printable
from fcn_deploy.workflows.image_sizes import check_image_sizes
from fcn_deploy.workflows.parameters import gate_options, image_folder, outputs, padding
from fcn_deploy.workflows.references import (
    PYTORCH,
    NetCode,
    Runnable,
    check_not_itself,
    check_runnables,
    name_of,
    opened,
)
from fcn_deploy.workflows.samples import samples


@dataclass(frozen=True)
class Verification:
    """How an engine compares with a reference, and whether that is enough.

    Attributes:
        engine: Name of what was verified.
        reference: Name of what it was compared with.
        precision: Of the engine, by which its gate was chosen: `fp32`, `tf32`, `fp16`, `bf16`, `int8` or `fp8`.
        parity: What the comparison found.
        result: Of the gate.
        noise: Whether the engine was calibrated on noise, not on images.
    """

    engine: str
    reference: str
    precision: str
    parity: Parity
    result: GateResult
    noise: bool = False

    def __repr__(self) -> str:
        outcome = "passed" if self.passed else "failed"
        found = f"agreement {self.agreement:.3%}, {self.parity.images} images"
        return printable(f"Verification({self.engine} against {self.reference}, {self.precision}, {outcome}, {found})")

    @property
    def passed(self) -> bool:
        """Whether the gate was met."""
        return self.result.gate.passed

    @property
    def agreement(self) -> float:
        """Share of pixels with the same label, 0..1."""
        return self.parity.agreement

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the agreement; NaN for fewer than two images."""
        return self.parity.agreement_low, self.parity.agreement_high

    @property
    def error(self) -> float | None:
        """Largest difference of the logits as a share of their range; None if one side gives labels only."""
        return self.parity.error

    @property
    def sqnr(self) -> float | None:
        """Signal to quantisation noise ratio of the logits in dB; None if one side gives labels only."""
        return self.parity.sqnr

    def require_passed(self) -> None:
        """Raises if the gate was missed.

        Raises:
            GateError: It was; the message says by how much.
        """
        if not self.passed:
            outcome = "is too far from" if self.parity.measured else "could not be compared with"
            error = GateError(
                f"{self.engine} {outcome} {self.reference}",
                got="; ".join(self.result.failures),
                fix=None if self.parity.measured else self._advice(),
            )
            error.report = self
            raise error

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be known before the figures are believed, a sentence each."""
        return tuple(parity_warnings(self.engine, self.parity))

    def _advice(self) -> str:
        if self.parity.only_label is not None:
            return "verify on images on which the net finds several classes, and check the normalisation"
        return "look for what overflows in the net, such as a division by zero or an FP16 layer"

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON data."""
        names = {"engine": self.engine, "reference": self.reference, "precision": self.precision}
        return {**names, **asdict(self.parity), **asdict(self.result), "warnings": list(self.warnings)}


def verify(
    engine: Runnable,
    reference: Runnable | None = None,
    data: StrPath | ImageFolder | None = None,
    *,
    weights: StrPath | None = None,
    max_images: int | None = None,
    recursive: bool = False,
    gate: Sequence[str | GateOption] | str = (),
    model: str | None = None,
    size_divisor: SizeDivisor | None = None,
    pad_mode: PadMode | None = None,
    logits: str | int | None = None,
    resize_logits: ResizeMode | None = None,
    weights_key: str | None = None,
    weights_prefix: str | None = None,
    weights_ignore: Sequence[str] | str = (),
    threads: int | None = None,
    provider: Provider | None = None,
    device: int | None = None,
    device_name: str | None = None,
    fast_math: bool = False,
    allow_host_code: bool = False,
    contexts: int | None = None,
    graphs: int | None = None,
    specialization: Specialization | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compares an engine with a reference on images, and checks the result against a gate.

    Args:
        engine: A file, or what `build_engine` or `export` gave.
        reference: An exported model, an engine, or `pytorch:` and the path of a checkpoint.
        data: Folder of images to compare on.
        weights: A checkpoint; the same as the reference `pytorch:CHECKPOINT`.
        max_images: At most so many, evenly spread over the folder.
        recursive: Whether sub-folders of the folder are searched too.
        gate: What the engine must keep, such as `agreement>=98%` or `error<=1e-3`; if empty, the gate of its
            precision: FP32 99.99% agreement and an error of 1e-4, FP16 99.5%, INT8 97%.
        model: What makes the checkpoint's net if it is a custom net.
        size_divisor: How that net is padded.
        pad_mode: Likewise.
        logits: Which of its outputs are the logits.
        resize_logits: How they are resized.
        weights_key: The entry of the checkpoint that holds the weights.
        weights_prefix: Only its tensors under this prefix are taken, without it.
        weights_ignore: Globs; its entries that match one are left out.
        threads: CPU threads; the library's default if None.
        provider: What ONNX Runtime runs on: `cpu` (the default) or `cuda`.
        device: Index of the GPU.
        device_name: What OpenVINO runs on: `CPU`, `GPU` or `NPU`; the CPU if None.
        fast_math: Lets ONNX Runtime multiply matrices of FP32 in BF16, on a 64-bit Arm CPU that has it; never in
            the reference.
        allow_host_code: Lets a TensorRT plan run code on the host.
        contexts: How many calls on a TensorRT plan run at the same time; 8 if None.
        graphs: How many CUDA graphs each of them keeps; 4 if None, and none with 0.
        specialization: When TensorRT-RTX compiles kernels for a shape: `lazy`, in the background; `eager`, before its
            first run; or `none`. If None, `eager` for plans of fixed shapes, else `lazy`.
        progress: Told of each image.

    Returns:
        What was found; a missed gate does not raise, but `require_passed` does.

    Raises:
        ArtifactError: The engine does not fit this machine or its sidecar.
        DependencyError: A library, a driver or a GPU is missing.
        InputError: A file cannot be read or does not fit.
        UsageError: Options do not go together, the engine is its own reference, or a gate is for a measure that is not
            taken here.

    Example:
        >>> import fcn_deploy as fd
        >>> fd.verify("fcn8s.int8.onnx", "fcn8s.onnx", "street/images").require_passed()
    """
    if (reference is None) == (weights is None):
        raise UsageError("verify needs one reference", expected="`reference` or `weights`")
    if data is None:
        raise UsageError("verify needs images", expected="`data`")
    against = f"{PYTORCH}{os.fspath(weights)}" if weights is not None else reference
    assert against is not None
    code = NetCode(
        model,
        padding(model, size_divisor, pad_mode),
        outputs(model, logits, resize_logits),
        weights_key,
        weights_prefix,
        weights_ignore,
    )
    runtime = RuntimeOptions(
        threads=threads,
        provider=provider,
        device=device,
        device_name=device_name,
        fast_math=fast_math,
        allow_host_code=allow_host_code,
        contexts=contexts,
        graphs=graphs,
        specialization=specialization,
    )
    options = gate_options(gate)
    stated, other = check_runnables((engine, against), runtime, code)
    check_not_itself(engine, against)
    precision = stated.precision.gated_as if stated else "fp32"
    _criteria(options, precision, [sidecar.io for sidecar in (stated, other) if sidecar])
    images = image_folder(data, max_images=max_images, recursive=recursive)
    with opened((engine, against), runtime, code, progress, against) as (candidate, compared):
        check_image_sizes(images, candidate.spec.min_size)
        criteria = _criteria(options, precision, (candidate.io, compared.io))
        found = compare(compared, [candidate], samples(images, None, "verifying", progress=progress or Silent()), None)
        calibration = stated.source.calibration if stated else None
    parity = found.engines[0].parity
    return Verification(
        engine=name_of(engine),
        reference=name_of(against),
        precision=precision,
        parity=parity,
        result=check_gate(precision, parity, criteria=criteria),
        noise=bool(calibration and calibration.get("random")),
    )


def _criteria(options: Sequence[GateOption], precision: str, ios: Sequence[Io | None]) -> tuple[Criterion, ...]:
    """Returns what the engine must keep; what the files say about themselves is enough to refuse most gates."""
    not_measured = {"miou_drop": "ask for agreement; evaluate measures the drop, with `labels` and `reference`"}
    if "image" in ios:
        not_measured["error"] = 'compare an engine built with `io="tensor"` with an exported model or a checkpoint'
    return gates_by_precision(options, [precision], not_measured).get(precision, ())
