"""Engines of prequantized models: scales to the last bit, results, and what is refused."""

import json
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.diagnostics.inspection import inspect_file
from fcn_deploy.engines import onnxruntime as module
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.logits_size import check_logits_size
from fcn_deploy.engines.onnxruntime import build_onnxruntime
from fcn_deploy.engines.openvino import build_openvino
from fcn_deploy.engines.prequantized import check_scales, prequantized_precision
from fcn_deploy.engines.simulation import build_simulation, open_simulation
from fcn_deploy.engines.tensorrt.typed_graph import typed_graph
from fcn_deploy.errors import InputError, PrecisionError, UsageError
from fcn_deploy.files import sha256_file
from fcn_deploy.graph.model import ExportedModel, load_exported, parse
from fcn_deploy.quantization.prequantized import check_not_prequantized, saturating_weights
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.cpu import exact_8_bits
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from tests.support import quantized_nets, rtx
from tests.support.openvino import needs_bf16, needs_openvino

# Targets whose engines run on this machine.
needs_exact_8_bits = pytest.mark.skipif(not exact_8_bits(), reason="this CPU has no VNNI")
RUNNING_TARGETS = ["generic", pytest.param("vnni", marks=needs_exact_8_bits)]
UPSCORES = ["upscore2", "upscore2_pool4", "upscore8"]


@pytest.fixture(scope="module")
def build(prequantized):
    """Builds an engine for ONNX Runtime, once."""
    made = {}

    def build(scheme, target="generic", io="tensor"):
        if (scheme, target, io) not in made:
            config = BuildConfig("int8", io, target_cpu=target)
            made[scheme, target, io] = build_onnxruntime(prequantized(scheme), config)
        return made[scheme, target, io]

    return build


def scales(data):
    """How often each scale stands in a graph, as bytes."""
    graph = onnx.load_model_from_string(data).graph
    arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return Counter((node.op_type, arrays[node.input[1]].tobytes()) for node in pairs)


def _weights(data):
    """The integer weights of the convolutions of an engine."""
    arrays = [numpy_helper.to_array(each) for each in onnx.load_model_from_string(data).graph.initializer]
    return [array for array in arrays if array.ndim == 4 and array.dtype in (np.int8, np.uint8)]


@pytest.fixture(scope="module")
def spec(model):
    """The spec of the exported FCN-8s."""
    return model("fcn8s").spec


def logits(model, photo, **options):
    """What an exported model gives for a photo."""
    return Segmenter(OnnxRuntimeBackend(model.content, **options), spec=model.spec).logits(photo)


def build_on(backend, model, config, ranges=None):
    """Builds an engine for ONNX Runtime, or simulates one for TensorRT, INT8 on a base of FP32."""
    if backend == "onnxruntime":
        return build_onnxruntime(model, config, ranges)
    return build_simulation(model, config, "fp32" if config.precision == "int8" else "fp16", ranges)


# ONNX Runtime


@pytest.mark.parametrize("target", ["generic", "vnni"])
@pytest.mark.parametrize("scheme", ["reduced", "full", "unsigned", "defaults", "tensorrt"])
def test_scales_are_the_graphs_own_to_the_last_bit(build, prequantized, scheme, target):
    brought = scales(prequantized(scheme).content)
    assert len(brought) > 30
    assert scales(build(scheme, target).data) == brought


@pytest.mark.parametrize("target", RUNNING_TARGETS)
@pytest.mark.parametrize("scheme", ["reduced", "full", "unsigned"])
def test_an_engine_gives_what_onnxruntime_gives_for_the_graph(build, prequantized, photos, scheme, target):
    engine = build(scheme, target)
    for photo in photos[:3]:
        wanted = logits(prequantized(scheme), photo)
        with Segmenter(OnnxRuntimeBackend(engine.data), spec=engine.sidecar.spec) as segmenter:
            np.testing.assert_array_equal(segmenter.logits(photo), wanted)


