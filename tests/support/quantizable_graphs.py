"""Small graphs of 1x1 convolutions over 4 channels, for the tests of quantisation."""

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.ranges import Range
from fcn_deploy.graph.model import parse, serialize


def make_node(op, inputs, output, **attributes):
    """A node that has the name of its output; the names of its inputs are separated by spaces."""
    return helper.make_node(op, inputs.split(), [output], output, **attributes)


def model_of(nodes, **constants):
    """A model of `nodes` from image [n, 4, h, w] to logits of the same shape."""
    dims = ["n", 4, "h", "w_"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, dims)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return parse(model.SerializeToString())


def weights(seed, scale=1.0):
    """Random weights of a 1x1 convolution, float32 [4, 4, 1, 1]."""
    return (scale * np.random.default_rng(seed).normal(size=(4, 4, 1, 1))).astype(np.float32)


def residual(identity):
    """A first layer, a residual block whose sum goes to a convolution, and its skip: nothing, or a convolution."""
    skip = [] if identity else [make_node("Conv", "r0 w3", "past")]
    nodes = [
        make_node("Conv", "image w0", "c0"),
        make_node("Relu", "c0", "r0"),
        *skip,
        make_node("Conv", "r0 w1", "c1"),
        make_node("Relu", "c1", "r1"),
        make_node("Conv", "r1 w2", "c2"),
        make_node("Add", "c2 r0" if identity else "past c2", "sum"),
        make_node("Relu", "sum", "block"),
        make_node("Conv", "block w4", "c4"),
        make_node("Conv", "c4 w5", "logits"),
    ]
    return model_of(nodes, **{f"w{index}": weights(index) for index in range(6)})


def outputs_in_float(model, image):
    """All outputs of a model; ONNX Runtime computes its Q/DQ in float."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(serialize(model), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})


def upsampling():
    """A net whose layer `up` is a transposed convolution between two others, and the ranges of what they read."""
    model = model_of(
        [
            make_node("Conv", "image w0", "c0"),
            make_node("ConvTranspose", "c0 w1", "up", strides=[2, 2], pads=[1, 1, 0, 0]),
            make_node("Relu", "up", "rectified"),
            make_node("Conv", "rectified w2", "logits"),
        ],
        w0=weights(0),
        w1=np.random.default_rng(1).normal(size=(4, 8, 3, 3)).astype(np.float32),
        w2=np.concatenate([weights(2), weights(3)], axis=1),
    )
    return model, {"c0": Range(-9, 9), "rectified": Range(0, 9)}
