"""Typed graphs for TensorRT: their types and notes, their numbers, and TensorRT-RTX's builder, which takes them all."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from fcn_deploy.artifacts.sidecar import ENGINE_KEY
from fcn_deploy.calibration.observer import observe
from fcn_deploy.data.folders import ImageFolder
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.simulation import open_simulation
from fcn_deploy.engines.tensorrt.typed_graph import typed_graph
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.graph.model import ExportedModel, load_exported, parse, serialize
from fcn_deploy.passes import pipelines
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.runtime.tensorrt.flavor import find_flavor
from fcn_deploy.workflows.exporting import export
from tests.support import custom_nets, rtx

VARIANTS = ("fcn8s", "fcn16s", "fcn32s")
BY_DEFAULT = (("fp32", "fp32"), ("fp16", "fp16"), ("bf16", "bf16"), ("int8", "fp16"), ("fp8", "fp16"))
KINDS = (*BY_DEFAULT, ("int8", "fp32"), ("int8", "bf16"), ("fp8", "fp32"), ("fp8", "bf16"))
FLAVORS_THAT_BUILD = ("tensorrt", "tensorrt-rtx")


@pytest.fixture(scope="module")
def net(model, ranges):
    """A variant's exported model and its ranges."""
    return lambda variant: (model(variant), ranges(variant))


@pytest.fixture(scope="module")
def own_net(photo_folder, tmp_path_factory):
    """The same of a net from custom_nets."""
    made = {}

    def load(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            torch.save(custom_nets.trained(getattr(custom_nets, name)()).state_dict(), folder / "weights.pth")
            export(
                folder / "weights.pth",
                model=f"tests.support.custom_nets:{name}",
                simplify=False,
                output=folder / "net.onnx",
            )
            model = load_exported(folder / "net.onnx")
            made[name] = model, observe(model, ImageFolder.open(photo_folder))
        return made[name]

    return load


def make(net, precision, base="fp16", io="tensor", flavor="tensorrt", **config):
    model, ranges = net
    return typed_graph(model, BuildConfig(precision, io, **config), ranges, base, flavor=find_flavor(flavor))


def sqnr(wanted, found):
    return 10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum())


def logits_of(backend, spec, images):
    with Segmenter(backend, spec=spec) as segmenter:
        return np.concatenate([segmenter.logits(image).ravel() for image in images])


def logits(backend, images):
    return np.concatenate([Segmenter(backend).logits(image).ravel() for image in images])


# Types


@pytest.mark.parametrize(("precision", "base"), KINDS)
def test_inputs_and_outputs_are_those_of_the_contract_in_every_precision(net, precision, base):
    tensor, image = (make(net("fcn8s"), precision, base, io) for io in ("tensor", "image"))
    found = [
        (str(v.dtype), v.name)
        for g in (tensor, image)
        for m in [parse(g.data)]
        for v in (*m.graph.inputs, *m.graph.outputs)
    ]
    assert found == [("FLOAT", "image"), ("FLOAT", "logits"), ("UINT8", "image"), ("UINT8", "labels")]
    for graph in (tensor, image):
        assert graph.precision.achieved == "unknown"
        assert (graph.precision.requested, graph.precision.base) == (precision, base)
        assert parse(graph.data).metadata_props[ENGINE_KEY] == f"{precision}-{base}"
        if base != "bf16":  # before opset 22 ONNX has no BF16 in Conv, and TensorRT's parser takes it
            onnx.checker.check_model(onnx.load_model_from_string(graph.data), full_check=True)


def test_unpooling_is_refused_before_a_builder_runs(own_net):
    with pytest.raises(InputError, match=r"would refuse the graph.*MaxPool gives no indices.*build for onnxruntime"):
        make(own_net("Unpooling"), "fp16")


