"""The folder of a deployment: what is written into it, and what is removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import sidecar_path
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.engines.config import RequestedPrecision
from fcn_deploy.engines.engine import Engine
from fcn_deploy.errors import GateError
from fcn_deploy.files import check_writable, exists, write_json
from fcn_deploy.progress import Progress
from fcn_deploy.workflows.deploy_config import PRECISIONS

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel


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
        return self.folder / f"{self.variant}.ranges.json"

    @property
    def summary(self) -> Path:
        """The summary."""
        return self.folder / "summary.json"

    def engine(self, precision: str) -> Path:
        """The engine of a precision."""
        return self.folder / f"{self.variant}.{precision}.onnx"

    def check_writable(self) -> None:
        """Checks that each of them can be written.

        Raises:
            InputError: One cannot, because it is a folder, for example.
        """
        engines = [self.engine(precision) for precision in PRECISIONS]
        for path in (self.model, self.ranges, self.summary, *engines, *map(sidecar_path, engines)):
            check_writable(path)

    def remove_engines(self) -> list[Path]:
        """Removes engines and ranges of an earlier deployment; sidecars first, because no engine runs without one.

        Returns:
            What was removed.
        """
        engines = [self.engine(precision) for precision in PRECISIONS]
        found = [path for path in (*map(sidecar_path, engines), *engines, self.ranges) if exists(path)]
        for path in found:
            path.unlink()
        return found


def publish(
    files: OutputFiles,
    model: ExportedModel,
    ranges: Ranges | None,
    engines: Mapping[RequestedPrecision, Engine],
    summary: Summary,
    progress: Progress,
) -> None:
    """Writes what a deployment has made, the engines only if every gate was met, and says what was written.

    Raises:
        InputError: A file cannot be written.
    """
    removed = files.remove_engines()
    model.save(files.model)
    written = [files.model]
    if ranges is not None:
        ranges.save(files.ranges)
        written.append(files.ranges)
    if summary.passed:
        for engine, result in zip(engines.values(), summary.engines, strict=True):
            engine.save(files.folder / result.file, result.gate)
            written.append(files.folder / result.file)
    write_json(files.summary, summary.to_json())
    for path in (*written, files.summary):
        progress.stage(f"wrote {path}")
    for path in removed:
        if not exists(path):
            progress.stage(f"removed {path} of an earlier deployment")


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
