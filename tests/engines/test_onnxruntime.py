import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.sidecar import load_sidecar, sidecar_path
from fcn_deploy.calibration.observer import observe
from fcn_deploy.engines import onnxruntime as module
from fcn_deploy.engines.checks import check_onnxruntime
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.engine import load_engine
from fcn_deploy.engines.onnxruntime import build_onnxruntime
from fcn_deploy.engines.target_cpu import resolve_target
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.errors import ArtifactError, InputError, PrecisionError, UsageError
from fcn_deploy.files import sha256_file
from fcn_deploy.graph import model as graph_model
from fcn_deploy.graph.model import load_exported
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.workflows.building import build_engine
from fcn_deploy.workflows.exporting import export
from tests.support import custom_nets
from tests.support.openvino import needs_openvino


@pytest.fixture
def build(model, ranges):
    def build(precision="int8", **options):
        return build_onnxruntime(model(), BuildConfig(precision, **options), ranges() if precision == "int8" else None)

    return build


def test_the_sidecar_says_what_the_engine_is(build, exported, ranges_file, tmp_path):
    path = tmp_path / "net.int8.onnx"
    build().save(path)
    text = sidecar_path(path).read_text()
    sidecar = json.loads(text)
    assert sidecar["format"] == 1
    assert sidecar["engine"] == {"file": path.name, "sha256": sha256_file(path), "bytes": path.stat().st_size}
    assert (sidecar["backend"], sidecar["io"]) == ("onnxruntime", "image")
    precision = sidecar["precision"]
    assert (precision["requested"], precision["base"], precision["achieved"]) == ("int8", "fp32", "int8")
    assert precision["method"] == "mse"
    assert precision["layers"]["conv1_1"] == precision["layers"]["upscore8"] == "fp32"
    assert precision["layers"]["conv4_2"] == "int8"
    assert sidecar["source"]["onnx_sha256"] == sha256_file(exported("fcn8s"))
    assert sidecar["source"]["ranges_sha256"] == sha256_file(ranges_file("fcn8s"))
    assert sidecar["source"]["calibration"]["count"] == 10
    assert sidecar["target"] == {"cpu": "generic", "gpu": []}
    assert sidecar["gate"] is None
    assert str(tmp_path) not in text


def test_an_int8_engine_is_smaller_and_holds_no_float_weights(build):
    fp32, int8 = build("fp32"), build("int8")
    assert len(int8.data) < 0.6 * len(fp32.data)
    weights = {w.name: numpy_helper.to_array(w) for w in onnx.load_model_from_string(int8.data).graph.initializer}
    assert weights["conv4_2.weight/quantized"].dtype == np.int8
    assert np.abs(weights["conv4_2.weight/quantized"].astype(int)).max() == 64
    assert "conv4_2.0.weight" not in weights


def test_vnni_engines_use_all_bits(build):
    engine = build(target_cpu="vnni")
    weights = {w.name: numpy_helper.to_array(w) for w in onnx.load_model_from_string(engine.data).graph.initializer}
    assert np.abs(weights["conv4_2.weight/quantized"].astype(int)).max() == 127
    assert engine.sidecar.target["cpu"] == "vnni"


@pytest.mark.parametrize(("vnni", "target"), [(True, "vnni"), (False, "generic")])
def test_the_native_target_is_what_this_machine_has_and_is_logged(caplog, vnni, target):
    with caplog.at_level("INFO", "fcn_deploy"):
        assert resolve_target("native", lambda: vnni) == target
    assert f"target CPU: this machine's, {target}" in caplog.text


def test_the_native_target_is_refused_on_a_system_that_does_not_tell():
    with pytest.raises(UsageError, match="generic or vnni"):
        resolve_target("native", lambda: None)


def test_other_targets_do_not_depend_on_this_machine():
    for target in ("generic", "vnni"):
        assert resolve_target(target, lambda: pytest.fail("asked")) == target


