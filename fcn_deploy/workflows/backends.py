"""Which library an engine is built for, what it can do on this machine, and its builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.engines.checks import (
    ONNXRUNTIME,
    OPENVINO,
    SIMULATION,
    check_onnxruntime,
    check_openvino,
    check_simulation,
    check_tensorrt,
)
from fcn_deploy.engines.config import Base, BuildConfig
from fcn_deploy.engines.engine import Engine
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.errors import DependencyError, UsageError
from fcn_deploy.files import check_writable
from fcn_deploy.installation import install_command
from fcn_deploy.progress import Progress
from fcn_deploy.runtime.tensorrt.driver import Gpu, find_gpus
from fcn_deploy.runtime.tensorrt.flavor import BUILDERS, FLAVORS, Flavor, find_flavor
from fcn_deploy.workflows.parameters import check_suffix

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel

AUTO, TENSORRT = "auto", "tensorrt"
_ONNX = (".onnx",)
# The backends whose engines are ONNX files.
_OF_ONNX = (ONNXRUNTIME, OPENVINO, SIMULATION)
_PLANS = (".engine", ".plan")


@dataclass(frozen=True)
class Job:
    """One engine to build, and where its files go.

    Attributes:
        backend: `onnxruntime`, `openvino`, a TensorRT flavor, or `simulation`.
        config: What to build.
        tensorrt: The options of TensorRT's builders.
        base: What the user says an INT8 engine computes in where it is not quantised; None for the backend's default.
        output: The file of the engine; None if it is not written.
        log: Where to write what a TensorRT library says; None for nowhere.
        simulate: The flavor whose graph a simulation computes.
    """

    backend: str
    config: BuildConfig
    tensorrt: TensorRTConfig
    base: Base | None = None
    output: Path | None = None
    log: Path | None = None
    simulate: str = TENSORRT

    @property
    def flavor(self) -> Flavor | None:
        """The TensorRT flavor that builds the engine, or whose graph is simulated; None for other backends."""
        name = self.simulate if self.backend == SIMULATION else self.backend
        return FLAVORS.get(name)

    @property
    def is_onnxruntime(self) -> bool:
        """Whether the engine is for ONNX Runtime's kernels, not a plan or a simulation of one."""
        return self.backend == ONNXRUNTIME

    def check(self) -> None:
        """Checks, before images are calibrated on, that the backend can build what is asked for on this machine.

        Raises:
            DependencyError: The backend's library is not installed, or the GPU that it needs is missing.
            InputError: The log cannot be written.
            UsageError: The backend cannot do what is asked for.
        """
        if self.simulate != TENSORRT and (self.backend != SIMULATION or self.flavor is None or not self.flavor.builds):
            raise UsageError(
                "no such simulation",
                got=f"`simulate` {self.simulate} for {self.backend}",
                expected=f"{' or '.join(each.name for each in BUILDERS)}, with `backend={SIMULATION}`",
            )
        if self.log is not None and self.backend in _OF_ONNX:
            got = f"`log` for {self.backend}"
            raise UsageError("a log is for TensorRT's builders", got=got, fix="leave it out")
        if self.log is not None:
            check_writable(self.log)
        if self.is_onnxruntime:
            check_onnxruntime(self.config, self.tensorrt)
            if self.base is not None:
                got = f'`base="{self.base}"` for {self.backend}'
                raise UsageError("what ONNX Runtime runs in float is FP32", got=got, fix="leave it out")
        elif self.backend == OPENVINO:
            check_openvino(self.config, self.base, self.tensorrt)
        elif self.backend == SIMULATION:
            check_simulation(self.config, self.tensorrt)
        else:
            check_tensorrt(find_flavor(self.backend), self.config, self.tensorrt)

    def build(self, model: ExportedModel, ranges: Ranges | None, progress: Progress) -> Engine:
        """Builds the engine; see the builder of its backend for what is raised."""
        # Imported here: what is wrong with the options is said before the second that these take.
        if self.is_onnxruntime:
            with progress.working(f"building {self.config.precision}, {self.backend}"):
                from fcn_deploy.engines.onnxruntime import build_onnxruntime

                return build_onnxruntime(model, self.config, ranges)
        if self.backend == OPENVINO:
            with progress.working(f"building {self.config.precision}, {self.backend}"):
                from fcn_deploy.engines.openvino import build_openvino

                return build_openvino(model, self.config, ranges, self.base)
        if self.backend == SIMULATION:
            with progress.working(f"building {self.config.precision}, {self.backend}"):
                from fcn_deploy.engines.simulation import build_simulation

                flavor = find_flavor(self.simulate)
                return build_simulation(model, self.config, self.tensorrt.base, ranges, progress, flavor)
        from fcn_deploy.engines.tensorrt.builder import build_tensorrt

        flavor = find_flavor(self.backend)
        return build_tensorrt(flavor, model, self.config, self.tensorrt, ranges, progress, self.log)

    def in_fp16(self) -> Job:
        """Returns the same in FP16 throughout: for `net.int8.engine` and `net.engine`, `net.fp16.engine`."""
        return replace(
            self,
            config=self.config.as_float("fp16"),
            tensorrt=replace(self.tensorrt, base="fp16"),
            output=_in_fp16(self.output) if self.output else None,
            log=_in_fp16(self.log) if self.log else None,
        )


