"""Equalises the weights of an exported model across layers: the experiment behind docs/quantization.md.

    python tools/equalize.py fcn8s.onnx -o equalized.onnx

Cross-layer equalisation (Nagel et al. 2019, section 4.1, https://arxiv.org/abs/1906.04721): where a convolution reads
another through a ReLU and nothing else does, channel i of the first may be divided by any s[i] > 0 and the weights by
which the second reads it multiplied, for ReLU(x / s) = ReLU(x) / s. A max-pool between them changes nothing about that.
With s[i] = sqrt(r1[i] / r2[i]), of the largest weights r1 that write a channel and r2 that read it, both become equal.
The net computes what it did before; calibrate the file that is written, and build of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import onnx_ir as ir

from fcn_deploy.cli.options.types import PATH
from fcn_deploy.files import read_bytes, write_bytes
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import exported_spec, parse, serialize
from fcn_deploy.quantization.bias import bias_of

_MOST_ROUNDS = 100
# Scales this close to 1 change no integer.
_CONVERGED = 1e-3


@click.command()
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, required=True)
def main(model: Path, output: Path) -> None:
    """Writes MODEL with equalised weights and names the pairs of layers."""
    net = parse(read_bytes(model), str(model))
    exported_spec(net, str(model))
    for first, second in equalize(net):
        click.echo(f"{first} -> {second}")
    write_bytes(output, serialize(net))


def equalize(model: ir.Model) -> list[tuple[str, str]]:
    """Equalises a model in place, pair by pair, until no pair changes the other's.

    Returns:
        The names of the layers of each pair.
    """
    pairs = [(node, reader) for node in model.graph if (reader := _reader(node)) is not None]
    for _ in range(_MOST_ROUNDS):
        balanced = [_balance(*pair) for pair in pairs]
        if all(balanced):
            break
    return [(str(first.name), str(second.name)) for first, second in pairs]


def _reader(conv: ir.Node) -> ir.Node | None:
    """The convolution that is all that reads another, behind a ReLU and perhaps a max-pool, if there is one."""
    if conv.op_type != "Conv" or not _is_own(conv.inputs[1]) or (len(conv.inputs) > 2 and not _is_own(conv.inputs[2])):
        return None
    chain = list(_chain(conv))
    if [node.op_type for node in chain] not in (["Relu", "Conv"], ["Relu", "MaxPool", "Conv"]):
        return None
    last = chain[-1]
    return last if last.attributes.get_int("group", 1) == 1 and _is_own(last.inputs[1]) else None


def _chain(node: ir.Node) -> Iterator[ir.Node]:
    """What reads a node, if it alone does and as its data, then what reads that, to the next convolution."""
    while not node.outputs[0].is_graph_output() and len(uses := list(node.outputs[0].uses())) == 1:
        node = uses[0].node
        if uses[0].idx != 0:
            return
        yield node
        if node.op_type == "Conv":
            return


def _is_own(value: ir.Value | None) -> bool:
    return constant_of(value) is not None and value is not None and len(list(value.uses())) == 1


def _balance(first: ir.Node, second: ir.Node) -> bool:
    """Equalises a pair, and returns whether it was equal before."""
    writing, reading = constant_of(first.inputs[1]), constant_of(second.inputs[1])
    assert writing is not None
    assert reading is not None
    writes, reads = np.abs(writing).max(axis=(1, 2, 3)), np.abs(reading).max(axis=(0, 2, 3))
    balanced = (writes > 0) & (reads > 0)  # a channel that nobody writes or reads stays as it is
    scale = np.ones_like(writes)
    scale[balanced] = np.sqrt(writes[balanced] / reads[balanced])
    _set(first.inputs[1], writing / scale[:, None, None, None])
    _set(second.inputs[1], reading * scale[:, None, None])
    bias = bias_of(first)
    if bias is not None:
        _set(first.inputs[2], bias / scale)
    return bool(np.abs(scale - 1).max() < _CONVERGED)


def _set(value: ir.Value | None, array: np.ndarray) -> None:
    assert value is not None
    value.const_value = ir.tensor(array.astype(np.float32), name=value.name)


if __name__ == "__main__":
    main()
