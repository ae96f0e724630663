"""The folder of a deployment: what is written into it, and what is removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sensitivity import Sensitivity
from fcn_deploy.artifacts.sidecar import sidecar_path
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.bundle.folder import remove_bundle
from fcn_deploy.bundle.manifest import PRECISIONS as BUNDLED
from fcn_deploy.engines.engine import Engine
from fcn_deploy.errors import GateError
from fcn_deploy.files import check_writable, exists, write_bytes, write_json
from fcn_deploy.progress import Progress
from fcn_deploy.reporting.gallery import Kept, gallery_of
from fcn_deploy.runtime.tensorrt.kernel_cache import kernel_cache_path
from fcn_deploy.workflows.deploy_config import PRECISIONS
from fcn_deploy.workflows.on_device import engine_file
from fcn_deploy.workflows.reporting import (
    RANGES,
    SENSITIVITY,
    check_report_files,
    remove_report,
    report,
    write_pictures,
)

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel

# The name of the bundle in the output folder.
BUNDLE = "bundle"


@dataclass(frozen=True)
class OutputFiles:
    """The files of a deployment.

    Attributes:
        folder: The output folder.
        variant: Of the net.
    """

    folder: Path
    variant: str

    @property
    def model(self) -> Path:
        """The exported model."""
        return self.folder / f"{self.variant}.onnx"

    @property
    def ranges(self) -> Path:
        """The ranges."""
        return self.folder / f"{self.variant}{RANGES}"

    @property
    def sensitivity(self) -> Path:
        """What INT8 costs in each layer, which is measured if INT8 missed its gate."""
        return self.folder / f"{self.variant}{SENSITIVITY}"

    @property
    def summary(self) -> Path:
        """The summary."""
        return self.folder / "summary.json"

    @property
    def bundle(self) -> Path:
        """The bundle for a device with a GPU."""
        return self.folder / BUNDLE

    def engine(self, precision: str) -> Path:
        """The engine of a precision, for a CPU."""
        return self.folder / f"{self.variant}.{precision}.onnx"

    @property
    def plans(self) -> list[Path]:
        """The engines that may have been built for a GPU."""
        return [self.folder / engine_file(self.variant, precision) for precision in BUNDLED]

    @property
    def engines(self) -> list[Path]:
        """All engines that there may be."""
        return [*map(self.engine, PRECISIONS), *self.plans]

    def check_writable(self) -> None:
        """Checks that each of them can be written.

        Raises:
            InputError: One cannot, because it is a folder, for example.
        """
        plain = (self.model, self.ranges, self.sensitivity, self.summary)
        for path in (*plain, *self.engines, *map(sidecar_path, self.engines)):
            check_writable(path)
        check_report_files(self.folder)

    def remove_earlier(self, *, bundle: bool) -> list[Path]:
        """Removes what an earlier deployment wrote; sidecars first, because no engine runs without one.

        What is removed are engines, ranges, a sensitivity, and the report with its pictures.

        Args:
            bundle: Whether a bundle is kept, because it is of this deployment.

        Returns:
            What was removed.
        """
        caches = map(kernel_cache_path, self.plans)
        made = (*map(sidecar_path, self.engines), *self.engines, *caches, self.ranges, self.sensitivity)
        found = [path for path in made if exists(path)]
        for path in found:
            path.unlink()
        found += remove_report(self.folder)
        return found if bundle or not remove_bundle(self.bundle) else [*found, self.bundle]


def publish(
    files: OutputFiles,
    model: ExportedModel,
    ranges: Ranges | None,
    engines: Mapping[str, Engine],
    summary: Summary,
    progress: Progress,
    *,
    bundle: bool = False,
    caches: Mapping[str, bytes] | None = None,
    sensitivity: Sensitivity | None = None,
    kept: Mapping[str, Sequence[Kept]] | None = None,
) -> Summary:
    """Writes what a deployment has made, and says what was written.

    Args:
        files: Where it goes.
        model: The exported model.
        ranges: The ranges, or None.
        engines: The engines to write, by precision, which met their gates.
        summary: Says what they are called, and which gates they met.
        progress: Told of each file.
        bundle: Whether there is a bundle of this deployment already.
        caches: Kernels that were compiled for an engine, by precision.
        sensitivity: What INT8 costs in each layer, if that was measured.
        kept: The images that each engine agrees on the least, by precision, for the report; None if none is wanted.

    Returns:
        The summary as it was written: with the names of the pictures.

    Raises:
        InputError: A file cannot be written.
    """
    removed = files.remove_earlier(bundle=bundle)
    model.save(files.model)
    written = [files.model]
    if ranges is not None:
        ranges.save(files.ranges)
        written.append(files.ranges)
    for result in summary.engines:
        engine = engines.get(result.precision)
        if engine is None:
            continue
        path = files.folder / result.file
        if caches and result.precision in caches:
            write_bytes(kernel_cache_path(path), caches[result.precision])
        engine.save(path, result.gate)
        written.append(path)
    if sensitivity is not None:
        write_json(files.sensitivity, sensitivity.to_json())
        written.append(files.sensitivity)
    if kept is not None:
        gallery, pictures = gallery_of(summary, kept)
        summary = replace(summary, gallery=gallery)
        write_pictures(files.folder, pictures)
    write_json(files.summary, summary.to_json())
    written.append(files.summary)
    if kept is not None:
        written.append(report(files.folder))
    for path in written:
        progress.stage(f"wrote {path}")
    for path in removed:
        if not exists(path):
            progress.stage(f"removed {path} of an earlier deployment")
    return summary


def require_gates(summary: Summary, lossy: bool, suspects: str) -> None:
    """Raises if a gate was missed.

    Args:
        summary: Of the deployment; the error's `report`.
        lossy: Whether INT8 missed its gate of accuracy.
        suspects: The layers that cost the most in INT8, in words; empty if the INT8 gate was met.

    Raises:
        GateError: A gate was missed.
    """
    failures = [f"{engine.precision}: {failure}" for engine in summary.engines for failure in engine.failures]
    if not failures:
        return
    error = GateError(
        "no engine was written because a gate was missed",
        got="; ".join(failures) + (f"; most damage is done in INT8 by {suspects}" if suspects else ""),
        fix=_fix(summary, lossy),
    )
    error.report = summary
    raise error


def _fix(summary: Summary, lossy: bool) -> str | None:
    if not all(engine.parity.measured for engine in summary.engines):
        return "verify on images on which the net finds several classes, and check normalisation and outputs of the net"
    if not all(engine.gate.passed for engine in summary.engines if engine.precision != "int8"):
        return None
    if lossy:
        return "calibrate on more images like those the net will see, or with another `calib_method`"
    return (
        'try the other `backend`, `bf16=True` with `backend="openvino"`, or fcn-deploy build-engine with `tune`, which '
        "chooses by time; or ship FP32, and leave out `int8` and `require_speedup`"
    )
