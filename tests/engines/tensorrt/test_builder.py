"""Plans of the real TensorRT-RTX, which builds without a GPU."""

import logging
import os
import re
import signal
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from onnx import TensorProto, helper

from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import load_sidecar, sidecar_path
from fcn_deploy.calibration.observer import observe
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.tensorrt import typed_graph
from fcn_deploy.engines.tensorrt.builder import build_tensorrt
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.engines.tensorrt.layer_table import LayerTableLog
from fcn_deploy.engines.tensorrt.profiles import DEFAULT, ImageProfile
from fcn_deploy.engines.tensorrt.typed_graph import TypedGraph
from fcn_deploy.errors import DependencyError, InputError, UsageError
from fcn_deploy.files import sha256_file
from fcn_deploy.graph.model import load_exported
from fcn_deploy.installation import install_command
from fcn_deploy.progress import Silent
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS, find_flavor
from fcn_deploy.workflows.exporting import export

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is for Linux and Windows on x86-64")

RTX = find_flavor("tensorrt-rtx")
SMALL = TensorRTConfig((ImageProfile(ImageShape(1, 32, 32), ImageShape(1, 64, 64), ImageShape(2, 96, 96)),))


class Listener(Silent):
    def __init__(self):
        self.lines, self.shares = [], []

    def stage(self, text):
        self.lines.append(text)

    @contextmanager
    def advancing(self, text):
        self.lines.append(text)
        yield self.shares.append


def no_gpus():
    """As on a machine without a driver, wherever these tests run; tests/gpu looks into the plans."""
    raise DependencyError("no NVIDIA driver was found", got="a test", fix="none")


@pytest.fixture
def build(model, ranges):
    def build(precision="fp16", variant="fcn8s", options=SMALL, used=None, progress=None, log=None, **config):
        config, progress = BuildConfig(precision, **config), progress or Silent()
        used = ranges(variant) if precision in ("int8", "fp8") else used
        return build_tensorrt(RTX, model(variant), config, options, used, progress, log, gpus=no_gpus)

    return build


@pytest.fixture
def graph_with(monkeypatch):
    """Puts a graph of one's own in the place of the typed graph."""

    def put(nodes, initializers=()):
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
            list(initializers),
        )
        data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
        typed = TypedGraph(data, Precision("fp32", "fp32"))
        monkeypatch.setattr(typed_graph, "typed_graph", lambda *arguments, **options: typed)

    return put


