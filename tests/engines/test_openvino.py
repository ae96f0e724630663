"""Engines for OpenVINO: what they run in, what their sidecars say, and that labels are the reference's."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import load_sidecar, sidecar_path
from fcn_deploy.engines import kernel_check
from fcn_deploy.engines import openvino as module
from fcn_deploy.engines.checks import check_openvino
from fcn_deploy.engines.config import BuildConfig, default_target
from fcn_deploy.engines.onnxruntime import build_onnxruntime
from fcn_deploy.engines.openvino import achieved_precision, build_openvino, openvino_simulation
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.engines.trial import trial_shapes, try_engine
from fcn_deploy.errors import ArtifactError, DependencyError, InputError, PrecisionError, UsageError
from fcn_deploy.graph.model import ExportedModel
from fcn_deploy.runtime import Segmenter, cpu
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.runtime.openvino import library
from fcn_deploy.runtime.openvino.backend import ExecutedNode, OpenVinoBackend
from fcn_deploy.workflows.exporting import export
from tests.support import tails
from tests.support.openvino import needs_bf16, needs_openvino

TRANSPOSED = ["upscore2", "upscore2_pool4", "upscore8"]
SIZES = [(1, 1, 1), (1, 16, 5), (2, 33, 65), (3, 40, 56)]

# A net of a few channels differs most where it has near ties; those of real nets are held to 97% and more.
INT8_AGREEMENT = 0.9


@pytest.fixture(scope="module")
def build(model, ranges):
    """Builds an engine of the exported FCN-8s, once."""
    made = {}

    def build(precision="int8", base=None, **options):
        key = (precision, base, *sorted(options.items()))
        if key not in made:
            config = BuildConfig(precision, **{"target_cpu": "vnni", **options})
            made[key] = build_openvino(model(), config, ranges() if precision == "int8" else None, base)
        return made[key]

    return build


@needs_openvino
def test_the_sidecar_says_what_the_engine_is(build, tmp_path):
    path = tmp_path / "net.int8.onnx"
    build().save(path)
    sidecar = json.loads(sidecar_path(path).read_text())
    assert (sidecar["backend"], sidecar["library"], sidecar["io"]) == ("openvino", library.version(), "image")
    precision = sidecar["precision"]
    assert (precision["requested"], precision["base"], precision["achieved"]) == ("int8", "fp32", "int8")
    assert (precision["method"], precision["weight_rounding"], precision["bias_corrected"]) == (
        "mse",
        "correlated",
        True,
    )
    assert precision["layers"]["conv1_1"] == precision["layers"]["upscore8"] == "fp32"
    assert precision["layers"]["conv4_2"] == precision["achieved_layers"]["conv4_2"] == "int8"
    assert precision["achieved_layers"] == precision["layers"]
    assert sidecar["target"] == {"cpu": "vnni", "gpu": []}
    assert load_sidecar(path).backend == "openvino"


@needs_openvino
def test_weights_take_8_bits_and_7_on_a_generic_cpu(build):
    for target, largest in (("vnni", 127), ("generic", 64)):
        engine = build(target_cpu=target)
        weights = {w.name: numpy_helper.to_array(w) for w in onnx.load_model_from_string(engine.data).graph.initializer}
        assert np.abs(weights["conv4_2.weight/quantized"].astype(int)).max() == largest
        assert engine.sidecar.target["cpu"] == target
        assert "conv4_2.0.weight" not in weights  # no float copy of them
    assert (default_target("openvino", "int8"), default_target("openvino", "fp32")) == ("vnni", "generic")
    assert default_target("onnxruntime", "int8") == default_target("tensorrt", "int8") == "generic"


@needs_openvino
@pytest.mark.parametrize("io", ["image", "tensor"])
def test_fp32_gives_the_labels_of_the_exported_model_at_every_size(build, model, tmp_path, io):
    path = tmp_path / "net.onnx"
    build("fp32", io=io).save(path)
    random = np.random.default_rng(0)
    with Segmenter(path, threads=1) as ours, Segmenter(OnnxRuntimeBackend(model().content)) as reference:
        assert (ours.io, ours.backend) == (io, "openvino")
        for size in SIZES:
            images = random.integers(0, 256, (*size, 3), np.uint8)
            assert (ours(images) == reference(images)).mean() > 0.999
            if io == "tensor":
                wanted = reference.logits(images)
                np.testing.assert_allclose(ours.logits(images), wanted, atol=1e-4 * np.ptp(wanted))


@needs_openvino
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40))
def test_int8_labels_have_the_size_of_the_image_and_are_nearly_those_of_the_float_simulation(
    build, model, ranges, batch, height, width
):
    engine = build(io="tensor")
    simulated = openvino_simulation(model(), BuildConfig("int8", "tensor", target_cpu="vnni"), ranges())
    ours, reference = _opened(engine.data, simulated)
    image = np.random.default_rng(height).normal(size=(batch, 3, height, width)).astype(np.float32)
    found, wanted = ours.infer({"image": image})["logits"], reference.infer({"image": image})["logits"]
    assert found.shape == (batch, 5, height, width)
    assert np.abs(found - wanted).max() < 0.05 * np.ptp(wanted)


_OPEN = {}


def _opened(engine, simulated):
    if "pair" not in _OPEN:
        _OPEN["pair"] = OpenVinoBackend(engine, threads=1), OnnxRuntimeBackend(simulated, threads=1)
    return _OPEN["pair"]


@needs_openvino
@pytest.mark.parametrize("options", [{}, {"target_cpu": "generic"}, {"io": "tensor"}])
def test_int8_labels_agree_with_the_exported_model(build, model, photos, tmp_path, options):
    path = tmp_path / "net.onnx"
    build(**options).save(path)
    with Segmenter(path) as ours, Segmenter(OnnxRuntimeBackend(model().content)) as reference:
        agreement = np.mean([(ours(photo) == reference(photo)).mean() for photo in photos])
    assert agreement > INT8_AGREEMENT


@needs_openvino
@needs_bf16
def test_bf16_computes_convolutions_in_bf16_and_says_what_stays_float(build, model, photos, tmp_path):
    engine = build("bf16", target_cpu="generic")
    precision = engine.sidecar.precision
    assert (precision.requested, precision.base, precision.achieved) == ("bf16", "bf16", "mixed")
    found = precision.achieved_layers
    assert {name for name, kind in found.items() if kind == "fp32"} == set(TRANSPOSED)
    assert set(found.values()) == {"fp32", "bf16"}
    assert engine.sidecar.target == {"cpu": "generic", "gpu": [], "cpu_features": ["bf16"]}
    engine.save(tmp_path / "net.onnx")
    with Segmenter(tmp_path / "net.onnx") as ours, Segmenter(OnnxRuntimeBackend(model().content)) as reference:
        agreement = np.mean([(ours(photo) == reference(photo)).mean() for photo in photos])
    assert 0.97 < agreement < 1


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
@pytest.mark.parametrize("net", ["interpolated_15", "interpolated_16", "grown_15", "grown_16"])
def test_logits_lie_for_the_fastest_labels(tmp_path, precision, net):
    """docs/openvino.md has the times; labels are those of ONNX Runtime's engine whatever the layout."""
    torch.save(getattr(tails, net)().state_dict(), tmp_path / "net.pth")
    model = export(tmp_path / "net.pth", model=f"tests.support.tails:{net}", size_divisor=2, normalization="zero-one")
    path, reference = tmp_path / "net.onnx", tmp_path / "reference.onnx"
    build_openvino(model, BuildConfig(precision)).save(path)
    build_onnxruntime(model, BuildConfig()).save(reference)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    before = operators[operators.index("ArgMax") - 1]
    in_bf16 = precision == "bf16" and net == "interpolated_16"
    assert before == ("Reshape" if net.endswith("15") else "Slice" if in_bf16 else "Transpose")
    image = np.random.default_rng(0).integers(0, 256, (34, 50, 3), dtype=np.uint8)
    with Segmenter(path) as ours, Segmenter(reference) as theirs:
        assert np.mean(ours(image) == theirs(image)) > (0.999 if precision == "fp32" else 0.9)