def test_a_native_engine_records_the_cpu_it_was_built_for(build, caplog):
    with caplog.at_level("INFO", "fcn_deploy"):
        assert build(target_cpu="native").sidecar.target["cpu"] in ("generic", "vnni")
    assert caplog.text.count("target CPU: this machine's") == 1


@pytest.mark.parametrize("io", ["image", "tensor"])
def test_int8_labels_agree_with_fp32(build, photos, tmp_path, io):
    labels = {}
    for precision in ("fp32", "int8"):
        path = tmp_path / f"{precision}.onnx"
        build(precision, io=io).save(path)
        with Segmenter(path) as segmenter:
            assert segmenter.io == io
            labels[precision] = np.concatenate([segmenter(image).ravel() for image in photos])
    # A random net has many near ties; real nets are held to 97% in tests/pipeline.
    assert (labels["fp32"] == labels["int8"]).mean() > 0.9


def test_a_tensor_engine_needs_its_sidecar_too(build, tmp_path):
    path = tmp_path / "net.onnx"
    build("fp32", io="tensor").save(path)
    assert load_sidecar(path).io == "tensor"
    sidecar_path(path).unlink()
    with pytest.raises(Exception, match="no sidecar") as caught:
        Segmenter(path)
    assert caught.value.exit_code == 5


def test_ranges_of_another_model_are_refused(model, ranges):
    with pytest.raises(InputError, match="another model") as caught:
        build_onnxruntime(model("fcn16s"), BuildConfig("int8"), ranges("fcn8s"))
    assert caught.value.exit_code == 6


def test_fp16_and_int8_without_ranges_are_usage_errors(model):
    with pytest.raises(UsageError, match="FP16"):
        build_onnxruntime(model(), BuildConfig("fp16"))
    with pytest.raises(UsageError, match="needs ranges"):
        build_onnxruntime(model(), BuildConfig("int8"))


def test_options_for_tensorrt_are_refused():
    check_onnxruntime(BuildConfig(), TensorRTConfig())
    options = TensorRTConfig(workspace=64, compute_capabilities=("8.6",))
    with pytest.raises(UsageError, match="builders for onnxruntime; got `workspace`, `compute_capability`"):
        check_onnxruntime(BuildConfig(), options)


def test_an_int8_build_parses_and_checks_the_exported_model_once(exported, ranges, monkeypatch):
    parsed = []
    real = graph_model.parse
    monkeypatch.setattr(graph_model, "parse", lambda *arguments: parsed.append(arguments[0]) or real(*arguments))
    model = load_exported(exported("fcn8s"))
    build_onnxruntime(model, BuildConfig("int8"), ranges())
    assert parsed == [model.content]


def test_an_engine_is_no_model_to_build_from(build, tmp_path):
    path = tmp_path / "engine.onnx"
    build("fp32").save(path)
    with pytest.raises(InputError, match="not an exported segmentation net"):
        load_exported(path)


def test_a_layer_that_would_run_in_float_is_a_precision_error(model, ranges, monkeypatch):
    """As if ONNX Runtime did not know one of the patterns: a layer is asked for but does not get its Q/DQ."""
    real = module.emit_onnxruntime
    monkeypatch.setattr(
        module, "emit_onnxruntime", lambda model, ranges, layers, *rest: real(model, ranges, layers[1:], *rest)
    )
    with pytest.raises(PrecisionError, match="13 layers in INT8") as caught:
        build_onnxruntime(model(), BuildConfig("int8"), ranges())
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("backend", ["onnxruntime", "simulation", pytest.param("openvino", marks=needs_openvino)])
@pytest.mark.parametrize(("kind", "layer"), [("HidesModules", "last"), ("OneLayer", "only")])
def test_a_net_of_few_layers_has_an_int8_layer_too_and_says_so(tmp_path, photo_folder, backend, kind, layer, caplog):
    torch.save(custom_nets.trained(getattr(custom_nets, kind)()).state_dict(), tmp_path / "net.pth")
    net = export(tmp_path / "net.pth", model=f"tests.support.custom_nets:{kind}", normalization="zero-one")
    engine = build_engine(net, precision="int8", calib_data=photo_folder, backend=backend)
    assert [name for name, kind in engine.sidecar.precision.layers.items() if kind == "int8"] == [layer]
    assert caplog.text.count(f"because they read the image or their rounding changes labels: {layer};") == 1