@pytest.mark.parametrize("target", RUNNING_TARGETS)
@pytest.mark.parametrize("scheme", ["defaults", "tensorrt"])
def test_signed_activations_give_what_the_graph_means(build, prequantized, photos, scheme, target):
    """Up to a step of the integers: where a sum lies between two of them, kernels and floats may round differently."""
    engine = build(scheme, target)
    for photo in photos[:3]:
        wanted = logits(prequantized(scheme), photo, simulate_quantization=True)
        with Segmenter(OnnxRuntimeBackend(engine.data), spec=engine.sidecar.spec) as segmenter:
            found = segmenter.logits(photo)
        assert np.abs(found - wanted).max() <= 0.03 * np.ptp(wanted)


def test_an_engine_for_any_cpu_has_no_weights_that_saturate(build):
    assert len(saturating_weights(parse(build("full", "vnni").data).graph, 64)) == 18
    assert saturating_weights(parse(build("full").data).graph, 64) == {}


def test_weights_stored_as_uint8_are_logged(prequantized, caplog):
    with caplog.at_level("INFO", "fcn_deploy"):
        build_onnxruntime(prequantized("full"), BuildConfig("int8"))
        assert "weights of 18 layers use all 8 bits" in caplog.text
        assert '`target_cpu="vnni"` keeps int8' in caplog.text
        caplog.clear()
        build_onnxruntime(prequantized("reduced"), BuildConfig("int8"))
        build_onnxruntime(prequantized("full"), BuildConfig("int8", target_cpu="vnni"))
    assert "8 bits" not in caplog.text


@pytest.fixture
def lowest(prequantized, tmp_path):
    """A prequantized model with a weight of -128 in conv4_2, as torch's quantisers leave them."""
    proto = onnx.load_model_from_string(prequantized("full").content)
    weights = next(each for each in proto.graph.initializer if each.name == "conv4_2.0.weight_quantized")
    array = numpy_helper.to_array(weights).copy()
    array.flat[array.argmin()] = -128
    weights.CopyFrom(numpy_helper.from_array(array, weights.name))
    onnx.save(proto, tmp_path / "lowest.onnx")
    return load_exported(tmp_path / "lowest.onnx")


def test_weights_of_128_below_zero_are_stored_as_uint8_for_arm(lowest, photos, caplog):
    with caplog.at_level("INFO", "fcn_deploy"):
        engine = build_onnxruntime(lowest, BuildConfig("int8", "tensor", target_cpu="vnni"))
    assert "weights of 1 layers hold -128, which would saturate on Arm: they are stored as uint8" in caplog.text
    types = Counter(array.dtype.name for array in _weights(engine.data))
    assert types == {"uint8": 1, "int8": 20}  # three of them transposed convolutions, which run in float
    assert all(array.min() >= -127 for array in _weights(engine.data) if array.dtype == np.int8)
    wanted = logits(lowest, photos[0], simulate_quantization=True)
    simulated = OnnxRuntimeBackend(engine.data, simulate_quantization=True)
    np.testing.assert_array_equal(Segmenter(simulated, spec=lowest.spec).logits(photos[0]), wanted)


@needs_exact_8_bits
def test_a_layer_stored_as_uint8_gives_what_int8_gives(lowest, photos):
    engine = build_onnxruntime(lowest, BuildConfig("int8", "tensor", target_cpu="vnni"))
    with Segmenter(OnnxRuntimeBackend(engine.data), spec=lowest.spec) as segmenter:
        np.testing.assert_array_equal(segmenter.logits(photos[0]), logits(lowest, photos[0]))


def test_weights_of_128_below_zero_that_cannot_be_stored_as_uint8_are_refused(lowest, monkeypatch):
    found = saturating_weights(lowest.graph, 127)
    monkeypatch.setattr(module, "saturating_weights", lambda graph, limit: found)  # as if the pass had declined
    with pytest.raises(InputError, match=r"weights hold -128.*got conv4_2; .*quant_min=-127"):
        build_onnxruntime(lowest, BuildConfig("int8", target_cpu="vnni"))