@needs_openvino
@needs_bf16
def test_the_base_of_int8_may_be_bf16(build):
    precision = build(base="bf16").sidecar.precision
    assert (precision.requested, precision.base) == ("int8", "bf16")
    assert precision.achieved_layers["conv4_2"] == precision.layers["conv4_2"] == "int8"
    assert precision.achieved_layers["conv1_1"] == precision.layers["conv1_1"] == "bf16"


def test_an_engine_in_bf16_is_refused_where_it_is_opened_on_another_cpu(tmp_path, build, monkeypatch):
    if not library_here() or cpu.has_bf16() is False:
        pytest.skip("needs openvino and a CPU with BF16, to build it")
    path = tmp_path / "net.onnx"
    build("bf16").save(path)
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    with pytest.raises(ArtifactError, match="computes in BF16") as caught:
        Segmenter(path)
    assert caught.value.exit_code == 5


def library_here():
    return needs_openvino.args == (False,)


@needs_openvino
def test_an_engine_is_opened_with_the_library_that_its_sidecar_names(build, model, tmp_path):
    ours, other = tmp_path / "openvino.onnx", tmp_path / "ort.onnx"
    build("fp32").save(ours)
    build_onnxruntime(model(), BuildConfig("fp32")).save(other)
    with Segmenter(ours) as segmenter:
        assert segmenter.backend == "openvino"
    with Segmenter(other) as segmenter:
        assert segmenter.backend == "onnxruntime"
    sidecar_path(ours).unlink()
    with pytest.raises(ArtifactError, match=r"an engine for OpenVINO.*keep its sidecar"):
        Segmenter(ours, spec=model().spec)
    with pytest.raises(ArtifactError) as caught:
        Segmenter(ours)
    assert caught.value.exit_code == 5
    with pytest.raises(ArtifactError, match="an engine for ONNX Runtime"):
        OpenVinoBackend(other)