def chooses_library(requested: str, output: Path | None) -> bool:
    """Returns whether `tune` is to choose the library: the user named none, and no plan is asked for."""
    return requested == AUTO and (output is None or output.suffix in _ONNX)


def choose_backend(
    requested: str,
    output: Path | None,
    progress: Progress,
    *,
    gpus: Callable[[], Sequence[Gpu]] | None = None,
) -> str:
    """Returns the backend that an engine is built for.

    Args:
        requested: A backend, or `auto`, which chooses by the suffix of the output.
        output: Where the engine will be written; `auto` takes ONNX Runtime if it is not written.
        progress: Told what `auto` took, and why.
        gpus: Finds the GPUs of this machine; asks its driver if None.

    Raises:
        DependencyError: No backend that `auto` may take for this suffix can build on this machine.
        UsageError: The suffix does not fit the backend, or the backend is unknown.
    """
    if requested not in (AUTO, *_OF_ONNX, *FLAVORS):
        expected = ", ".join((AUTO, *_OF_ONNX, *(flavor.name for flavor in BUILDERS)))
        raise UsageError("unknown `backend`", got=repr(requested), expected=expected)
    of_onnx = requested in (*_OF_ONNX, AUTO)
    of_plans = requested not in _OF_ONNX
    if output is not None:
        check_suffix(output, *(_ONNX if of_onnx else ()), *(_PLANS if of_plans else ()))
    if requested != AUTO:
        return requested
    if output is None or output.suffix in _ONNX:
        reason = "nothing is written" if output is None else f"{output.name} ends in {output.suffix}"
        progress.stage(f"backend: {ONNXRUNTIME}, because {reason}")
        return ONNXRUNTIME
    flavor, passed_over = _first_flavor(gpus or find_gpus)
    reasons = [f"{output.name} ends in {output.suffix}", *passed_over]
    progress.stage(f"backend: {flavor.name}, because {' and '.join(reasons)}")
    return flavor.name


def _first_flavor(gpus: Callable[[], Sequence[Gpu]]) -> tuple[Flavor, list[str]]:
    """The first flavor that can build here, and why those before it cannot."""
    passed_over = []
    for flavor in BUILDERS:
        try:
            flavor.check_installed()
            if not flavor.builds_without_gpu:
                gpus()
        except DependencyError as error:
            passed_over.append(f"{flavor.name} cannot build here ({error.what})")
        else:
            return flavor, passed_over
    raise DependencyError(
        "no TensorRT library can build an engine here",
        got="; ".join(passed_over),
        fix=" or ".join(install_command(flavor.extra) for flavor in reversed(BUILDERS)),
    )


def _in_fp16(path: Path) -> Path:
    return path.with_name(f"{path.stem.removesuffix('.int8')}.fp16{path.suffix}")
