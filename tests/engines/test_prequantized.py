"""Engines of graphs that bring their own Q/DQ: scales to the last bit, results, and what cannot be had."""

import json
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.diagnostics.inspection import inspect
from fcn_deploy.engines.check_logits_size import check_sizes
from fcn_deploy.engines.engine import BuildConfig
from fcn_deploy.engines.prequantized import given_precision
from fcn_deploy.engines.tensorrt.builder import TensorRTConfig
from fcn_deploy.engines.tensorrt.typed_graph import simulate, typed_graph
from fcn_deploy.errors import InputError, PrecisionError, UsageError
from fcn_deploy.files import sha256_file
from fcn_deploy.graph.model import parse
from fcn_deploy.quantization.prequantized import saturating_weights
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.workflows import steps
from tests.support import quantized_nets, rtx

UPSCORES = ["upscore2", "upscore2_pool4", "upscore8"]
FP32 = TensorRTConfig(base="fp32")


@pytest.fixture(scope="module")
def build(quantized):
    """Builds an engine for ONNX Runtime, once."""
    made = {}

    def build(scheme, target="generic", io="tensor"):
        if (scheme, target, io) not in made:
            config = BuildConfig("int8", io, target_cpu=target)
            made[scheme, target, io] = steps.build(quantized(scheme), config)
        return made[scheme, target, io]

    return build


def scales(data):
    """How often each scale stands in a graph, as bytes."""
    graph = onnx.load_model_from_string(data).graph
    arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    return Counter((node.op_type, arrays[node.input[1]].tobytes()) for node in pairs)


def logits(model, photo, **options):
    """What a model gives for a photo, normalised as by the spec of the exported nets."""
    segmenter = Segmenter(OnnxRuntimeBackend(model, **options), spec=steps.exported_spec(parse(model)))
    return segmenter.logits(photo)


# ONNX Runtime


@pytest.mark.parametrize("target", ["generic", "vnni"])
@pytest.mark.parametrize("scheme", ["reduced", "full", "unsigned", "defaults", "tensorrt"])
def test_scales_are_the_graphs_own_to_the_last_bit(build, quantized, scheme, target):
    given = scales(quantized(scheme).read_bytes())
    assert len(given) > 30
    assert scales(build(scheme, target).data) == given


@pytest.mark.parametrize("target", ["generic", "vnni"])
@pytest.mark.parametrize("scheme", ["reduced", "full", "unsigned"])
def test_it_gives_what_onnxruntime_gives_for_the_graph(build, quantized, photos, scheme, target):
    engine = build(scheme, target)
    for photo in photos[:3]:
        wanted = logits(quantized(scheme).read_bytes(), photo)
        with Segmenter(OnnxRuntimeBackend(engine.data), spec=engine.sidecar.spec) as segmenter:
            np.testing.assert_array_equal(segmenter.logits(photo), wanted)


@pytest.mark.parametrize("target", ["generic", "vnni"])
@pytest.mark.parametrize("scheme", ["defaults", "tensorrt"])
def test_signed_activations_give_what_the_graph_means(build, quantized, photos, scheme, target):
    """Up to a step of the integers: where a sum lies between two of them, kernels and floats may round differently."""
    engine = build(scheme, target)
    for photo in photos[:3]:
        wanted = logits(quantized(scheme).read_bytes(), photo, simulate_quantization=True)
        with Segmenter(OnnxRuntimeBackend(engine.data), spec=engine.sidecar.spec) as segmenter:
            found = segmenter.logits(photo)
        assert np.abs(found - wanted).max() <= 0.03 * np.ptp(wanted)


def test_an_engine_for_any_cpu_has_no_weights_that_saturate(build):
    assert len(saturating_weights(parse(build("full", "vnni").data).graph)) == 18
    assert saturating_weights(parse(build("full").data).graph) == {}


def test_weights_stored_without_a_sign_are_told_of(quantized, caplog):
    with caplog.at_level("INFO", "fcn_deploy"):
        steps.build(quantized("full"), BuildConfig("int8"))
        assert "weights of 18 layers use all 8 bits" in caplog.text
        assert "--target-cpu vnni keeps int8" in caplog.text
        caplog.clear()
        steps.build(quantized("reduced"), BuildConfig("int8"))
        steps.build(quantized("full"), BuildConfig("int8", target_cpu="vnni"))
    assert "8 bits" not in caplog.text


def test_weights_that_cannot_be_stored_so_are_refused(quantized, monkeypatch):
    monkeypatch.setattr("fcn_deploy.passes.store_unsigned", lambda model, weights: (model, False))
    with pytest.raises(InputError, match=r"got conv1_1, .*reduce_range=True, or build with --target-cpu vnni"):
        steps.build(quantized("full"), BuildConfig("int8"))


def test_the_sidecar_says_that_scales_were_given(build, quantized, tmp_path):
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