def test_every_layer_says_its_precision(net):
    layers = make(net("fcn8s"), "int8").precision.layers
    kept = {name for name, precision in layers.items() if precision == "fp16"}
    assert kept == {"conv1_1", "score_fr", "score_pool4_fr", "score_pool3_fr", "upscore2", "upscore2_pool4", "upscore8"}
    assert Counter(layers.values()) == {"int8": 14, "fp16": 7}
    assert set(make(net("fcn8s"), "int8", "fp32").precision.layers.values()) == {"int8", "fp32"}
    assert set(make(net("fcn8s"), "fp16").precision.layers.values()) == {"fp16"}
    assert set(make(net("fcn8s"), "fp32").precision.layers.values()) == {"fp32"}
    fp8 = make(net("fcn8s"), "fp8").precision
    assert {name for name, precision in fp8.layers.items() if precision == "fp16"} == kept
    assert Counter(fp8.layers.values()) == {"fp8": 14, "fp16": 7}
    assert (fp8.weight_rounding, fp8.bias_corrected) == ("nearest", True)


def test_transposed_convolutions_stay_fp32_in_a_bf16_graph(net):
    layers = make(net("fcn8s"), "bf16", "bf16").precision.layers
    in_fp32 = {name for name, precision in layers.items() if precision == "fp32"}
    assert in_fp32 == {"upscore2", "upscore2_pool4", "upscore8"}
    assert Counter(layers.values()) == {"bf16": 18, "fp32": 3}
    assert Counter(make(net("fcn8s"), "fp8", "bf16").precision.layers.values()) == {"fp8": 14, "bf16": 4, "fp32": 3}


def test_the_scales_of_fp8_are_the_largest_value_over_448(net):
    model, ranges = net("fcn8s")
    graph = parse(make((model, ranges), "fp8", "fp32", method="minmax").data).graph
    pairs = [node for node in graph if node.op_type == "QuantizeLinear"]
    assert len(pairs) == 14
    for node in pairs:
        source = node.inputs[0]
        while source.name not in ranges.histograms:
            source = source.producer().inputs[0]
        histogram = ranges.histograms[source.name]
        largest = max(-histogram.min, histogram.max)
        np.testing.assert_allclose(node.inputs[1].const_value.numpy() * 448, largest, rtol=1e-6)
        assert node.inputs[2].dtype == node.outputs[0].dtype == ir.DataType.FLOAT8E4M3FN


