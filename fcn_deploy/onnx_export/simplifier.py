"""onnxsim, in a process of its own; what it returns is checked."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir

from fcn_deploy.errors import DependencyError, InputError
from fcn_deploy.files import temporary_folder, writing
from fcn_deploy.graph.external_data import read_with_weights, write_with_external_weights
from fcn_deploy.installation import install_command

_PROGRAM = Path(__file__).with_name("onnxsim_process.py")


def simplified(model: ir.Model) -> bytes:
    """Returns the content of the ONNX file of a model that `simplify_file` has simplified.

    Args:
        model: An exported model; it is not changed.

    Raises:
        DependencyError: onnxsim is not installed.
        InputError: onnxsim failed, or changed the inputs or outputs.
    """
    with temporary_folder() as folder:
        source, target = folder / "model.onnx", folder / "simplified.onnx"
        write_with_external_weights(model, source)
        simplify_file(source, target)
        return read_with_weights(target)


def simplify_file(source: Path, target: Path) -> None:
    """Writes a model with constants folded and redundant nodes removed, by onnxsim.

    onnxsim runs as a subprocess, because it can crash the interpreter. Metadata, inputs and outputs stay the same. The
    caller compares the results with those of the original; see `comparison.compare_models`.

    Args:
        source: An exported model. Its weights may be in other files beside it.
        target: The file to write. Large weights go to another beside it, so this process never has them in memory.

    Raises:
        DependencyError: onnxsim is not installed.
        InputError: onnxsim failed, or changed the inputs or outputs; or the file cannot be written.
    """
    if importlib.util.find_spec("onnxsim") is None:
        raise DependencyError(
            "onnxsim is not installed", fix=f"{install_command('host')}, or export with `simplify=False`"
        )
    command = [sys.executable, str(_PROGRAM), str(source), str(target)]
    # onnxsim imports ONNX Runtime, which would write a device id under the home folder.
    environment = {"ORT_DISABLE_TELEMETRY": "1", **os.environ}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode != 0 or not target.is_file():
        raise InputError(
            "onnxsim cannot simplify the model",
            got=f"exit status {result.returncode}: {_last_line(result.stderr or result.stdout)}",
            fix="export with `simplify=False`",
        )
    before, after = (onnx.load(file, load_external_data=False) for file in (source, target))
    _check_signature(before, after)
    del after.metadata_props[:]
    after.metadata_props.extend(before.metadata_props)
    with writing(target):
        target.write_bytes(after.SerializeToString())


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