@needs_openvino
def test_a_file_that_was_changed_never_reaches_the_library(build, tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    build("fp32").save(path)
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(library, "onnx_reader", lambda: pytest.fail("read"))
    with pytest.raises(ArtifactError, match="not the file its sidecar describes"):
        Segmenter(path)


@needs_openvino
def test_a_new_engine_is_run_before_it_is_written(build):
    engine = build("fp32")
    try_engine(engine, trial_shapes(ImageShape(1, 40, 60)))
    graph = onnx.load_model_from_string(engine.data)
    row = numpy_helper.from_array(np.array([[0], [1]], np.int64), "rows")
    graph.graph.initializer.append(row)
    graph.graph.node[-1].output[0] = "whole"
    cut = onnx.helper.make_node("Slice", ["whole", "starts", "ends", "axes"], ["labels"])
    for name, value in {"starts": [0], "ends": [20], "axes": [1]}.items():
        graph.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    graph.graph.node.append(cut)
    with pytest.raises(ArtifactError, match="output of the size of its image"):
        try_engine(replace(engine, data=graph.SerializeToString()), trial_shapes(ImageShape(1, 40, 60)))


@needs_openvino
def test_only_the_layers_that_are_asked_for_are_int8(build):
    precision = build(int8_layers=("conv4_2", "fc6")).sidecar.precision
    assert {name for name, kind in precision.achieved_layers.items() if kind == "int8"} == {"conv4_2", "fc6"}
    with pytest.raises(InputError, match="cannot be quantised"):
        build(int8_layers=("upscore8",))


@needs_openvino
def test_ranges_of_another_model_are_refused(model, ranges):
    with pytest.raises(InputError, match="another model"):
        build_openvino(model("fcn16s"), BuildConfig("int8"), ranges("fcn8s"))
    with pytest.raises(UsageError, match="INT8 needs ranges"):
        build_openvino(model(), BuildConfig("int8"))


# What OpenVINO tells


NODES = (
    ExecutedNode(("image/Add",), "Eltwise", "u8"),
    ExecutedNode(("conv1", "conv1/Relu"), "Convolution", "f32"),
    ExecutedNode(("conv2", "pool"), "Convolution", "u8"),
    ExecutedNode(("conv3/WithoutBiases",), "Convolution", "i8"),
    ExecutedNode(("conv3", "conv3/Relu"), "Eltwise", "f32"),
    ExecutedNode(("up",), "Deconvolution", "bf16"),
    ExecutedNode(("conv4", "labels"), "Convert", "f32"),
)


@pytest.fixture
def telling(monkeypatch):
    """Puts a library in the place of OpenVINO that tells of NODES."""

    class Telling:
        def __init__(self, data):
            self.executed = lambda: NODES

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *error: None  # noqa: E731

    monkeypatch.setattr(module, "OpenVinoBackend", Telling)
    monkeypatch.setattr(library, "version", lambda: "2026.4.1")


def asked(requested, **layers):
    return Precision(requested, "fp32", layers=layers)


def test_what_was_achieved_is_in_the_sidecar_layer_by_layer(telling):
    found = achieved_precision(b"", asked("int8", conv1="fp32", conv2="int8", conv3="int8"))
    assert found.achieved == "int8"
    assert found.achieved_layers == {"conv1": "fp32", "conv2": "int8", "conv3": "int8"}
    assert achieved_precision(b"", asked("int8", conv2="int8", up="fp32")).achieved == "mixed"


def test_an_int8_layer_that_runs_in_float_is_exit_4(telling):
    with pytest.raises(PrecisionError, match="not run every INT8 layer in INT8; got conv1 in FP32") as caught:
        achieved_precision(b"", asked("int8", conv1="int8", conv2="int8"))
    assert caught.value.exit_code == 4
    with pytest.raises(PrecisionError, match="got conv5 in unknown"):
        achieved_precision(b"", asked("int8", conv5="int8"))


def test_an_engine_without_a_layer_in_the_precision_asked_for_is_exit_4(telling):
    with pytest.raises(PrecisionError, match="runs no layer in BF16; got conv1 in FP32") as caught:
        achieved_precision(b"", asked("bf16", conv1="bf16"))
    assert caught.value.exit_code == 4
    assert achieved_precision(b"", asked("bf16", conv1="bf16", up="bf16")).achieved == "mixed"
    assert achieved_precision(b"", asked("fp32")).achieved == "fp32"  # a net without layers


# What its kernels compute


@needs_openvino
@pytest.mark.parametrize("config", [BuildConfig("int8"), BuildConfig("fp32"), BuildConfig("int8", io="tensor")])
def test_kernels_that_compute_something_else_are_exit_5(model, ranges, monkeypatch, config):
    """As if channels were mixed up: OpenVINO has given all of them the bias of the first."""

    class Wrong(kernel_check.OpenVinoBackend):
        def infer(self, feeds):
            return {name: array[:, ::-1] for name, array in super().infer(feeds).items()}

    build_openvino(model(), config, ranges())
    monkeypatch.setattr(kernel_check, "OpenVinoBackend", Wrong)
    with pytest.raises(ArtifactError, match=r"does not compute what this engine's graph says.*onnxruntime") as caught:
        build_openvino(model(), config, ranges())
    assert caught.value.exit_code == 5


@needs_openvino
def test_logits_that_are_all_0_are_compared_too(model, monkeypatch):
    proto = onnx.load_model_from_string(model().content)
    (layer,) = (node for node in proto.graph.node if node.op_type == "ConvTranspose" and "upscore8" in node.name)
    for each in proto.graph.initializer:
        if each.name in layer.input:  # weights and bias
            each.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(each)), each.name))
    zero = ExportedModel.parse(proto.SerializeToString())
    build_openvino(zero, BuildConfig("fp32"))

    class Wrong(kernel_check.OpenVinoBackend):
        def infer(self, feeds):
            return {name: array + 1 for name, array in super().infer(feeds).items()}

    monkeypatch.setattr(kernel_check, "OpenVinoBackend", Wrong)
    with pytest.raises(ArtifactError, match="logits that differ by inf of their power; expected 0 or less"):
        build_openvino(zero, BuildConfig("fp32"))


