"""Cross-layer equalisation: the net computes what it did, and what writes a channel is as large as what reads it."""

import numpy as np
from click.testing import CliRunner

import equalize
from fcn_deploy.graph.edit import constant_of
from fcn_deploy.graph.model import exported_spec, parse
from fcn_deploy.runtime import Segmenter


def test_the_net_stays_the_same_and_channels_are_balanced(exported, photos, tmp_path):
    source, path = exported("fcn8s"), tmp_path / "equalized.onnx"
    result = CliRunner().invoke(equalize.main, [str(source), "-o", str(path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    pairs = [tuple(line.split(" -> ")) for line in result.stdout.splitlines()]
    assert ("conv1_1", "conv1_2") in pairs
    assert ("conv1_2", "conv2_1") in pairs  # through a max-pool
    assert ("fc6", "fc7") in pairs
    assert ("conv3_3", "conv4_1") not in pairs  # the skip reads pool3 as well
    assert len(pairs) == 13
    before, after = parse(source.read_bytes()), parse(path.read_bytes())
    assert exported_spec(before) == exported_spec(after)
    for first, second in pairs:
        writes, reads = _weights(after, first), _weights(after, second)
        largest = np.abs(writes).max(axis=(1, 2, 3))
        np.testing.assert_allclose(largest, np.abs(reads).max(axis=(0, 2, 3)), rtol=1e-2)
    changed = [name for name in dict(pairs) if not np.array_equal(_weights(before, name), _weights(after, name))]
    assert changed == list(dict(pairs))
    with Segmenter(source) as net, Segmenter(path) as equalised:
        wanted, found = net.logits(photos[0]), equalised.logits(photos[0])
    assert np.abs(found - wanted).max() <= 1e-4 * np.ptp(wanted)


def test_a_channel_that_is_never_written_stays_zero(exported, tmp_path):
    model = parse(exported("fcn32s").read_bytes())
    for node in model.graph:
        if node.name == "conv2_1":
            weights = constant_of(node.inputs[1]).copy()
            weights[0] = 0
            equalize._set(node.inputs[1], weights)
    equalize.equalize(model)
    assert not _weights(model, "conv2_1")[0].any()
    assert all(np.isfinite(_weights(model, node.name)).all() for node in model.graph if node.op_type == "Conv")


def _weights(model, name):
    return next(constant_of(node.inputs[1]) for node in model.graph if node.name == name)