@pytest.mark.parametrize("backend", ["onnxruntime", "simulation", pytest.param("openvino", marks=needs_openvino)])
def test_int8_is_refused_for_a_net_in_which_no_layer_can_be_int8(tmp_path, photo_folder, backend):
    torch.save(custom_nets.NoConvolution().state_dict(), tmp_path / "net.pth")
    net = export(tmp_path / "net.pth", model="tests.support.custom_nets:NoConvolution", normalization="zero-one")
    with pytest.raises(PrecisionError, match=r"no layer of this net would run in INT8.*`precision=\"fp32\"`"):
        build_engine(net, precision="int8", calib_data=photo_folder, backend=backend)


def test_calibration_on_noise_is_recorded_and_warned_of(model, photos, tmp_path, caplog):
    observe(model(), photos[:2], size=(32, 40), random=True).save(tmp_path / "ranges.json")
    ranges = Ranges.load(tmp_path / "ranges.json")
    assert (ranges.data.random, ranges.data.size) == (True, (32, 40))
    engine = build_onnxruntime(model(), BuildConfig("int8"), ranges)
    assert engine.sidecar.source.calibration["random"] is True
    assert "Calibration saw noise instead of images" in caplog.text


def test_a_saved_engine_is_loaded_with_its_sidecar_and_gate(build, tmp_path):
    built = build()
    written = built.save(str(tmp_path / "net.onnx"), Gate(0.99, True))
    loaded = load_engine(str(tmp_path / "net.onnx"))
    assert (loaded.data, loaded.sidecar) == (built.data, written)
    assert loaded.save(tmp_path / "copy.onnx").gate == Gate(0.99, True)


def test_an_engine_is_shown_in_one_line(build):
    engine = build()
    assert repr(engine) == f"Engine(int8 for onnxruntime, io image, {len(engine.data) / 1e6:.1f} MB)"


def test_an_engine_that_is_not_the_one_of_its_sidecar_is_not_loaded(build, tmp_path):
    path = tmp_path / "net.onnx"
    build().save(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="not the file its sidecar describes"):
        load_engine(path)
    sidecar_path(path).unlink()
    with pytest.raises(ArtifactError, match="no sidecar"):
        load_engine(path)
    with pytest.raises(InputError, match="cannot read"):
        load_engine(tmp_path / "nowhere.onnx")


def _constants(engine):
    return {w.name: numpy_helper.to_array(w) for w in onnx.load_model_from_string(engine.data).graph.initializer}


def test_biases_are_corrected_unless_asked_otherwise_and_nothing_else_changes(build, caplog):
    engines = {corrected: build(bias_correction=corrected) for corrected in (True, False)}
    assert {corrected: engine.sidecar.precision.bias_corrected for corrected, engine in engines.items()} == {
        True: True,
        False: False,
    }
    found, plain = (_constants(engines[corrected]) for corrected in (True, False))
    assert set(found) == set(plain)
    changed = {name for name, array in found.items() if not np.array_equal(array, plain[name])}
    int8 = {name for name, layer in engines[True].sidecar.precision.layers.items() if layer == "int8"}
    assert changed == {f"{layer}.bias/quantized" for layer in int8}
    assert "no means" not in caplog.text
    assert build("fp32").sidecar.precision.bias_corrected is None


