"""fcn-deploy: a trained FCN goes in; a small, verified thing that an edge device runs comes out.

Importing this package imports no third-party library; the public names below are resolved when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fcn_deploy._version import __version__

if TYPE_CHECKING:
    from fcn_deploy.artifacts.normalization import Normalization
    from fcn_deploy.artifacts.ranges import Ranges
    from fcn_deploy.artifacts.sensitivity import Sensitivity
    from fcn_deploy.artifacts.shapes import ImageShape
    from fcn_deploy.artifacts.sidecar import Sidecar
    from fcn_deploy.artifacts.spec import ModelSpec
    from fcn_deploy.artifacts.summary import EngineSummary, Summary
    from fcn_deploy.data.folders import ImageFolder
    from fcn_deploy.diagnostics.checkup import Checkup
    from fcn_deploy.engines.engine import Engine, load_engine
    from fcn_deploy.errors import (
        ArtifactError,
        DependencyError,
        FcnDeployError,
        GateError,
        InputError,
        PrecisionError,
        UsageError,
    )
    from fcn_deploy.evaluation.gates import Criterion, GateOption
    from fcn_deploy.graph.model import ExportedModel, load_exported
    from fcn_deploy.progress import Progress
    from fcn_deploy.runtime import Segmenter
    from fcn_deploy.workflows.adopting import adopt
    from fcn_deploy.workflows.benchmarking import Benchmark, benchmark
    from fcn_deploy.workflows.building import build_engine
    from fcn_deploy.workflows.calibrating import calibrate, load_ranges
    from fcn_deploy.workflows.deploying import deploy
    from fcn_deploy.workflows.evaluating import Evaluation, evaluate
    from fcn_deploy.workflows.exporting import export, simplify
    from fcn_deploy.workflows.finishing import finish
    from fcn_deploy.workflows.inspecting import doctor, inspect
    from fcn_deploy.workflows.measuring_sensitivity import sensitivity
    from fcn_deploy.workflows.predicting import predict
    from fcn_deploy.workflows.predictions import Predictions
    from fcn_deploy.workflows.reporting import report
    from fcn_deploy.workflows.verifying import Verification, verify

# By module, relative to this package: the functions, what they give, and what they are given.
_PUBLIC_BY_MODULE = {
    "workflows.exporting": ("export", "simplify"),
    "workflows.adopting": ("adopt",),
    "workflows.calibrating": ("calibrate", "load_ranges"),
    "workflows.building": ("build_engine",),
    "workflows.verifying": ("Verification", "verify"),
    "workflows.evaluating": ("Evaluation", "evaluate"),
    "workflows.benchmarking": ("Benchmark", "benchmark"),
    "workflows.predicting": ("predict",),
    "workflows.predictions": ("Predictions",),
    "workflows.measuring_sensitivity": ("sensitivity",),
    "workflows.inspecting": ("doctor", "inspect"),
    "workflows.deploying": ("deploy",),
    "workflows.finishing": ("finish",),
    "workflows.reporting": ("report",),
    "graph.model": ("ExportedModel", "load_exported"),
    "engines.engine": ("Engine", "load_engine"),
    "artifacts.ranges": ("Ranges",),
    "artifacts.sensitivity": ("Sensitivity",),
    "artifacts.sidecar": ("Sidecar",),
    "artifacts.spec": ("ModelSpec",),
    "artifacts.normalization": ("Normalization",),
    "artifacts.shapes": ("ImageShape",),
    "artifacts.summary": ("EngineSummary", "Summary"),
    "data.folders": ("ImageFolder",),
    "diagnostics.checkup": ("Checkup",),
    "evaluation.gates": ("Criterion", "GateOption"),
    "progress": ("Progress",),
    "runtime": ("Segmenter",),
    "errors": (
        "ArtifactError",
        "DependencyError",
        "FcnDeployError",
        "GateError",
        "InputError",
        "PrecisionError",
        "UsageError",
    ),
}
_PUBLIC = {name: f"fcn_deploy.{module}" for module, names in _PUBLIC_BY_MODULE.items() for name in names}

__all__ = [
    "ArtifactError",
    "Benchmark",
    "Checkup",
    "Criterion",
    "DependencyError",
    "Engine",
    "EngineSummary",
    "Evaluation",
    "ExportedModel",
    "FcnDeployError",
    "GateError",
    "GateOption",
    "ImageFolder",
    "ImageShape",
    "InputError",
    "ModelSpec",
    "Normalization",
    "PrecisionError",
    "Predictions",
    "Progress",
    "Ranges",
    "Segmenter",
    "Sensitivity",
    "Sidecar",
    "Summary",
    "UsageError",
    "Verification",
    "__version__",
    "adopt",
    "benchmark",
    "build_engine",
    "calibrate",
    "deploy",
    "doctor",
    "evaluate",
    "export",
    "finish",
    "inspect",
    "load_engine",
    "load_exported",
    "load_ranges",
    "predict",
    "report",
    "sensitivity",
    "simplify",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(_PUBLIC[name])
    except ModuleNotFoundError as error:
        from fcn_deploy.dependencies import missing_package

        missing = missing_package(error)
        if missing is None:
            raise
        raise missing from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
