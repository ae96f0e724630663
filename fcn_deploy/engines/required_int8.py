"""Checks that an engine of a prequantized model has INT8 layers; without onnx, for devices that build plans."""

from __future__ import annotations

from collections.abc import Mapping

from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.errors import PrecisionError


def require_int8(precision: Precision, library: str, fix: str) -> None:
    """Checks that an engine of a prequantized model runs at least one layer in INT8.

    Args:
        precision: Asked and achieved; a layer whose achieved precision is not known may be INT8.
        library: Name of the library that built it, for the error.
        fix: What the user can do about it, for the error.

    Raises:
        PrecisionError: No layer that was to be INT8 is.
    """
    found: Mapping[str, str | None] = precision.achieved_layers or {}
    kinds = {name: found.get(name) for name, asked in precision.layers.items() if asked == "int8"}
    if all(kind not in ("int8", None) for kind in kinds.values()):
        raise PrecisionError(
            f"{library} runs no layer of the graph in INT8",
            got=", ".join(f"{name} in {kind}" for name, kind in kinds.items()),
            expected="INT8 for at least one of them",
            fix=fix,
        )