def test_a_layer_that_runs_in_float_all_the_same_is_told_of(quantized, tmp_path, caplog):
    path = tmp_path / "net.onnx"
    engine = steps.build(quantized("defaults"), BuildConfig("int8"))
    assert f"no integer kernel for {', '.join(UPSCORES)} as their Q/DQ stand" in caplog.text
    engine.save(path)
    precision = inspect(path)["sidecar"]["precision"]
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


def test_a_graph_none_of_whose_layers_onnxruntime_fuses_is_exit_4(tmp_path, exported):
    """Fake quantisation for TensorRT: nothing is quantised between a convolution and its ReLU."""
    model = quantized_nets.export_fake_quantized(tmp_path / "fake.onnx", 5, symmetric=True)
    spec = steps.read_spec(exported("fcn8s"))
    with pytest.raises(PrecisionError, match=r"runs no layer of the graph in INT8; got /Conv in fp32") as caught:
        steps.build(model, BuildConfig("int8", spec=spec))
    assert caught.value.exit_code == 4
    assert "build for TensorRT" in str(caught.value)


def test_a_graph_whose_qdq_are_of_16_bits_is_exit_4(quantized):
    with pytest.raises(PrecisionError, match="no layer of the graph is INT8; got int16") as caught:
        steps.build(quantized("int16"), BuildConfig("int8"))
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


def test_fake_quantised_training_goes_all_the_way(tmp_path, exported, photos):
    """Float weights that are quantised in the graph, scales in Constant nodes, a zero point behind an Identity."""
    model = quantized_nets.export_fake_quantized(tmp_path / "fake.onnx", 5, symmetric=False)
    with pytest.raises(InputError, match=r"does not say how its images.*--spec-from"):
        steps.build(model, BuildConfig("int8"))
    spec = steps.read_spec(exported("fcn8s"))
    engine = steps.build(model, BuildConfig("int8", "tensor", spec=spec))
    assert engine.sidecar.spec == spec
    assert parse(engine.data).metadata_props[METADATA_KEY] == spec.dumps()
    assert engine.sidecar.precision.achieved_layers == {"/Conv": "int8", "/Conv_1": "int8", "/score/Conv": "fp32"}
    dtypes = Counter(each.data_type for each in onnx.load_model_from_string(engine.data).graph.initializer if each.dims)
    assert dtypes[onnx.TensorProto.UINT8] >= 2
    reference = OnnxRuntimeBackend(model, simulate_quantization=True)
    with Segmenter(reference, spec=spec) as given, Segmenter(OnnxRuntimeBackend(engine.data), spec=spec) as built:
        wanted, found = given.logits(photos[0]), built.logits(photos[0])
    assert np.abs(found - wanted).max() <= 0.02 * np.ptp(wanted)


# Specs and sizes


def test_the_spec_of_another_model_is_refused(quantized, exported, checkpoint_file, tmp_path):
    fcn8s, fcn16s = steps.read_spec(exported("fcn8s")), steps.read_spec(exported("fcn16s"))
    steps.build(quantized("reduced"), BuildConfig("int8", spec=fcn8s))
    with pytest.raises(UsageError, match="has a spec of its own, which is another"):
        steps.build(quantized("reduced"), BuildConfig("int8", spec=fcn16s))
    bare = quantized_nets.export_fake_quantized(tmp_path / "bare.onnx", 7, symmetric=False)
    with pytest.raises(InputError, match="the spec is not that of the model; got 5 classes for logits"):
        steps.build(bare, BuildConfig("int8", spec=fcn8s))


@pytest.mark.parametrize("backend", ["onnxruntime", "simulation"])
def test_a_graph_that_was_cut_to_the_size_it_was_traced_at_is_refused(quantized, tmp_path, backend):
    proto = onnx.load(quantized("tensorrt"))
    last = next(node for node in proto.graph.node if "logits" in node.output)
    last.output[0] = "uncut"
    names = ("starts", "ends", "axes")
    for name, values in zip(names, ([0, 0], [32, 40], [2, 3]), strict=True):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    proto.graph.node.append(onnx.helper.make_node("Slice", ["uncut", *names], ["logits"]))
    path = tmp_path / "cut.onnx"
    onnx.save(proto, path)
    options = FP32 if backend == "simulation" else None
    with pytest.raises(InputError, match=r"logits as large as its image; got \[1, 5, 32, 40\] for \[1, 3, 33, 47\]"):
        steps.build(path, BuildConfig("int8"), backend=backend, options=options)


def test_a_graph_of_one_size_is_tried_at_that(tmp_path):
    check_sizes(quantized_nets.export_fake_quantized(tmp_path / "a.onnx", 5, symmetric=True, sizes=False).read_bytes())


