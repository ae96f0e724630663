"""Before a cubic Resize the order of axes is kept; other modes stay as they are."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fcn_deploy.graph.model import parse, serialize
from fcn_deploy.passes.cubic_resize import KeepCubicResize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


def resize(mode, quantized=True):
    """A model that enlarges maps."""
    pair = [
        helper.make_node("QuantizeLinear", ["image", "scale"], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", "scale"], ["floats"]),
    ]
    nodes = [
        *(pair if quantized else []),
        helper.make_node("Relu", ["floats" if quantized else "image"], ["positive"]),
        helper.make_node("Resize", ["positive", "", "scales"], ["logits"], name="resize", mode=mode),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3, None, None]) for name in ENDS]
    scales = numpy_helper.from_array(np.array([1, 1, 1.5, 2], np.float32), "scales")
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [scales, scale])
    return parse(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )


ENDS = ("image", "logits")


def run(model, image):
    with OnnxRuntimeBackend(serialize(model)) as backend:
        return backend.infer({"image": image})["logits"]


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 3, 8, 4), (1, 3, 1, 1)])
def test_a_copy_of_the_map_comes_before_a_cubic_resize(shape):
    result = KeepCubicResize()(resize("cubic"))
    assert result.modified
    last = next(node for node in result.model.graph if node.op_type == "Resize")
    assert last.inputs[0].producer().op_type == "DepthToSpace"
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(run(result.model, image), run(resize("cubic"), image))


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_other_modes_stay(mode):
    assert not KeepCubicResize()(resize(mode)).modified


def test_without_integers_there_is_nothing_to_keep():
    result = KeepCubicResize()(resize("cubic", quantized=False))
    assert (result.modified, [declined.reason for declined in result.declined]) == (False, ["nothing is quantised"])
