"""What `deploy` builds, and on which images it observes, decides and verifies."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, get_args

from fcn_deploy.artifacts.sidecar import Io
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.engines.checks import ONNXRUNTIME, OPENVINO, check_onnxruntime, check_openvino
from fcn_deploy.engines.config import (
    AUTO_METHOD,
    DEFAULT_METHOD,
    BuildConfig,
    RequestedPrecision,
    TargetCpu,
    default_target,
)
from fcn_deploy.engines.tensorrt.profiles import ImageProfile
from fcn_deploy.errors import ArtifactError, UsageError
from fcn_deploy.evaluation.gates import Criterion, GateOption, gates_by_precision
from fcn_deploy.evaluation.speedup import check_required
from fcn_deploy.runtime.cpu import exact_8_bits
from fcn_deploy.runtime.tensorrt.flavor import Flavor, find_flavor
from fcn_deploy.workflows.image_profiles import check_single

_log = logging.getLogger(__name__)
_FEW_JUDGED = 20

# The first two run on this machine's CPU, and so can be measured here; the others need a GPU, here or elsewhere.
DeployBackend = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
_OF_CPUS = (ONNXRUNTIME, OPENVINO)

# What may be built, in the order in which it is: each keeps fewer labels than the one before. FP16 is for GPUs, FP32
# and BF16 for CPUs.
PRECISIONS: tuple[RequestedPrecision, ...] = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class DeployConfig:
    """What is built, apart from the files that it is made from.

    Attributes:
        int8: Whether INT8 is built beside FP32.
        calib_method: How INT8 ranges are chosen, or None.
        io: Of the engines.
        target_cpu: Of the engines; None for the default of the backend.
        has_labels: Whether there is ground truth.
        gates: As the user asked for them.
        backend: What runs them.
        bf16: Whether BF16 is built beside FP32.
        require_speedup: The least that FP32's time over INT8's has to be; None for no such gate.
        profiles: For GPUs: the shapes of images that the engines take; empty for those of the images.
        bundle: For GPUs: whether a bundle is written even if the engines can be built and run here.

    Raises:
        ArtifactError: An INT8 engine for CPUs with VNNI cannot be verified on this one.
        DependencyError: The backend's library is not installed, or this CPU has no BF16.
        UsageError: The options do not go together.
    """

    int8: bool
    calib_method: str | None
    io: Io
    target_cpu: TargetCpu | None
    has_labels: bool
    gates: tuple[GateOption, ...]
    backend: DeployBackend = "onnxruntime"
    bf16: bool = False
    require_speedup: float | None = None
    profiles: tuple[ImageProfile, ...] = ()
    bundle: bool = False

    def __post_init__(self) -> None:
        if self.calib_method is not None and not self.int8:
            raise UsageError("calibration is for INT8", got="`calib_method`", fix="add `int8=True`, or leave it out")
        if self.backend not in get_args(DeployBackend):
            expected = " or ".join(get_args(DeployBackend))
            raise UsageError("`deploy` has no such `backend`", got=repr(self.backend), expected=expected)
        if self.flavor is not None:
            self._check_for_gpu(self.flavor)
        elif self.profiles or self.bundle:
            got = f"{'`bundle`' if self.bundle else '`opt_shape`'} for {self.backend}"
            raise UsageError("bundles and profiles are for TensorRT engines", got=got, fix="leave it out")
        if self.require_speedup is not None:
            check_required(self.require_speedup)
            if not self.int8:
                got = "`require_speedup` without INT8"
                raise UsageError("a speed-up is required of INT8", got=got, fix="add `int8=True`, or leave it out")
        for precision in self.precisions:
            config = self.build_config(precision)
            if self.backend == OPENVINO:
                check_openvino(config, None)
            elif self.backend == ONNXRUNTIME:
                check_onnxruntime(config)
        _ = self.criteria
        if self.int8 and self.build_config("int8").target_cpu == "vnni" and not exact_8_bits():
            raise ArtifactError(
                "an INT8 engine for CPUs with VNNI or 64-bit Arm cannot be verified on this one",
                fix='deploy with `target_cpu="generic"`, or build the engine and verify it where it will run',
            )

    def _check_for_gpu(self, flavor: Flavor) -> None:
        if self.bf16:
            what = f"`deploy` builds FP16 and INT8 for {flavor.name}"
            raise UsageError(what, got="`bf16`", fix="leave it out")
        if self.target_cpu is not None:
            got = f'`target_cpu="{self.target_cpu}"`'
            raise UsageError("a target CPU for a GPU's engine", got=got, fix="leave it out")
        if self.require_speedup is not None:
            what = "the faster engine is shipped in any case, and which that is shows on the GPU"
            raise UsageError(what, got=f"`require_speedup` for {flavor.name}", fix="leave it out")
        check_single(self.profiles)

    @property
    def flavor(self) -> Flavor | None:
        """The library of NVIDIA that the engines are for; None for engines that run on CPUs."""
        return None if self.backend in _OF_CPUS else find_flavor(self.backend)

    @property
    def calibrates(self) -> bool:
        """Whether ranges are needed: for INT8, and to find what FP16 cannot hold."""
        return self.int8 or self.flavor is not None

    @property
    def precisions(self) -> tuple[RequestedPrecision, ...]:
        """What is built, FP32 first, or for GPUs FP16."""
        floats = ("fp32",) if self.flavor is None else ("fp16",)
        wanted = (*floats, *(("int8",) if self.int8 else ()), *(("bf16",) if self.bf16 else ()))
        return tuple(each for each in PRECISIONS if each in wanted)

    @property
    def auto(self) -> bool:
        """Whether the calibration method is chosen on images."""
        return self.int8 and self.calib_method == AUTO_METHOD

    @property
    def criteria(self) -> dict[str, tuple[Criterion, ...]]:
        """What the engine must keep, by precision; only precisions for which the user asked for a gate."""
        not_measured = {}
        if not self.has_labels:
            not_measured["miou_drop"] = "name images and their ground truth with `data` and `labels`"
        if self.io == "image":
            not_measured["error"] = 'build with `io="tensor"`, for engines that give logits'
        return gates_by_precision(self.gates, self.precisions, not_measured)

    def build_config(self, precision: RequestedPrecision) -> BuildConfig:
        """Returns the options of the builder."""
        method = DEFAULT_METHOD
        if precision == "int8" and self.calib_method not in (None, AUTO_METHOD):
            method = str(self.calib_method)
        return BuildConfig(precision, self.io, method, self.target_cpu or default_target(self.backend, precision))


def split_images(
    calibration: ImageFolder, data: ImageFolder | None, config: DeployConfig
) -> tuple[ImageFolder, ImageFolder, ImageFolder | None]:
    """Returns the images to observe, to verify on, and, if the method is `auto`, to choose it on."""
    if data is None:
        observed, judged = calibration.every_fifth()
    else:
        observed, judged = calibration, data
    if len(judged) < _FEW_JUDGED:
        _log.warning("the gate will rest on %d images; name more with `data`, or calibrate on more", len(judged))
    if not config.auto:
        return observed, judged, None
    observed, decided_on = observed.every_fifth()
    return observed, judged, decided_on