@pytest.mark.parametrize("variant", ["fcn32s", "fcn16s", "fcn8s"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_variant_in_every_precision(build, variant, precision):
    engine = build(precision, variant)
    sidecar = engine.sidecar
    assert (sidecar.backend, sidecar.library) == (RTX.name, RTX.load().__version__)
    assert (sidecar.precision.requested, sidecar.precision.achieved) == (precision, precision)
    assert sidecar.precision.achieved_layers == sidecar.precision.layers
    assert sidecar.plan.source == "log"
    assert sidecar.precision.base == ("fp32" if precision == "fp32" else "fp16")
    layers = sidecar.precision.layers
    assert layers["conv4_2"] == precision
    assert "int8" not in (layers["score_fr"], layers[f"upscore{variant[3:-1]}"])


@pytest.mark.parametrize("base", ["fp16", "fp32", "bf16"])
def test_fp8_for_gpus_that_have_it(build, base):
    sidecar = build("fp8", options=replace(SMALL, base=base, compute_capabilities=("8.9", "12.0"))).sidecar
    assert (sidecar.precision.requested, sidecar.precision.base) == ("fp8", base)
    assert sidecar.precision.layers["conv4_2"] == "fp8"
    assert sidecar.target["gpu"] == ["8.9", "12.0"]


def test_bf16_needs_no_ranges(build):
    sidecar = build("bf16").sidecar
    assert (sidecar.precision.requested, sidecar.precision.base) == ("bf16", "bf16")
    assert (sidecar.precision.layers["conv4_2"], sidecar.precision.layers["upscore8"]) == ("bf16", "fp32")
    assert sidecar.precision.audited is None


def test_int8_on_a_base_of_bf16(build):
    assert build("int8", options=replace(SMALL, base="bf16")).sidecar.precision.layers["score_fr"] == "bf16"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_tf32_stands_in_the_sidecar(build, precision):
    options = replace(SMALL, base="fp32" if precision == "int8" else "fp16")
    assert build(precision, options=replace(options, tf32=True)).sidecar.precision.to_json()["tf32"] is True
    assert "tf32" not in build(precision, options=options).sidecar.precision.to_json()


@pytest.mark.parametrize(
    ("precision", "options", "message"),
    [
        ("fp8", {}, r"not every GPU .* `precision=\"fp8\"` needs; got compute capability 8.0 and newer; expected 8.9"),
        ("fp8", {"compute_capabilities": ("8.6", "8.9")}, r"got compute capability 8.6; expected 8.9 or newer"),
        ("bf16", {"compute_capabilities": ("7.5", "8.0")}, r"got compute capability 7.5; expected 8.0 or newer"),
        ("int8", {"base": "bf16", "compute_capabilities": ("7.5",)}, r"`base=\"bf16\"` needs; got .* 7.5"),
        ("fp32", {"tf32": True, "compute_capabilities": ("7.5",)}, r"`tf32` needs; got compute capability 7.5"),
        ("fp16", {"tf32": True}, r"TF32 is for what runs in FP32; got `tf32` with `precision=\"fp16\"`"),
        ("int8", {"tf32": True}, r"got `tf32` with `precision=\"int8\"` and `base=\"fp16\"`"),
        ("bf16", {"base": "fp32"}, "only INT8 and FP8 have another precision as their base"),
    ],
)
def test_gpus_and_options_without_the_precision_are_refused(build, precision, options, message):
    with pytest.raises(UsageError, match=message):
        build(precision, options=replace(SMALL, **options))


def test_the_fix_names_the_gpus_that_have_fp8(build):
    with pytest.raises(UsageError) as caught:
        build("fp8")
    assert caught.value.fix == "name GPUs that have it with `compute_capability`: 8.9, 12.0, 12.1"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_tensor_engine(build, precision):
    assert build(precision, io="tensor").sidecar.io == "tensor"


def test_int8_on_a_base_of_fp32(build):
    assert build("int8", options=replace(SMALL, base="fp32")).sidecar.precision.base == "fp32"


def test_the_sidecar_says_what_the_plan_is_and_comes_back(build, exported, ranges_file, tmp_path):
    path = tmp_path / "net.int8.engine"
    second = ImageProfile(*[ImageShape(4, 128, 160)] * 3)
    options = replace(SMALL, profiles=(*SMALL.profiles, second), compute_capabilities=("8.6", "12.0"))
    written = build("int8", options=options).save(path)
    sidecar = load_sidecar(path)
    assert sidecar == written
    assert sidecar.engine.sha256 == sha256_file(path)
    assert sidecar.source.onnx_sha256 == sha256_file(exported("fcn8s"))
    assert sidecar.source.ranges_sha256 == sha256_file(ranges_file("fcn8s"))
    assert sidecar.source.calibration["count"] == 10
    assert sidecar.target == {"cpu": "generic", "gpu": ["8.6", "12.0"]}
    assert sidecar.profiles == (
        {"min": [1, 32, 32], "opt": [1, 64, 64], "max": [2, 96, 96]},
        {"min": [4, 128, 160], "opt": [4, 128, 160], "max": [4, 128, 160]},
    )
    assert str(tmp_path) not in sidecar_path(path).read_text()


def test_what_is_not_asked_for_is_a_default_that_is_said(build):
    progress = Listener()
    sidecar = build(options=None, progress=progress).sidecar
    assert sidecar.profiles == (DEFAULT.to_json(),)
    assert sidecar.target["gpu"] == []
    (line,) = [line for line in progress.lines if line.startswith("profile: ")]
    assert line.startswith("profile: 1x32x32 to 4x1024x1024, tuned for 1x512x512, the default")
    assert any("not audited" in line for line in progress.lines)


def test_a_model_of_one_shape_has_one_profile(checkpoint_file, tmp_path):

    export(checkpoint_file("fcn32s"), shape="2x48x64", output=tmp_path / "net.onnx")
    model = load_exported(tmp_path / "net.onnx")
    for io in ("image", "tensor"):
        sidecar = build_tensorrt(RTX, model, BuildConfig("fp16", io), gpus=no_gpus).sidecar
        assert sidecar.profiles == ({"min": [2, 48, 64], "opt": [2, 48, 64], "max": [2, 48, 64]},)
    with pytest.raises(UsageError, match=r"every shape of a profile; got 1x32x32 to 2x96x96.*expected 2x48x64"):
        build_tensorrt(RTX, model, BuildConfig("fp16"), SMALL, gpus=no_gpus)


def test_ranges_audit_fp16(build, ranges, ranges_file):
    audited = build(used=ranges("fcn8s")).sidecar
    assert audited.precision.audited is True
    assert audited.source.ranges_sha256 == sha256_file(ranges_file("fcn8s"))
    assert build().sidecar.precision.audited is False


def test_ranges_of_another_model_and_int8_without_ranges_are_refused(build, model, ranges):
    with pytest.raises(InputError, match="another model"):
        build(used=ranges("fcn16s"))
    with pytest.raises(UsageError, match="needs ranges"):
        build_tensorrt(RTX, model("fcn8s"), BuildConfig("int8"))


def test_without_a_driver_the_log_says_what_it_runs_in(build):
    progress = Listener()
    sidecar = build("int8", progress=progress).sidecar
    assert (sidecar.precision.achieved, sidecar.precision.achieved_layers) == ("int8", sidecar.precision.layers)
    (line,) = [line for line in progress.lines if line.startswith("The plan, by the builder's log: ")]
    assert "INT8 convolutions" in line
    computed = {node for layer in sidecar.plan.layers for node in layer.nodes}
    assert computed > set(sidecar.precision.layers)


def test_a_log_that_is_not_understood_leaves_it_unknown(build, monkeypatch):
    monkeypatch.setattr(LayerTableLog, "hear", lambda self, message: None)
    progress = Listener()
    sidecar = build("int8", progress=progress).sidecar
    precision = sidecar.precision
    assert (precision.achieved, precision.achieved_layers, sidecar.plan) == ("unknown", None, None)
    assert "achieved_layers" not in precision.to_json()
    assert "plan" not in sidecar.to_json()
    (line,) = [line for line in progress.lines if "not known" in line]
    assert line == (
        "What the INT8 engine runs in is not known: no NVIDIA driver was found (a test), and there is no layer table "
        f"in the log of {RTX.name} {RTX.load().__version__}."
    )


def test_progress_rises_to_the_end(build):
    progress = Listener()
    build(progress=progress)
    assert progress.shares == sorted(progress.shares)
    assert 0 < progress.shares[0] < 0.5
    assert progress.shares[-1] > 0.8


def test_what_it_warns_of_for_every_layer_is_passed_on_once(model, ranges, tmp_path, caplog):
    # It warns of the scales of channels, which the graph for it has after the convolutions.
    warned, net, log = replace(RTX, fuses_channel_scales=True), (model("fcn8s"), ranges("fcn8s")), tmp_path / "log"
    with caplog.at_level(logging.WARNING, "fcn_deploy"):
        build_tensorrt(warned, net[0], BuildConfig("int8"), SMALL, net[1], log=log, gpus=no_gpus)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said))
    assert log.read_text().count("Converting conv weight scales") > 1