def test_weights_are_rounded_as_asked_and_so_that_errors_cancel_where_nothing_is(build):
    engines = {rounding: build(weight_rounding=rounding) for rounding in (None, "correlated", "nearest")}
    recorded = {asked: engine.sidecar.precision.weight_rounding for asked, engine in engines.items()}
    assert recorded == {None: "correlated", "correlated": "correlated", "nearest": "nearest"}
    assert engines[None].data == engines["correlated"].data
    found, plain = _constants(engines["correlated"]), _constants(engines["nearest"])
    int8 = [name for name, layer in engines[None].sidecar.precision.layers.items() if layer == "int8"]
    for layer in int8:
        integers, nearest = (constants[f"{layer}.weight/quantized"] for constants in (found, plain))
        assert np.abs(integers.astype(int) - nearest).max() <= 1
        # Kernels of one tap have no neighbours whose errors could cancel.
        assert np.array_equal(integers, nearest) is (integers[0, 0].size == 1)
    assert build("fp32").sidecar.precision.weight_rounding is None


TRUNK = ("conv1_2", "conv3_1", "conv3_2", "conv4_2", "conv5_3")


def winograd_nodes(engine):
    names = [node.name for node in onnx.load_model_from_string(engine.data).graph.node]
    return tuple(name.removesuffix("/tiles") for name in names if name.endswith("/tiles"))


def test_layers_are_multiplied_by_winograd_where_that_is_asked_for(build, photos):
    direct, fast = (build("fp32", winograd=layers, io="tensor") for layers in ((), TRUNK))
    assert winograd_nodes(fast) == fast.sidecar.winograd == TRUNK
    assert winograd_nodes(direct) == direct.sidecar.winograd == ()
    wanted, found = (
        Segmenter(OnnxRuntimeBackend(engine.data), spec=engine.sidecar.spec).logits(photos[0])
        for engine in (direct, fast)
    )
    assert np.abs(found - wanted).max() <= 1e-5 * np.ptp(wanted)


def test_by_itself_it_goes_by_channels_of_which_small_nets_have_too_few(build):
    assert build("fp32").data == build("fp32", winograd=()).data


def test_an_int8_engine_does_it_in_the_layers_that_are_float(build, photos):
    int8 = ("conv3_1", "conv3_2", "conv4_2")
    direct, fast = (build("int8", int8_layers=int8, winograd=layers) for layers in ((), TRUNK))
    assert fast.sidecar.winograd == ("conv1_2", "conv5_3")
    assert winograd_nodes(fast) == ("conv1_2", "conv5_3")
    wanted, found = (
        Segmenter(OnnxRuntimeBackend(engine.data), spec=engine.sidecar.spec)(photos[0]) for engine in (direct, fast)
    )
    assert (wanted == found).mean() > 0.995  # a rounding before a quantiser may fall on the other side


def test_layers_it_is_not_for_are_refused(build):
    with pytest.raises(UsageError, match="for other layers; got fc6, no_such; expected float 3x3"):
        build("fp32", winograd=("conv3_1", "fc6", "no_such"))


def test_ranges_without_means_correct_nothing_and_say_so(model, ranges, caplog):
    ranges = replace(ranges(), means={})
    found = build_onnxruntime(model(), BuildConfig("int8"), ranges)
    assert "The ranges hold no means, so no bias was corrected: calibrate again" in caplog.text
    assert found.sidecar.precision.bias_corrected is False
    caplog.clear()
    assert build_onnxruntime(model(), BuildConfig("int8", bias_correction=False), ranges).data == found.data
    assert caplog.text == ""


def test_the_first_layer_may_be_int8_too_in_an_engine_that_takes_images(build, photos):
    model = build("fp32").sidecar.precision.layers
    engine = build("int8", int8_layers=tuple(name for name in model if not name.startswith("upscore")))
    assert engine.sidecar.precision.layers["conv1_1"] == "int8"
    with Segmenter(OnnxRuntimeBackend(engine.data), spec=engine.sidecar.spec) as segmenter:
        assert segmenter(photos[0]).shape == photos[0].shape[:2]