def test_weights_that_cannot_be_stored_as_uint8_are_refused(prequantized, monkeypatch):
    found = saturating_weights(prequantized("full").graph, 64)
    monkeypatch.setattr(module, "saturating_weights", lambda graph, limit: found)  # as if the pass had declined
    with pytest.raises(InputError, match=r"got conv1_1, .*reduce_range=True, or build with `target_cpu=.vnni.`"):
        build_onnxruntime(prequantized("full"), BuildConfig("int8"))


def test_the_sidecar_says_that_the_model_brought_its_scales(build, quantized, tmp_path):
    path = tmp_path / "net.int8.onnx"
    build("tensorrt").save(path)
    sidecar = json.loads((tmp_path / "net.int8.onnx.json").read_text())
    precision = sidecar["precision"]
    assert (precision["requested"], precision["base"], precision["method"]) == ("int8", "fp32", "given")
    assert Counter(precision["layers"].values()) == {"int8": 18, "fp32": 3}
    assert precision["achieved"] == "int8"
    assert precision["achieved_layers"] == precision["layers"]
    assert sidecar["source"] == {"onnx_sha256": sha256_file(quantized("tensorrt")), "ranges_sha256": None} | {
        "calibration": None
    }
    assert sidecar["target"] == {"cpu": "generic", "gpu": []}


def test_a_layer_that_runs_in_float_is_warned_of_and_recorded(prequantized, tmp_path, caplog):
    path = tmp_path / "net.onnx"
    engine = build_onnxruntime(prequantized("defaults"), BuildConfig("int8"))
    assert f"no integer kernel for {', '.join(UPSCORES)} with the Q/DQ that they have" in caplog.text
    engine.save(path)
    precision = inspect_file(path)["sidecar"]["precision"]
    assert set(precision["layers"].values()) == {"int8"}
    assert precision["achieved"] == "mixed"
    assert [name for name, kind in precision["achieved_layers"].items() if kind == "fp32"] == UPSCORES


def test_int8_activations_behind_a_pool_run_in_int8_as_well(build, quantized, tmp_path):
    """Which ONNX Runtime alone does not see to."""
    path = tmp_path / "optimized.onnx"
    OnnxRuntimeBackend(quantized("defaults"), optimized_path=path).close()
    alone = Counter(node.op_type for node in onnx.load(path).graph.node)["QLinearConv"]
    assert alone < 18
    found = build("defaults", "vnni").sidecar.precision.achieved_layers
    assert Counter(found.values())["int8"] == 18


def test_a_graph_none_of_whose_layers_onnxruntime_fuses_is_exit_4(tmp_path, spec):
    """Fake quantisation for TensorRT: nothing is quantised between a convolution and its ReLU."""
    path = quantized_nets.export_fake_quantized(tmp_path / "fake.onnx", 5, symmetric=True)
    with pytest.raises(PrecisionError, match=r"runs no layer of the graph in INT8; got /Conv in fp32") as caught:
        build_onnxruntime(load_exported(path, spec=spec), BuildConfig("int8"))
    assert caught.value.exit_code == 4
    assert "build for TensorRT" in str(caught.value)


def test_a_graph_whose_qdq_are_of_16_bits_is_exit_4(prequantized):
    with pytest.raises(PrecisionError, match="no layer of the graph is INT8; got int16") as caught:
        build_onnxruntime(prequantized("int16"), BuildConfig("int8"))
    assert caught.value.exit_code == 4


def test_images_to_labels_is_the_argmax_of_the_logits(build, photos):
    tensor, image = build("full"), build("full", io="image")
    for photo in photos[:2]:
        with (
            Segmenter(OnnxRuntimeBackend(tensor.data), spec=tensor.sidecar.spec) as one,
            Segmenter(OnnxRuntimeBackend(image.data), spec=image.sidecar.spec) as other,
        ):
            # Normalised in the graph or before it: a pixel may be rounded to the next integer.
            assert np.mean(one(photo) == other(photo)) > 0.99