def test_everything_the_library_says_goes_to_the_log(build, tmp_path, caplog):
    log = tmp_path / "net.log"
    build(log=log, options=replace(SMALL, compute_capabilities=("8.6",), builder_optimization_level=0, workspace=512))
    text = log.read_text()
    assert "VERBOSE: " in text
    assert "INFO: ONNX IR version" in text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    with pytest.raises(InputError, match="cannot write"):
        build(log=tmp_path / "nowhere" / "net.log")


def test_ctrl_c_stops_the_build(build, tmp_path):
    class Interrupting(Listener):
        @contextmanager
        def advancing(self, text):
            yield self.press_once

        def press_once(self, share):
            if not self.shares:
                os.kill(os.getpid(), signal.SIGINT)
            self.shares.append(share)

    log = tmp_path / "net.log"
    with pytest.raises(KeyboardInterrupt):
        build(progress=Interrupting(), log=log)
    assert "BuildCanceled" in log.read_text()
    assert build().data, "the next build is not stopped"


def test_what_the_parser_refuses_is_listed_node_by_node(build, graph_with):
    graph_with(
        [
            helper.make_node("Det", ["image"], ["a"], name="first"),
            helper.make_node("Unique", ["image"], ["b"], name="second"),
            helper.make_node("Add", ["a", "b"], ["logits"], name="third"),
        ]
    )
    with pytest.raises(InputError, match=r"Det first: UNSUPPORTED_NODE.*Unique second: UNSUPPORTED_NODE") as caught:
        build("fp32")
    assert "tensorrt_rtx 1." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_corrupt_graph_is_refused(build, monkeypatch):
    broken = TypedGraph(b"garbage", Precision("fp32", "fp32"))
    monkeypatch.setattr(typed_graph, "typed_graph", lambda *arguments, **options: broken)
    with pytest.raises(InputError, match=r"does not take the graph; got MODEL_DESERIALIZE_FAILED"):
        build("fp32")