def test_a_model_that_takes_no_images_is_refused(tmp_path):
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["image"], ["logits"])],
        "g",
        [value("image", onnx.TensorProto.FLOAT, ["n", 3])],
        [value("logits", onnx.TensorProto.FLOAT, ["n", 3])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(InputError, match="does not take images"):
        check_sizes(model.SerializeToString())


# TensorRT


def test_the_typed_graph_has_the_graphs_own_scales_and_gives_its_results(quantized, photos):
    data = quantized("tensorrt").read_bytes()
    graph = typed_graph(data, BuildConfig("int8", "tensor"), base="fp32")
    assert scales(graph.data) == scales(data)
    assert (graph.precision.method, graph.precision.base) == ("given", "fp32")
    assert Counter(graph.precision.layers.values()) == {"int8": 18, "fp32": 3}
    wanted = logits(data, photos[0], simulate_quantization=True)
    with Segmenter(simulate(graph)) as segmenter:
        np.testing.assert_array_equal(segmenter.logits(photos[0]), wanted)


@pytest.mark.parametrize("scheme", ["tensorrt", "tensorrt-all"])
@pytest.mark.parametrize("io", ["image", "tensor"])
def test_tensorrt_builds_it(quantized, scheme, io):
    graph = typed_graph(quantized(scheme).read_bytes(), BuildConfig("int8", io), base="fp32")
    rtx.build(graph.data, (2, 65, 97, 3) if io == "image" else (2, 3, 65, 97))


def test_tensorrt_builds_what_fake_quantised_training_leaves(tmp_path, exported):
    model = quantized_nets.export_fake_quantized(tmp_path / "fake.onnx", 5, symmetric=True)
    config = BuildConfig("int8", "image", spec=steps.read_spec(exported("fcn8s")))
    graph = typed_graph(model.read_bytes(), config, base="fp32")
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
    data = _with_half_scales(quantized("tensorrt"), tmp_path / "half.onnx").read_bytes()
    graph = typed_graph(data, BuildConfig("int8", "tensor"))
    assert Counter(graph.precision.layers.values()) == {"int8": 18, "fp16": 3}
    assert graph.precision.audited is False
    assert any("not audited" in note for note in graph.notes)
    widened = Counter(
        (op, np.frombuffer(raw, np.float32).tobytes()) for (op, raw), n in scales(data).items() for _ in range(n)
    )
    found = Counter()
    for (op, raw), count in scales(graph.data).items():
        found[op, np.frombuffer(raw, np.float16).astype(np.float32).tobytes()] += count
    assert found == widened
    rtx.build(graph.data, (1, 3, 40, 56))
    wanted = logits(data, photos[0], simulate_quantization=True)
    with Segmenter(simulate(graph)) as segmenter:
        assert np.abs(segmenter.logits(photos[0]) - wanted).max() <= 0.05 * np.ptp(wanted)


def test_a_base_of_fp16_that_would_round_scales_is_refused(quantized):
    with pytest.raises(UsageError, match='fix: build with `base="fp32"`, which keeps them'):
        steps.build(quantized("tensorrt"), BuildConfig("int8"), backend="simulation")


@pytest.mark.parametrize("scheme", ["reduced", "defaults"])
def test_what_tensorrt_would_refuse_is_said_on_any_base(quantized, scheme):
    for base in ("fp16", "fp32"):
        with pytest.raises(InputError, match=r"TensorRT would refuse.*(uint8|QuantizeBias off)"):
            typed_graph(quantized(scheme).read_bytes(), BuildConfig("int8"), base=base)


def test_layers_cannot_be_kept_float_in_it(quantized):
    with pytest.raises(UsageError, match="brings its own Q/DQ; got conv1_1"):
        typed_graph(quantized("tensorrt").read_bytes(), BuildConfig("int8", int8_layers=("conv1_1",)), base="fp32")


# What does not go together


@pytest.mark.parametrize("backend", ["onnxruntime", "simulation"])
def test_another_precision_of_it_is_refused(quantized, backend):
    for precision in ("fp32", "fp16") if backend == "simulation" else ("fp32",):
        with pytest.raises(
            UsageError, match=f"INT8 already: it holds Q/DQ; got --{precision}; fix: build it with --int8"
        ):
            steps.build(quantized("tensorrt"), BuildConfig(precision), backend=backend)


@pytest.mark.parametrize("backend", ["onnxruntime", "simulation"])
def test_ranges_for_it_are_refused(quantized, ranges_file, backend):
    ranges = Ranges.load(ranges_file("fcn8s"))
    with pytest.raises(UsageError, match="brings its own scales"):
        steps.build(quantized("tensorrt"), BuildConfig("int8"), ranges, backend=backend)


def test_layers_of_one_name_are_refused(quantized):
    model = parse(quantized("tensorrt").read_bytes())
    for node in model.graph:
        if node.op_type == "Conv":
            node.name = "conv"
    with pytest.raises(InputError, match="layers cannot be told apart; got several called conv"):
        given_precision(model, "fp32")
