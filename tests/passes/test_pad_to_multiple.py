"""Images are padded in the graph as numpy pads them, and logits cropped to the image."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.graph.model import serialize
from fcn_deploy.onnx_export.foreign_backend import padded
from fcn_deploy.passes.pad_to_multiple import PadToMultiple
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


def shifted():
    """Gives each pixel the values of the next row and column, so that the padding is seen in the last ones."""
    sizes = ["batch", 3, "height", "width"]
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["image", "one", "end", "axes"], ["cut"], name="cut"),
            helper.make_node("Pad", ["cut", "pads"], ["logits"], name="same_size"),
        ],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, sizes)],
        [
            helper.make_tensor("one", TensorProto.INT64, [2], [1, 1]),
            helper.make_tensor("end", TensorProto.INT64, [2], [2**31, 2**31]),
            helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
            helper.make_tensor("pads", TensorProto.INT64, [8], [0, 0, 0, 0, 0, 0, 1, 1]),
        ],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


@pytest.mark.parametrize("mode", ["edge", "zero", "reflect"])
@pytest.mark.parametrize("size", [(1, 1), (3, 16), (9, 2), (17, 31), (24, 32)])
def test_a_net_sees_what_numpy_pads(mode, size):
    padding = Padding(8, mode)
    model = PadToMultiple(padding)(shifted()).model
    image = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
    with OnnxRuntimeBackend(serialize(model)) as backend:
        found = backend.infer({"image": image})["logits"]
        assert (backend.inputs[0].shape, backend.outputs[0].shape) == (("batch", 3, "height", "width"),) * 2
    whole = padded(image, padding)
    assert all(side % 8 == 0 for side in whole.shape[2:])
    expected = np.pad(whole[:, :, 1:, 1:], ((0, 0), (0, 0), (0, 1), (0, 1)))
    np.testing.assert_array_equal(found, expected[:, :, : size[0], : size[1]])
