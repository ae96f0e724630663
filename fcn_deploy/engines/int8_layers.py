"""Which layers an INT8 or FP8 build quantises: those asked for, or the default, which is checked and told of."""

from __future__ import annotations

import logging

import onnx_ir as ir

from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.errors import PrecisionError
from fcn_deploy.quantization.selection import float_by_default, int8_layers

_log = logging.getLogger(__name__)


def layers_to_quantize(graph: ir.Graph, config: BuildConfig, *, transposed: bool = False) -> list[str]:
    """Returns the layers that run in INT8 or FP8, in graph order.

    A map or a budget may decide that there are none. If the default decides, there has to be one; and if it leaves
    nothing but layers that stay float in other nets, a warning says so.

    Args:
        graph: As exported and simplified.
        config: What is built.
        transposed: Whether transposed convolutions can be quantised.

    Raises:
        InputError: A layer that was asked for cannot be quantised.
        PrecisionError: No layer of this net can be quantised.
    """
    kind = config.precision.upper()
    layers = int8_layers(graph, config.int8_layers, transposed=transposed)
    if config.int8_layers is not None:
        return layers
    if not layers:
        raise PrecisionError(
            f"no layer of this net would run in {kind}",
            got="no layer that can be quantised",
            expected="a two-dimensional convolution with constant weights",
            fix='build with `precision="fp32"`',
        )
    if float_by_default(graph, transposed=transposed).issuperset(layers):
        _log.warning(
            "nothing is left for %s but layers that stay float in other nets, because they read the image or their "
            "rounding changes labels: %s; look at what `verify` finds",
            kind,
            ", ".join(layers),
        )
    return layers