def test_a_fake_quantised_net_becomes_an_engine(tmp_path, spec, photos):
    """Float weights that are quantised in the graph, scales in Constant nodes, a zero point behind an Identity."""
    path = quantized_nets.export_fake_quantized(tmp_path / "fake.onnx", 5, symmetric=False)
    with pytest.raises(InputError, match=r"does not say how its images are normalised"):
        load_exported(path)
    engine = build_onnxruntime(load_exported(path, spec=spec), BuildConfig("int8", "tensor"))
    assert engine.sidecar.spec == spec
    assert parse(engine.data).metadata_props[METADATA_KEY] == spec.dumps()
    assert engine.sidecar.precision.achieved_layers == {"/Conv": "int8", "/Conv_1": "int8", "/score/Conv": "fp32"}
    dtypes = Counter(each.data_type for each in onnx.load_model_from_string(engine.data).graph.initializer if each.dims)
    assert dtypes[onnx.TensorProto.UINT8] >= 2
    reference = OnnxRuntimeBackend(path, simulate_quantization=True)
    with Segmenter(reference, spec=spec) as brought, Segmenter(OnnxRuntimeBackend(engine.data), spec=spec) as built:
        wanted, found = brought.logits(photos[0]), built.logits(photos[0])
    assert np.abs(found - wanted).max() <= 0.02 * np.ptp(wanted)


# Specs and sizes


def test_the_spec_of_another_model_is_refused(quantized, model, tmp_path):
    fcn8s, fcn16s = model("fcn8s").spec, model("fcn16s").spec
    assert load_exported(quantized("reduced"), spec=fcn8s).spec == fcn8s
    with pytest.raises(UsageError, match="has a spec of its own"):
        load_exported(quantized("reduced"), spec=fcn16s)
    bare = quantized_nets.export_fake_quantized(tmp_path / "bare.onnx", 7, symmetric=False)
    with pytest.raises(InputError, match="got 5 classes for logits"):
        load_exported(bare, spec=fcn8s)


@pytest.mark.parametrize("backend", ["onnxruntime", "simulation"])
def test_a_graph_that_was_cut_to_the_size_it_was_traced_at_is_refused(quantized, backend):
    proto = onnx.load(quantized("tensorrt"))
    last = next(node for node in proto.graph.node if "logits" in node.output)
    last.output[0] = "uncut"
    names = ("starts", "ends", "axes")
    for name, values in zip(names, ([0, 0], [32, 40], [2, 3]), strict=True):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    proto.graph.node.append(onnx.helper.make_node("Slice", ["uncut", *names], ["logits"]))
    model = ExportedModel.parse(proto.SerializeToString())
    with pytest.raises(InputError, match=r"logits as large as its image; got \[1, 5, 32, 40\] for \[1, 3, 33, 47\]"):
        build_on(backend, model, BuildConfig("int8"))


def test_a_graph_of_one_size_is_tried_at_that(tmp_path, spec):
    path = quantized_nets.export_fake_quantized(tmp_path / "a.onnx", 5, symmetric=True, sizes=False)
    check_logits_size(load_exported(path, spec=spec))


