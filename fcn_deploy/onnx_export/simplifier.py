"""onnxsim, in a process of its own; what it returns is checked."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from fcn_deploy.errors import DependencyError, InputError
from fcn_deploy.installation import install_command


def run_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with constants folded and redundant nodes removed, by onnxsim.

    onnxsim runs as a subprocess, because it can crash the interpreter. Metadata, inputs and outputs stay the same. The
    caller compares the results with those of the original; see `comparison.compare_models`.

    Args:
        model: An exported model; it is not changed.

    Raises:
        DependencyError: onnxsim is not installed.
        InputError: onnxsim failed, or changed the inputs or outputs.
    """
    if importlib.util.find_spec("onnxsim") is None:
        raise DependencyError(
            "onnxsim is not installed", fix=f"{install_command('host')}, or export with `simplify=False`"
        )
    with tempfile.TemporaryDirectory(prefix="fcn-deploy-") as folder:
        source, target = Path(folder, "model.onnx"), Path(folder, "simplified.onnx")
        onnx.save(model, source)
        # 0 turns off onnxsim's own comparison, which runs at one size only; the caller compares at several.
        command = [sys.executable, "-m", "onnxsim", str(source), str(target), "0"]
        # onnxsim imports ONNX Runtime, which would write a device id under the home folder.
        environment = {"ORT_DISABLE_TELEMETRY": "1", **os.environ}
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if result.returncode != 0 or not target.is_file():
            raise InputError(
                "onnxsim cannot simplify the model",
                got=f"exit status {result.returncode}: {_last_line(result.stderr or result.stdout)}",
                fix="export with `simplify=False`",
            )
        simplified = onnx.load(target)
    del simplified.metadata_props[:]
    simplified.metadata_props.extend(model.metadata_props)
    _check_signature(model, simplified)
    return simplified


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no output"


def _check_signature(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    for kind in ("input", "output"):
        old, new = (_signature(model, kind) for model in (before, after))
        if old != new:
            raise InputError(
                f"onnxsim changed the model's {kind}s", got=new, expected=old, fix="export with `simplify=False`"
            )


def _signature(model: onnx.ModelProto, kind: str) -> str:
    return "; ".join(
        f"{value.name} [{', '.join(d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)}]"
        for value in getattr(model.graph, kind)
    )
