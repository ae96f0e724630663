import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.spec import METADATA_KEY, ModelSpec
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.models.backend import TorchBackend
from fcn_deploy.onnx_export.config import ExportConfig
from fcn_deploy.onnx_export.tracing import export_onnx
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from tests.support import custom_nets

SPEC = ModelSpec("fcn8s", 8, 0.0625, 5, tuple("abcde"), default_palette(5))


def _dims(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_batch_height_and_width_are_dynamic_and_named(exported):
    graph = onnx.load(exported("fcn8s")).graph
    assert [(value.name, _dims(value)) for value in (*graph.input, *graph.output)] == [
        ("image", ["batch", 3, "height", "width"]),
        ("logits", ["batch", 5, "height", "width"]),
    ]


def test_the_model_is_valid_and_carries_its_spec(exported):
    model = onnx.load(exported("fcn16s"))
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata.keys() == {METADATA_KEY}
    spec = ModelSpec.loads(metadata[METADATA_KEY])
    assert (spec.variant, spec.stride, spec.num_classes) == ("fcn16s", 16, 5)
    assert spec.exporter["torch"] == torch.__version__.split("+")[0]
    assert spec.exporter["opset"] == 18


def test_layers_and_their_tensors_are_named_after_modules(exported):
    nodes = {node.name: node for node in onnx.load(exported("fcn8s")).graph.node}
    for name in ("conv1_1", "conv5_3", "fc6", "score_fr", "score_pool3_fr", "upscore8"):
        assert nodes[name].op_type in ("Conv", "ConvTranspose")
    assert nodes["conv1_1/Relu"].output == ["conv1_1/Relu"]
    assert nodes["pool3/MaxPool"].input == ["conv3_3/Relu"]
    assert nodes["relu6/Relu"].input == ["fc6/Conv"]


def test_an_export_with_a_fixed_shape_gives_the_results_of_pytorch(make_net):
    net = make_net(8)
    model = ir.to_proto(export_onnx(net, SPEC, ExportConfig(shape=ImageShape(2, 37, 61)))[0])
    assert _dims(model.graph.input[0]) == [2, 3, 37, 61]
    assert _dims(model.graph.output[0]) == [2, 5, 37, 61]
    image = np.random.default_rng(0).normal(size=(2, 3, 37, 61)).astype(np.float32)
    found = OnnxRuntimeBackend(model.SerializeToString()).infer({"image": image})["logits"]
    expected = TorchBackend(net, 5).infer({"image": image})["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(expected))


def test_the_opset_is_18_by_default(exported):
    assert ir.load(exported("fcn8s")).opset_imports[""] == 18


def test_the_opset_is_the_one_asked_for():
    net = custom_nets.trained(custom_nets.Depthwise())
    assert export_onnx(net, SPEC, ExportConfig(20))[0].opset_imports[""] == 20


@pytest.mark.parametrize("opset", [11, 17, 99])
def test_an_opset_that_torch_does_not_write_is_refused(opset):
    with pytest.raises(UsageError, match="18 to 23"):
        ExportConfig(opset)


class _Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_net_that_torch_cannot_export_is_an_input_error():
    with pytest.raises(InputError, match="torch cannot export this net") as caught:
        export_onnx(_Branching().eval(), SPEC)
    assert "\n" not in str(caught.value)