@pytest.mark.parametrize("base", ["fp16", "fp32"])
def test_for_a_library_that_fuses_no_scales_of_channels_they_are_apart(net, base):
    fused, apart = (make(net("fcn8s"), "int8", base, flavor=flavor) for flavor in FLAVORS_THAT_BUILD)
    assert apart.precision == fused.precision
    nodes = [node for node in parse(apart.data).graph if node.op_type in ("Mul", "DequantizeLinear")]
    scales = {node.name: node.inputs[1].shape for node in nodes if node.op_type == "DequantizeLinear"}
    muls = {node.name for node in nodes if node.op_type == "Mul" and node.name.endswith("/Mul")}
    int8 = {name for name, precision in apart.precision.layers.items() if precision == "int8"}
    # On a base of FP32 its kernels write FP32 in any case.
    assert muls == ({f"{name}/Mul" for name in int8} if base == "fp16" else set())
    assert {len(scales[f"{name}.weight/DequantizeLinear"]) for name in int8} == ({0} if base == "fp16" else {1})
    pools = [node for node in parse(apart.data).graph if node.op_type == "MaxPool"]
    assert {node.inputs[0].producer().op_type for node in pools} == {"DequantizeLinear"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_scales_that_are_apart_cost_no_accuracy(net, photos, variant):
    reference = OnnxRuntimeBackend(serialize(net(variant)[0].copy()))
    spec = net(variant)[0].spec
    wanted = logits_of(reference, spec, photos)
    fused, apart = (
        sqnr(wanted, logits_of(open_simulation(make(net(variant), "int8", flavor=flavor)), spec, photos))
        for flavor in FLAVORS_THAT_BUILD
    )
    assert apart > fused - 1


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_padded_classes_change_no_label(net, photos, variant, precision):
    """Of FP32 and FP16; INT8 for the two libraries is rounded in other places."""
    labels = {}
    for flavor in FLAVORS_THAT_BUILD:
        graph = make(net(variant), precision, io="image", flavor=flavor)
        weights = parse(graph.data).graph.initializers
        (shape,) = (value.shape for name, value in weights.items() if name.startswith(f"upscore{variant[3:-1]}.weight"))
        assert (shape[1] % 8 == 0) == (flavor == "tensorrt-rtx")
        with Segmenter(open_simulation(graph), spec=net(variant)[0].spec) as segmenter:
            labels[flavor] = np.concatenate([segmenter(photo).ravel() for photo in photos])
    if precision != "int8":
        np.testing.assert_array_equal(*labels.values())
    assert max(label.max() for label in labels.values()) < net(variant)[0].spec.num_classes


def test_the_layers_asked_for_are_quantised(net):
    layers = make(net("fcn8s"), "int8", int8_layers=("fc6", "conv1_1")).precision.layers
    assert {name for name, precision in layers.items() if precision == "int8"} == {"conv1_1", "fc6"}
    with pytest.raises(InputError, match="layers that cannot be quantised; got conv9_9"):
        make(net("fcn8s"), "int8", int8_layers=("conv9_9",))


def test_images_are_normalised_in_float32_and_labels_taken_of_fp16_logits(net):
    graph = parse(make(net("fcn8s"), "fp16", io="image").data).graph
    kinds = {node.name: [str(value.dtype) for value in node.inputs if value is not None] for node in graph}
    assert kinds["image/Mul"][1] == kinds["image/Add"][1] == "FLOAT"
    assert kinds["labels/ArgMax"] == ["FLOAT16"]
    casts = [node for node in graph if node.op_type == "Cast" and node.outputs[0].dtype is not None]
    # Of the image, and of labels: they are cropped after the argmax, as TensorRT casts uint8 from floats alone.
    assert [str(node.outputs[0].dtype) for node in casts] == ["FLOAT16", "FLOAT16", "UINT8"]
    order = [node.op_type for node in graph]
    assert order[-5:] == ["ArgMax", "Cast", "Slice", "Squeeze", "Cast"]


def test_a_residual_net_has_its_sums_fused_and_its_depthwise_layers_quantised(own_net):
    graph = parse(make(own_net("ResNetFCN"), "int8").data).graph
    sums = [node for node in graph if node.op_type == "Add"]
    assert len(sums) == 3
    for node in sums:
        kinds = [value.producer().op_type for value in node.inputs]
        assert sorted(kinds) == ["Conv", "DequantizeLinear"]
    layers = make(own_net("Depthwise"), "int8").precision.layers
    assert {name for name, precision in layers.items() if precision != "int8"} == {"features.0", "score", "upscore"}


def test_biases_are_corrected_by_the_means_of_the_ranges(net):
    model, ranges = net("fcn8s")
    corrected = typed_graph(model, BuildConfig("int8"), ranges, "fp32")
    assert corrected.precision.bias_corrected is True
    biases = {value for value in parse(corrected.data).graph.initializers if value.endswith(".bias/corrected")}
    int8 = {name for name, precision in corrected.precision.layers.items() if precision == "int8"}
    assert biases == {f"{layer}.bias/corrected" for layer in int8}
    plain = typed_graph(model, BuildConfig("int8", bias_correction=False), ranges, "fp32")
    assert plain.precision.bias_corrected is False
    assert not any("no means" in note for graph in (corrected, plain) for note in graph.notes)
    old = typed_graph(model, BuildConfig("int8"), replace(ranges, means={}), "fp32")
    assert old.data == plain.data
    assert old.precision.bias_corrected is False
    assert any("ranges hold no means, so no bias was corrected: calibrate again" in note for note in old.notes)
    audited = typed_graph(model, BuildConfig("fp16"), replace(ranges, means={}))
    assert audited.precision.bias_corrected is None
    assert not any("no means" in note for note in audited.notes)


def test_weights_are_rounded_to_the_nearest_unless_asked_otherwise(net):
    model, ranges = net("fcn8s")
    graphs = {
        rounding: typed_graph(model, BuildConfig("int8", weight_rounding=rounding), ranges, "fp32")
        for rounding in (None, "nearest", "correlated")
    }
    recorded = {asked: graph.precision.weight_rounding for asked, graph in graphs.items()}
    assert recorded == {None: "nearest", "nearest": "nearest", "correlated": "correlated"}
    assert graphs[None].data == graphs["nearest"].data != graphs["correlated"].data
    assert typed_graph(model, BuildConfig("fp16"), ranges).precision.weight_rounding is None


# Numbers


@pytest.mark.parametrize("variant", VARIANTS)
def test_fp16_is_within_half_a_percent_of_the_logits_range(net, photos, variant):
    model, _ = net(variant)
    wanted = logits(OnnxRuntimeBackend(model.content), photos[:3])
    found = logits(open_simulation(make(net(variant), "fp16")), photos[:3])
    assert 0 < np.abs(found - wanted).max() <= 5e-3 * np.ptp(wanted)


@pytest.mark.parametrize("base", ["fp16", "fp32"])
def test_int8_is_close_to_float(net, photos, base):
    model, _ = net("fcn8s")
    wanted = logits(OnnxRuntimeBackend(model.content), photos[:3])
    assert sqnr(wanted, logits(open_simulation(make(net("fcn8s"), "int8", base)), photos[:3])) >= 20


def test_the_simulation_leaves_onnxruntime_nothing_to_fuse_into_integer_kernels(net, tmp_path):
    graph = parse(make(net("fcn8s"), "int8").data)
    data = serialize(pipelines.simulation()(graph).model)
    path = tmp_path / "optimized.onnx"
    OnnxRuntimeBackend(data, simulate_quantization=True, optimized_path=path).close()
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert not any("QLinear" in kind or "Integer" in kind for kind in kinds)
    assert kinds["QuantizeLinear"] == 14
    # Casts there and back stay: as many as the graph came with.
    assert kinds["Cast"] == Counter(node.op_type for node in parse(data).graph)["Cast"]


@pytest.mark.parametrize("name", ["ResNetFCN", "Depthwise"])
def test_nets_of_the_user_s_own_are_close_to_float_too(own_net, photos, name):
    wanted = logits(OnnxRuntimeBackend(own_net(name)[0].content), photos[:3])
    assert sqnr(wanted, logits(open_simulation(make(own_net(name), "fp16")), photos[:3])) >= 50
    assert sqnr(wanted, logits(open_simulation(make(own_net(name), "int8")), photos[:3])) >= 15


def test_bf16_is_within_two_percent_of_the_logits_range(net, photos):
    model, _ = net("fcn8s")
    wanted = logits(OnnxRuntimeBackend(model.content), photos[:3])
    found = logits(open_simulation(make(net("fcn8s"), "bf16", "bf16")), photos[:3])
    fp16 = logits(open_simulation(make(net("fcn8s"), "fp16")), photos[:3])
    assert np.abs(fp16 - wanted).max() < np.abs(found - wanted).max() <= 2e-2 * np.ptp(wanted)


@pytest.mark.parametrize("base", ["fp16", "fp32", "bf16"])
def test_fp8_is_close_to_float(net, photos, base):
    model, _ = net("fcn8s")
    wanted = logits(OnnxRuntimeBackend(model.content), photos[:3])
    assert sqnr(wanted, logits(open_simulation(make(net("fcn8s"), "fp8", base, method="minmax")), photos[:3])) >= 20


@pytest.mark.parametrize(("precision", "base"), KINDS)
def test_images_to_labels_is_the_argmax_of_the_logits(net, photos, precision, base):
    tensor, image = (Segmenter(open_simulation(make(net("fcn8s"), precision, base, io))) for io in ("tensor", "image"))
    assert image.io == "image"
    assert np.mean(tensor(photos[0]) == image(photos[0])) >= 0.999


# The audit


def _scaled(model, layer, factor):
    """The model with the weights and the bias of one layer multiplied."""
    graph_model = model.copy()
    for node in graph_model.graph:
        if node.name == layer:
            for value in node.inputs[1:]:
                value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=value.name)
    return ExportedModel.parse(serialize(graph_model))


