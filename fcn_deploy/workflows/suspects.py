"""Which layers cost the most if INT8 misses its gate."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sensitivity import Sensitivity
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.engines.config import DEFAULT_METHOD
from fcn_deploy.engines.engine import Engine
from fcn_deploy.progress import Progress
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS
from fcn_deploy.workflows.deploy_config import DeployConfig

if TYPE_CHECKING:
    from fcn_deploy.graph.model import ExportedModel
    from fcn_deploy.mixed_precision.candidates import Target

# How many layers are named, and on how many images they are found.
_SUSPECTS = 3
_SUSPECTED_ON = 4


def find_suspects(
    model: ExportedModel,
    ranges: Ranges,
    engine: Engine,
    config: DeployConfig,
    judged: ImageFolder,
    threads: int | None,
    progress: Progress,
) -> Sensitivity:
    """Returns what INT8 costs in each layer, measured on some of the images of the gate."""
    from fcn_deploy.mixed_precision.candidates import Candidates
    from fcn_deploy.mixed_precision.damage import measure_sensitivity

    build = replace(config.build_config("int8"), io="tensor", method=engine.sidecar.precision.method or DEFAULT_METHOD)
    target: Target = "tensorrt"
    if config.backend in ("onnxruntime", "openvino"):
        target = config.backend
    candidates = Candidates(model, ranges, build, target, flavor=config.flavor or FLAVORS["tensorrt"])
    images = list(itertools.islice(judged, _SUSPECTED_ON))
    return measure_sensitivity(candidates, images, threads=threads, progress=progress)


def in_words(found: Sensitivity) -> str:
    """Returns the layers that cost the most."""
    worst = found.by_damage()[:_SUSPECTS]
    return ", ".join(f"{layer.name} ({found.damage(layer):.2%} of pixels)" for layer in worst)
