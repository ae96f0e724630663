"""Plots, drawn with matplotlib."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from fcn_deploy.errors import DependencyError
from fcn_deploy.installation import install_command
from fcn_deploy.text import printable

if TYPE_CHECKING:
    from fcn_deploy.artifacts.sensitivity import Sensitivity

FORMATS = (".svg", ".png", ".pdf")


def sensitivity_plot(sensitivity: Sensitivity, suffix: str) -> bytes:
    """Draws what INT8 costs in each layer, and what it saves.

    Args:
        sensitivity: What was measured.
        suffix: One of `FORMATS`.

    Returns:
        The content of a file in that format.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("plots need matplotlib", got=str(error), fix=install_command("host")) from error
    layers = sensitivity.layers[::-1]  # so that the first layer is at the top
    names = [printable(layer.name if layer.int8 else f"{layer.name} (float)") for layer in layers]
    timed = all(layer.float_ms is not None and layer.int8_ms is not None for layer in layers)
    figure = Figure(figsize=(9, 1.2 + 0.28 * len(layers)), layout="constrained")
    cost, saving = figure.subplots(1, 2, sharey=True)
    rows = range(len(layers))
    last = [100 * (layer.others.agreement - sensitivity.mix.agreement) if layer.int8 else 0.0 for layer in layers]
    cost.barh([row + 0.2 for row in rows], [100 * (1 - layer.alone.agreement) for layer in layers], 0.4, label="alone")
    cost.barh([row - 0.2 for row in rows], last, 0.4, label="regained if all but it")
    cost.set_yticks(rows, names, parse_math=False)  # or a dollar sign in a name would begin a formula
    cost.set_xlabel("pixels relabelled, %")
    cost.legend()
    saving.barh(rows, [layer.saving if timed else layer.macs / 1e9 for layer in layers], color="tab:green")
    saving.set_xlabel("saved by INT8, ms" if timed else "GMAC")
    height, width = sensitivity.shape
    figure.suptitle(
        f"INT8 ({sensitivity.method}) for {sensitivity.target}, {sensitivity.images} images, {height}x{width}: "
        f"agreement {sensitivity.mix.agreement:.2%}"
    )
    file = io.BytesIO()
    figure.savefig(file, format=suffix[1:])
    return file.getvalue()
