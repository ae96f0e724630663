from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.onnxruntime import build_onnxruntime
from fcn_deploy.engines.trial import trial_shapes, try_engine
from fcn_deploy.errors import ArtifactError

SHAPES = trial_shapes(ImageShape(1, 40, 60))


@pytest.fixture(scope="module", params=["image", "tensor"])
def engine(request, model):
    return build_onnxruntime(model(), BuildConfig("fp32", io=request.param))


def _cropping(engine, to):
    """An engine whose output is at most of one size: right for small images, wrong for others."""
    graph = onnx.load_model_from_string(engine.data)
    output = graph.graph.output[0]
    dims = len(output.type.tensor_type.shape.dim)
    last = next(node for node in graph.graph.node if output.name in node.output)
    last.output[list(last.output).index(output.name)] = "whole"
    for name, values in {"starts": [0, 0], "ends": [to, to], "axes": [dims - 2, dims - 1]}.items():
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    graph.graph.node.append(helper.make_node("Slice", ["whole", "starts", "ends", "axes"], [output.name]))
    return replace(engine, data=graph.SerializeToString())


def _failing(engine, at):
    """An engine that reads row `at` of its image: it loads, and fails for images of fewer rows."""
    graph = onnx.load_model_from_string(engine.data)
    rows = 1 if engine.sidecar.io == "image" else 2
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([at], np.int64), "row"))
    graph.graph.node.append(helper.make_node("Gather", ["image", "row"], ["one row"], axis=rows))
    kind = graph.graph.input[0].type.tensor_type.elem_type
    graph.graph.output.append(helper.make_tensor_value_info("one row", kind or TensorProto.FLOAT, None))
    return replace(engine, data=graph.SerializeToString())


def test_an_engine_is_run_at_the_size_of_a_real_image_and_at_one_below_it():
    real, below = trial_shapes(ImageShape(1, 360, 480))
    assert real == ImageShape(1, 360, 480)
    assert (below.height < 360, below.width < 480) == (True, True)


def test_an_engine_that_runs_passes(engine):
    try_engine(engine, SHAPES)


def test_an_engine_that_fails_at_a_real_size_is_refused(engine, capfd):
    with pytest.raises(ArtifactError, match=r"cannot run the model on image \[1, .*21.*31"):
        try_engine(_failing(engine, at=25), SHAPES)
    assert capfd.readouterr() == ("", "")  # what ONNX Runtime says is in the error, not on the terminal


def test_an_engine_whose_output_is_smaller_than_the_image_is_refused(engine):
    with pytest.raises(ArtifactError, match="an output of the size of its image"):
        try_engine(_cropping(engine, to=35), SHAPES)