def test_a_model_that_takes_no_images_is_refused(spec):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["image"], ["logits"])],
        "g",
        [value("image", onnx.TensorProto.FLOAT, ["n", 3])],
        [value("logits", onnx.TensorProto.FLOAT, ["n", 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.dumps()})
    with pytest.raises(InputError, match="does not take images"):
        check_logits_size(ExportedModel.parse(model.SerializeToString()))


# TensorRT


def test_the_typed_graph_has_the_graphs_own_scales_and_gives_its_results(prequantized, photos):
    model = prequantized("tensorrt")
    graph = typed_graph(model, BuildConfig("int8", "tensor"), base="fp32")
    assert scales(graph.data) == scales(model.content)
    assert (graph.precision.method, graph.precision.base) == ("given", "fp32")
    assert Counter(graph.precision.layers.values()) == {"int8": 18, "fp32": 3}
    wanted = logits(model, photos[0], simulate_quantization=True)
    with Segmenter(open_simulation(graph)) as segmenter:
        np.testing.assert_array_equal(segmenter.logits(photos[0]), wanted)


@pytest.mark.parametrize("scheme", ["tensorrt", "tensorrt-all"])
@pytest.mark.parametrize("io", ["image", "tensor"])
def test_tensorrt_builds_its_typed_graph(prequantized, scheme, io):
    graph = typed_graph(prequantized(scheme), BuildConfig("int8", io), base="fp32")
    rtx.build(graph.data, (2, 65, 97, 3) if io == "image" else (2, 3, 65, 97))


def test_tensorrt_builds_a_fake_quantised_net(tmp_path, spec):
    path = quantized_nets.export_fake_quantized(tmp_path / "fake.onnx", 5, symmetric=True)
    graph = typed_graph(load_exported(path, spec=spec), BuildConfig("int8", "image"), base="fp32")
    assert graph.precision.layers == {"/Conv": "int8", "/Conv_1": "int8", "/score/Conv": "fp32"}
    rtx.build(graph.data, (1, 40, 56, 3))


def _with_half_scales(path, target):
    proto = onnx.load(path)
    for each in proto.graph.initializer:
        if each.name.endswith("_scale"):
            half = numpy_helper.to_array(each).astype(np.float16).astype(np.float32)
            each.CopyFrom(numpy_helper.from_array(half, each.name))
    onnx.save(proto, target)
    return target


def test_a_base_of_fp16_takes_scales_that_it_has_and_says_that_nothing_was_audited(quantized, tmp_path, photos):
    model = load_exported(_with_half_scales(quantized("tensorrt"), tmp_path / "half.onnx"))
    graph = typed_graph(model, BuildConfig("int8", "tensor"))
    assert Counter(graph.precision.layers.values()) == {"int8": 18, "fp16": 3}
    assert graph.precision.audited is False
    assert any("not audited" in note for note in graph.notes)
    widened = Counter(
        (op, np.frombuffer(raw, np.float32).tobytes())
        for (op, raw), n in scales(model.content).items()
        for _ in range(n)
    )
    found = Counter()
    for (op, raw), count in scales(graph.data).items():
        found[op, np.frombuffer(raw, np.float16).astype(np.float32).tobytes()] += count
    assert found == widened
    rtx.build(graph.data, (1, 3, 40, 56))
    wanted = logits(model, photos[0], simulate_quantization=True)
    with Segmenter(open_simulation(graph)) as segmenter:
        assert np.abs(segmenter.logits(photos[0]) - wanted).max() <= 0.05 * np.ptp(wanted)


def test_a_base_of_fp16_that_would_round_scales_is_refused(prequantized):
    with pytest.raises(UsageError, match=r"fix: build with .*base.*fp32.*, which keeps them"):
        build_simulation(prequantized("tensorrt"), BuildConfig("int8"))


@pytest.mark.parametrize("scheme", ["reduced", "defaults"])
def test_what_tensorrt_would_refuse_is_refused_on_any_base(prequantized, scheme):
    for base in ("fp16", "fp32"):
        with pytest.raises(InputError, match=r"TensorRT would refuse.*(uint8|QuantizeBias off)"):
            typed_graph(prequantized(scheme), BuildConfig("int8"), base=base)


def test_layers_to_quantise_are_refused_for_it(prequantized):
    with pytest.raises(UsageError, match="brings its own Q/DQ; got conv1_1"):
        typed_graph(prequantized("tensorrt"), BuildConfig("int8", int8_layers=("conv1_1",)), base="fp32")


# What does not go together


@pytest.mark.parametrize("backend", ["onnxruntime", "simulation"])
def test_another_precision_of_it_is_refused(prequantized, backend):
    precision = "fp32" if backend == "onnxruntime" else "fp16"
    message = f'INT8 already: it holds Q/DQ; got `precision="{precision}"`; fix: build it with `precision="int8"`'
    with pytest.raises(UsageError, match=message):
        build_on(backend, prequantized("tensorrt"), BuildConfig(precision))


def test_fp8_of_another_tool_is_refused_by_what_it_is(exported, ranges):
    config = BuildConfig("fp8", "tensor")
    model = parse(typed_graph(load_exported(exported("fcn8s")), config, ranges(), base="fp32").data)
    for precision in ("fp32", "fp16", "bf16", "int8", "fp8"):
        with pytest.raises(InputError, match=r"FP8 already.*Q/DQ of FLOAT8E4M3FN; .*fix: build the float model it was"):
            check_scales(model, BuildConfig(precision), None)
    with pytest.raises(InputError, match="fix: calibrate the float model it was made from"):
        check_not_prequantized(model)


@pytest.mark.parametrize("backend", ["onnxruntime", "simulation"])
def test_ranges_for_it_are_refused(prequantized, ranges, backend):
    with pytest.raises(UsageError, match="brings its own scales"):
        build_on(backend, prequantized("tensorrt"), BuildConfig("int8"), ranges())


def test_layers_of_one_name_are_refused(prequantized):
    model = prequantized("tensorrt").copy()
    for node in model.graph:
        if node.op_type == "Conv":
            node.name = "conv"
    with pytest.raises(InputError, match="layers cannot be told apart; got several called conv"):
        prequantized_precision(model, "fp32")


@needs_openvino
def test_openvino_runs_the_q_dq_of_another_tool(prequantized, photos, tmp_path):
    model = prequantized("full")
    engine = build_openvino(model, BuildConfig("int8", target_cpu="vnni"))
    precision = engine.sidecar.precision
    assert (precision.method, precision.base) == ("given", "fp32")
    assert precision.achieved_layers["conv4_2"] == "int8"
    assert scales(engine.data) == scales(model.content)
    engine.save(tmp_path / "net.onnx")
    reference = OnnxRuntimeBackend(model.content, simulate_quantization=True)
    with Segmenter(tmp_path / "net.onnx", threads=1) as ours, Segmenter(reference) as theirs:
        assert np.mean([(ours(photo) == theirs(photo)).mean() for photo in photos]) > 0.95


@needs_openvino
@needs_bf16
def test_what_another_tool_left_float_may_be_bf16_in_openvino(prequantized):
    precision = build_openvino(
        prequantized("tensorrt"), BuildConfig("int8", target_cpu="vnni"), base="bf16"
    ).sidecar.precision
    assert precision.base == "bf16"
    assert set(precision.layers.values()) == {"int8", "bf16"}


@needs_openvino
@pytest.mark.parametrize("scheme", ["defaults", "tensorrt-all"])
def test_openvino_runs_every_scheme_right_and_says_what_is_int8(prequantized, photos, tmp_path, scheme):
    model = prequantized(scheme)
    engine = build_openvino(model, BuildConfig("int8", target_cpu="vnni"))
    assert engine.sidecar.precision.achieved_layers["conv4_2"] == "int8"
    engine.save(tmp_path / "net.onnx")
    reference = OnnxRuntimeBackend(model.content, simulate_quantization=True)
    with Segmenter(tmp_path / "net.onnx", threads=1) as ours, Segmenter(reference) as theirs:
        assert np.mean([(ours(photo) == theirs(photo)).mean() for photo in photos]) > 0.95


@needs_openvino
def test_weights_in_uint8_are_float_in_openvino_which_is_exit_4(prequantized):
    with pytest.raises(
        PrecisionError, match=r"runs no layer of the graph in INT8.*weights to int8, not uint8"
    ) as caught:
        build_openvino(prequantized("unsigned"), BuildConfig("int8", target_cpu="vnni"))
    assert caught.value.exit_code == 4


@needs_openvino
def test_weights_that_saturate_without_vnni_are_refused_for_a_generic_cpu(prequantized):
    with pytest.raises(InputError, match=r"would saturate on CPUs without VNNI; got conv1_1.*`target_cpu=.vnni.`"):
        build_openvino(prequantized("full"), BuildConfig("int8"))
    with pytest.raises(UsageError, match="INT8 already"):
        build_openvino(prequantized("full"), BuildConfig("fp32"))