# What is refused before work starts


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(library, "check_installed", lambda: None)


@pytest.mark.parametrize(
    ("config", "base", "words"),
    [
        (BuildConfig("fp16"), None, '`precision="fp16"` for openvino'),
        (BuildConfig("int8"), "fp16", '`base="fp16"` for openvino'),
        (BuildConfig("bf16"), "bf16", "only INT8 has another precision as its base"),
        (BuildConfig("fp32"), "fp32", "only INT8 has another precision as its base"),
        (BuildConfig("int8", winograd=()), None, "`winograd=False` for openvino"),
    ],
)
def test_what_openvino_does_not_do_is_a_usage_error(installed, config, base, words):
    with pytest.raises(UsageError) as caught:
        check_openvino(config, base)
    assert words in str(caught.value)


def test_options_of_tensorrt_are_refused(installed):
    with pytest.raises(UsageError, match="options of TensorRT's builders for openvino; got `workspace`"):
        check_openvino(BuildConfig("fp32"), None, TensorRTConfig(workspace=1))


@pytest.mark.parametrize(("config", "base"), [(BuildConfig("bf16"), None), (BuildConfig("int8"), "bf16")])
def test_bf16_is_built_where_it_can_be_measured_and_nowhere_else(installed, monkeypatch, config, base):
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    with pytest.raises(DependencyError, match="this CPU has no BF16; got `") as caught:
        check_openvino(config, base)
    assert caught.value.exit_code == 7
    monkeypatch.setattr(cpu, "has_bf16", lambda: None)
    check_openvino(config, base)
