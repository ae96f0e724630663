"""What a file holds that fcn-deploy reads or writes, as plain facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcn_deploy.artifacts.json import check_format
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, SIMULATED, SIMULATES, Sidecar, find_sidecar, load_sidecar
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.bundle.folder import check_bundle
from fcn_deploy.bundle.manifest import MANIFEST
from fcn_deploy.diagnostics.plan_facts import describe_plan
from fcn_deploy.errors import ArtifactError, InputError, UsageError
from fcn_deploy.files import check_file, exists, is_folder, read_bytes, read_json, sha256_bytes, sha256_file
from fcn_deploy.graph.header import check_onnx_file
from fcn_deploy.models.weights_file import check_weights_file
from fcn_deploy.runtime.backend import PLAN_SUFFIXES
from fcn_deploy.runtime.openvino.library import NAME as OPENVINO

if TYPE_CHECKING:
    from fcn_deploy.graph.layers import Layer


def inspect_file(path: Path, shape: ImageShape | None = None) -> dict[str, Any]:
    """Describes a checkpoint, an ONNX model or engine, a TensorRT plan, ranges, a sidecar, a summary or a bundle.

    Args:
        path: The file, or the folder of a bundle.
        shape: Of the images for which a model's outputs and multiplications are stated. None for the model's own shape,
            or 1x512x512 for a model that takes any.

    Returns:
        JSON data, its `kind` first.

    Raises:
        ArtifactError: An engine does not fit its sidecar, a plan has no sidecar, or a bundle is not as it was written.
        InputError: The file cannot be read, or is of another kind, or the model does not run on such images.
        UsageError: The model does not take this shape, or the file is not a model and has no shape to choose.
    """
    readers = {".json": _json, ".pth": _checkpoint, ".pt": _checkpoint, ".safetensors": _checkpoint}
    readers |= dict.fromkeys(PLAN_SUFFIXES, _plan)
    if is_folder(path) and exists(path / MANIFEST):
        path = path / MANIFEST
    check_file(path)
    if path.suffix == ".onnx":
        return _onnx(path, shape)
    if path.suffix not in readers:
        kinds = ", ".join((".onnx", *readers))
        raise InputError(f"{path} is not of a kind that inspect knows", got=path.suffix, expected=kinds)
    if shape is not None:
        raise UsageError(
            "only a model has a shape to choose", got=f"`shape` {shape} for {path.name}", fix="leave `shape` out"
        )
    return readers[path.suffix](path)


def _onnx(path: Path, shape: ImageShape | None) -> dict[str, Any]:
    check_onnx_file(path)
    from fcn_deploy.graph.external_data import read_with_weights
    from fcn_deploy.graph.layers import list_layers, total_macs
    from fcn_deploy.graph.model import parse
    from fcn_deploy.graph.shape_inference import image_shape

    data = read_bytes(path)
    model = parse(read_with_weights(path), str(path))
    spec = model.metadata_props.get(METADATA_KEY)
    images = image_shape(model, shape)
    layers = list_layers(model, images)
    sidecar = load_sidecar(path) if find_sidecar(path) is not None else None
    if sidecar is not None:
        _check_precisions(path, layers, sidecar)
        layers = _as_run(layers, sidecar)
    return {
        "kind": _kind(model.metadata_props.get(ENGINE_KEY)),
        "bytes": len(data),
        "sha256": sha256_bytes(data),
        "opset": model.opset_imports.get(""),
        "inputs": [f"{value.name}: {value.dtype} {value.shape}" for value in model.graph.inputs],
        "outputs": [f"{value.name}: {value.dtype} {value.shape}" for value in model.graph.outputs],
        "nodes": dict(Counter(node.op_type for node in model.graph).most_common()),
        "parameters": sum(layer.parameters for layer in layers),
        "shape": None if images is None else [images.batch, images.height, images.width],
        "macs": total_macs(layers),
        "layers": [asdict(layer) for layer in layers],
        "spec": ModelSpec.loads(spec).to_json() if spec else None,
        "sidecar": sidecar.to_json() if sidecar is not None else None,
    }


def _plan(path: Path) -> dict[str, Any]:
    sidecar = load_sidecar(path)  # the plan itself can be read only with its library and its GPU
    asked, found = sidecar.precision.layers, sidecar.precision.achieved_layers or {}
    return {
        "kind": "plan",
        "bytes": path.stat().st_size,
        "sha256": sidecar.engine.sha256,  # load_sidecar has checked that it is the file's
        "profiles": [dict(profile) for profile in sidecar.profiles],
        "precisions": {name: {"asked": kind, "achieved": found.get(name)} for name, kind in asked.items()},
        **({"plan": describe_plan(sidecar.plan)} if sidecar.plan is not None else {}),
        "spec": sidecar.spec.to_json(),
        "sidecar": sidecar.to_json(),
    }


def _kind(engine: str | None) -> str:
    if engine is None:
        return "ONNX model"
    return "simulation" if engine.endswith(SIMULATED) else "engine"


def _check_precisions(path: Path, layers: Sequence[Layer], sidecar: Sidecar) -> None:
    """Checks that the layers of the graph are in the precisions that the sidecar states."""
    if SIMULATES in sidecar.target:
        return  # its sidecar states the precisions of the engine that it simulates
    asked = sidecar.precision.layers
    if sidecar.backend == OPENVINO:  # whose graph is float32 where it computes in BF16, which the metadata ask for
        asked = {name: "fp32" if precision == "bf16" else precision for name, precision in asked.items()}
    wrong = [layer for layer in layers if asked.get(layer.name, layer.precision) != layer.precision]
    if wrong:
        raise ArtifactError(
            f"{path} is not in the precisions that its sidecar states",
            got=", ".join(f"{layer.name} in {layer.precision}" for layer in wrong),
            expected=", ".join(f"{layer.name} in {asked[layer.name]}" for layer in wrong),
            fix="build the engine again",
        )


def _as_run(layers: Sequence[Layer], sidecar: Sidecar) -> tuple[Layer, ...]:
    """Returns the layers with what they run in: in OpenVINO a float32 layer may run in BF16."""
    found = (sidecar.precision.achieved_layers or {}) if sidecar.backend == OPENVINO else {}
    return tuple(replace(layer, precision=found.get(layer.name) or layer.precision) for layer in layers)


def _json(path: Path) -> dict[str, Any]:
    if path.name == MANIFEST:
        return {"kind": "bundle", **check_bundle(path.parent).manifest.to_json()}
    content = read_json(path)
    kinds = content.keys() if isinstance(content, dict) else ()
    if "histograms" in kinds:
        return _ranges(path)
    if "engine" in kinds:
        return {"kind": "sidecar", **Sidecar.from_json(content).to_json()}
    if "engines" in kinds:
        Summary.from_json(content)  # refuses what cannot be shown as a table
        return {"kind": "summary", **content}
    check_format(content, str(path))
    raise InputError(f"{path} is not of a kind that inspect knows", expected="ranges, a sidecar, a summary or a bundle")


def _ranges(path: Path) -> dict[str, Any]:
    from fcn_deploy.artifacts.ranges import Ranges

    ranges = Ranges.load(path)
    return {
        "kind": "ranges",
        "model_sha256": ranges.model_sha256,
        "data": ranges.to_json()["data"],
        "tensors": {
            name: {"min": histogram.min, "max": histogram.max, "bins": len(histogram.counts)}
            for name, histogram in ranges.histograms.items()
        },
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    check_weights_file(path)
    from fcn_deploy.models.checkpoint import known_layout, read_checkpoint, read_tensors

    tensors, spec = read_tensors(path)
    # A custom net is described by its tensors alone; a published net is checked as `export` would check it.
    checkpoint = read_checkpoint(path) if known_layout(tensors) is not None else None
    return {
        "kind": "checkpoint",
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "layout": checkpoint.info.layout if checkpoint else None,
        "variant": checkpoint.variant if checkpoint else None,
        "num_classes": checkpoint.num_classes if checkpoint else None,
        "width": checkpoint.width if checkpoint else None,
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "tensors": {
            name: {
                "shape": list(tensor.shape),
                "parameters": tensor.numel(),
                "dtype": str(tensor.dtype).removeprefix("torch."),
            }
            for name, tensor in tensors.items()
        },
        "spec": spec.to_json() if spec else None,
    }