def test_a_build_that_fails_says_what_the_library_logged(build):
    with pytest.raises(InputError, match=r"cannot build the engine; got .*workspace.*with `log`") as caught:
        build(options=replace(SMALL, workspace=1))
    assert caught.value.exit_code == 6


def test_an_integer_bias_is_what_the_parser_refuses(build, graph_with):
    """The reason why no bias is quantised; if a later version takes it, this may go."""
    bias = [
        helper.make_tensor("q", TensorProto.INT32, [1], [3]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("zero", TensorProto.INT32, [], [0]),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["bias"], name="dequantize"),
        helper.make_node("Add", ["image", "bias"], ["logits"], name="add"),
    ]
    graph_with(nodes, bias)
    with pytest.raises(InputError, match="DequantizeLinear dequantize: INVALID_NODE"):
        build("fp32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timing_cache": "timings"}, "got `timing_cache`"),
        ({"hardware_compatibility": True}, "got `hardware_compatibility`"),
        ({"device": 0}, "got `device`"),
        ({"version_compatible": True, "timing_cache": "t"}, "got `timing_cache`, `version_compatible`"),
        ({"compute_capabilities": ("9.0",)}, "got compute capability 9.0; expected 7.5, 8.0"),
        ({"base": "fp32"}, '`base="fp32"` with `precision="fp16"`'),
    ],
)
def test_options_that_the_flavor_cannot_do_are_refused(build, options, message):
    with pytest.raises(UsageError, match=message):
        build(options=TensorRTConfig(**options))


@pytest.mark.parametrize("capabilities", [("7.5",), ("8.6", "7.5")])
def test_int8_is_refused_for_gpus_that_would_dequantise_on_every_run(build, capabilities):
    options = replace(SMALL, compute_capabilities=capabilities)
    with pytest.raises(UsageError, match=r"INT8 for compute capability 7\.5; expected 8\.0, 8\.6, .*fp16") as caught:
        build("int8", options=options)
    assert "does not multiply in INT8 on such GPUs" in caught.value.what
    assert build("fp16", options=options).sidecar.target["gpu"] == list(capabilities)


def test_a_flavor_that_only_runs_engines_is_refused(model):
    runs_only = next(flavor for flavor in FLAVORS.values() if not flavor.builds)
    with pytest.raises(UsageError, match="only runs engines"):
        build_tensorrt(runs_only, model("fcn8s"), BuildConfig())


def test_options_that_only_onnxruntime_takes_are_refused(build):
    with pytest.raises(UsageError, match="target CPU"):
        build(target_cpu="vnni")
    with pytest.raises(UsageError, match="Winograd's algorithm; got `winograd=False` for tensorrt-rtx"):
        build("fp32", winograd=())


@pytest.mark.parametrize(
    "options",
    [
        {"base": "fp8"},
        {"workspace": 0},
        {"builder_optimization_level": 6},
        {"builder_optimization_level": -1},
        {"compute_capabilities": ("8.6", "8.6")},
    ],
)
def test_options_are_validated_when_made(options):
    with pytest.raises(UsageError):
        TensorRTConfig(**options)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_a_missing_library_says_what_to_install(model, monkeypatch, name):
    net, expected = model("fcn8s"), install_command(name)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(DependencyError, match=re.escape(f"{name} is not installed; fix: {expected}")):
        build_tensorrt(find_flavor(name), net, BuildConfig("fp16"))


@pytest.mark.slow
def test_plans_of_the_full_width_fcn8s(make_net, photo_folder, tmp_path):
    """INT8 weights make the plan small, and building takes seconds."""
    import torch

    from fcn_deploy.data.folders import ImageFolder

    torch.save(make_net(8, classes=21, width=1.0).state_dict(), tmp_path / "net.pth")
    export(tmp_path / "net.pth", output=tmp_path / "net.onnx")
    model = load_exported(tmp_path / "net.onnx")
    ranges = observe(model, ImageFolder.open(photo_folder, max_images=2))
    sizes = {}
    for precision in ("fp32", "fp16", "int8"):
        begin = time.perf_counter()
        engine = build_tensorrt(RTX, model, BuildConfig(precision), None, ranges, gpus=no_gpus)
        assert time.perf_counter() - begin < 20
        sizes[precision] = len(engine.data)
    assert sizes["int8"] < 0.35 * sizes["fp32"]
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