def test_a_tensor_that_passes_fp16_s_range_stays_float32_and_is_named(net, photos):
    model, _ = net("fcn8s")
    model = _scaled(_scaled(model, "conv2_1", 1e6), "conv2_2", 1e-6)
    ranges = observe(model, photos[:2])
    assert ranges.histograms["conv2_1/Relu"].max > 65504
    blind, audited = (typed_graph(model, BuildConfig("fp16", "tensor"), known) for known in (None, ranges))
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(logits(open_simulation(blind), photos[:1])).all()
    assert blind.precision.audited is False
    assert any("not audited" in note for note in blind.notes)
    wanted = logits(OnnxRuntimeBackend(model.content), photos[:2])
    found = logits(open_simulation(audited), photos[:2])
    assert sqnr(wanted, found) >= 50
    assert audited.precision.audited is True
    assert "conv2_1/Relu" in audited.precision.kept_fp32
    assert any("conv2_1/Relu" in note for note in audited.notes)
    layers = audited.precision.layers
    assert (layers["conv2_1"], layers["conv2_2"], layers["conv3_1"]) == ("fp32", "fp32", "fp16")
    rtx.build(audited.data, (1, 3, 40, 56))
    quantized = typed_graph(model, BuildConfig("int8", "tensor"), ranges)
    assert sqnr(wanted, logits(open_simulation(quantized), photos[:2])) >= 15
    rtx.build(quantized.data, (1, 3, 40, 56))


