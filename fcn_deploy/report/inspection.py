"""What a file of ours holds, as plain facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcn_deploy.errors import InputError
from fcn_deploy.files import read_bytes, read_json, sha256_bytes, sha256_file
from fcn_deploy.sidecar import ENGINE_KEY, Sidecar, load_sidecar, sidecar_path
from fcn_deploy.spec import METADATA_KEY, ModelSpec, check_format


def inspect(path: Path) -> dict[str, Any]:
    """Describes a checkpoint, an ONNX model or engine, ranges, a sidecar or a summary.

    Raises:
        ArtifactError: An engine does not fit its sidecar.
        InputError: The file cannot be read, or is none of these.
    """
    readers = {".onnx": _onnx, ".json": _json, ".pth": _checkpoint, ".pt": _checkpoint, ".safetensors": _checkpoint}
    if not path.is_file():
        raise InputError(f"cannot read {path}", got="a folder" if path.is_dir() else "no such file")
    if path.suffix not in readers:
        raise InputError(f"{path} is of no kind that inspect knows", got=path.suffix, expected=", ".join(readers))
    return readers[path.suffix](path)


def _onnx(path: Path) -> dict[str, Any]:
    from fcn_deploy.graph import parse

    data = read_bytes(path)
    model = parse(data, str(path))
    spec = model.metadata_props.get(METADATA_KEY)
    parameters = sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value)
    return {
        "kind": "engine" if ENGINE_KEY in model.metadata_props else "ONNX model",
        "bytes": len(data),
        "sha256": sha256_bytes(data),
        "opset": model.opset_imports.get(""),
        "inputs": [f"{value.name}: {value.dtype} {value.shape}" for value in model.graph.inputs],
        "outputs": [f"{value.name}: {value.dtype} {value.shape}" for value in model.graph.outputs],
        "parameters": int(parameters),
        "nodes": dict(Counter(node.op_type for node in model.graph).most_common()),
        "spec": ModelSpec.loads(spec).to_json() if spec else None,
        "sidecar": load_sidecar(path).to_json() if sidecar_path(path).is_file() else None,
    }


def _json(path: Path) -> dict[str, Any]:
    content = check_format(read_json(path), str(path))
    if "histograms" in content:
        return _ranges(path)
    if "engine" in content:
        return {"kind": "sidecar", **Sidecar.from_json(content).to_json()}
    if "engines" in content:
        return {"kind": "summary", **content}
    raise InputError(f"{path} is of no kind that inspect knows", expected="ranges, a sidecar or a summary")


def _ranges(path: Path) -> dict[str, Any]:
    from fcn_deploy.quant.ranges import Ranges

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
    from fcn_deploy.models import read_checkpoint

    checkpoint = read_checkpoint(path)
    return {
        "kind": "checkpoint",
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "layout": checkpoint.info.layout,
        "variant": checkpoint.variant,
        "num_classes": checkpoint.num_classes,
        "width": checkpoint.width,
        "parameters": sum(tensor.numel() for tensor in checkpoint.state.values()),
        "tensors": {key: list(tensor.shape) for key, tensor in checkpoint.state.items()},
        "spec": checkpoint.spec.to_json() if checkpoint.spec else None,
    }


def brief(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of `inspect`'s facts a person wants to see first; the rest is for `--json`."""
    short = {key: value for key, value in facts.items() if value not in (None, [], {})}
    if "tensors" in short:
        short["tensors"] = len(short["tensors"])
    if "spec" in short:
        hidden = ("format", "palette", "classes")
        short["classes"] = ", ".join(short["spec"]["classes"])
        short["spec"] = {key: value for key, value in short["spec"].items() if key not in hidden and value is not None}
    if "sidecar" in short:
        sidecar = short.pop("sidecar")
        short["io"], short["target"] = sidecar["io"], sidecar["target"]["cpu"]
        short["backend"] = f"{sidecar['backend']} {sidecar['library']}"
        short |= {"precision": _precision(sidecar["precision"]), "gate": sidecar["gate"] or "none recorded"}
        short["source"] = {key: value for key, value in sidecar["source"].items() if value is not None}
    return short


def _precision(precision: Mapping[str, Any]) -> dict[str, Any]:
    layers: dict[str, list[str]] = {}
    for name, kind in precision["layers"].items():
        layers.setdefault(kind, []).append(name)
    known = {key: precision[key] for key in ("requested", "achieved", "method") if precision[key]}
    return {**known, **{f"{len(names)} layers in {kind}": names for kind, names in layers.items()}}