def test_fp32_is_not_audited_and_does_not_say_so(net):
    graph = make(net("fcn8s"), "fp32")
    assert graph.precision.audited is None
    assert graph.notes == ()


# What is refused


def test_options_that_do_not_go_together_are_refused(net):
    model, ranges = net("fcn8s")
    with pytest.raises(UsageError, match="INT8 needs ranges"):
        typed_graph(model, BuildConfig("int8"))
    with pytest.raises(UsageError, match=r"the base of FP16 is FP16 itself; got `base=.fp32.`"):
        typed_graph(model, BuildConfig("fp16"), ranges, "fp32")
    with pytest.raises(UsageError, match="unknown base"):
        typed_graph(model, BuildConfig("int8"), ranges, "fp64")
    with pytest.raises(UsageError, match="the base of BF16 is BF16 itself"):
        typed_graph(model, BuildConfig("bf16"), base="fp32")
    with pytest.raises(UsageError, match="FP8 needs ranges"):
        typed_graph(model, BuildConfig("fp8"))


def test_ranges_of_another_model_are_refused(net):
    with pytest.raises(InputError, match="belong to another model"):
        typed_graph(net("fcn8s")[0], BuildConfig("fp16"), net("fcn16s")[1])


# The builder


@pytest.mark.parametrize(
    ("variant", "precision", "base"),
    [("fcn8s", *kind) for kind in KINDS] + [(each, *kind) for each in VARIANTS[1:] for kind in BY_DEFAULT],
)
def test_tensorrt_builds_every_typed_graph(net, variant, precision, base):
    for flavor in FLAVORS_THAT_BUILD:
        rtx.build(make(net(variant), precision, base, "tensor", flavor).data, (2, 3, 65, 97))
        rtx.build(make(net(variant), precision, base, "image", flavor).data, (2, 65, 97, 3))


@pytest.mark.parametrize("name", ["ResNetFCN", "Depthwise"])
def test_tensorrt_builds_nets_of_the_user_s_own(own_net, name):
    for precision, base in BY_DEFAULT:
        rtx.build(make(own_net(name), precision, base, "image").data, (1, 64, 96, 3))
    rtx.build(make(own_net(name), "int8", io="image", flavor="tensorrt-rtx").data, (1, 64, 96, 3))
