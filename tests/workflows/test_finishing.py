"""`finish` on a device that is a fake: its library builds and runs, and neither torch nor onnx is there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.sidecar import load_sidecar
from fcn_deploy.artifacts.summary import Summary
from fcn_deploy.cli.app import run
from fcn_deploy.errors import ArtifactError, DependencyError, GateError, InputError, PrecisionError, UsageError
from fcn_deploy.files import sha256_file
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.tensorrt.driver import Gpu
from fcn_deploy.workflows.finishing import finish
from fcn_deploy.workflows.reporting import report
from tests.support.blocked import BLOCK
from tests.support.bundles import CONTENTS, examples, graph, make_bundle, spec
from tests.support.fake_device import Plans, device
from tests.support.fake_nvidia import World

QUICK = {"warmup": 0, "duration": 0, "iterations": 8}
ROOT = Path(__file__).parents[2]
BLOCKED = "torch onnx onnx_ir onnxscript onnxsim safetensors onnxruntime openvino matplotlib google"


@pytest.fixture
def plans():
    found = Plans()
    found.seconds = {"fp16": 0.004, "int8": 0.001}
    return found


@pytest.fixture
def world(plans):
    with device(World(), plans) as made:
        yield made


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle").folder


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_the_report_of_an_earlier_run_does_not_stay_beside_a_new_summary(world, bundle, tmp_path):
    finish(bundle, **QUICK)
    page = report(tmp_path / "finished")
    (tmp_path / "finished" / "report").mkdir()
    for name in ("00_image.jpg", "mine.txt"):
        (tmp_path / "finished" / "report" / name).touch()
    finish(bundle, **QUICK)
    assert not page.exists()
    assert names(tmp_path / "finished" / "report") == {"mine.txt"}


def test_engines_are_built_verified_and_timed_and_the_faster_is_shipped(world, plans, bundle, tmp_path):
    summary = finish(bundle, **QUICK)
    assert summary.passed
    assert [engine.file for engine in summary.engines] == ["RedOrBlue.fp16.engine", "RedOrBlue.int8.engine"]
    assert [engine.parity.agreement for engine in summary.engines] == [1, 1]
    assert [engine.simulated_agreement for engine in summary.engines] == [0.9985, 0.9985]
    assert summary.ship.engine == "RedOrBlue.int8.engine"
    assert summary.ship.reason.startswith("INT8 meets its gate and is faster than FP16")
    assert summary.gpu == "Fake, compute capability 8.6, tensorrt 10.3.0"
    assert summary.shape == (24, 36)
    assert summary.calibration == {"observed": 5, "judged": 3}
    fp16, int8 = summary.engines
    assert int8.vs_fp16.high < 1 == fp16.vs_fp16.median
    assert (int8.vs_fp32, int8.vs_pytorch, summary.pytorch_ms) == (None, None, None)
    written = {"RedOrBlue.fp16.engine", "RedOrBlue.int8.engine"}
    assert names(tmp_path / "finished") == {*written, *(f"{name}.json" for name in written), "summary.json"}
    assert plans.built == [
        (each, [{"min": [1, 16, 24], "opt": [1, 24, 36], "max": [1, 64, 96]}], []) for each in CONTENTS
    ]


def test_the_summary_and_the_sidecars_say_what_was_found(world, bundle, tmp_path):
    summary = finish(bundle, output=tmp_path / "out", **QUICK)
    text = (tmp_path / "out" / "summary.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(summary.to_json()))
    assert str(tmp_path) not in text
    read = Summary.from_json(json.loads(text))
    assert (read.gpu, read.ship) == (summary.gpu, summary.ship)
    sidecar = load_sidecar(tmp_path / "out" / "RedOrBlue.int8.engine")
    assert sidecar.gate == summary.engines[1].gate
    assert sidecar.gate.passed
    assert (sidecar.backend, sidecar.library, sidecar.target["gpu"]) == ("tensorrt", "10.3.0", ["8.6"])
    assert sidecar.spec == spec()
    assert sidecar.source.onnx_sha256 == "ab" * 32
    assert sidecar.precision.layers == {"head": "int8"}


def test_what_was_finished_has_a_report_where_jinja2_is(world, bundle, tmp_path):
    summary = finish(bundle, output=tmp_path / "out", device=0, **QUICK)
    assert summary.origin.command[:5] == ("fcn-deploy", "finish", bundle.name, "-o", "out")
    assert summary.origin.source.onnx_sha256 == "ab" * 32
    assert [engine.layers for engine in summary.engines] == [{"head": "fp16"}, {"head": "int8"}]
    assert all(engine.sha256 == sha256_file(tmp_path / "out" / engine.file) for engine in summary.engines)
    assert not (tmp_path / "out" / "report.html").exists()
    text = report(tmp_path / "out").read_text()
    assert f"Ship {summary.ship.engine}" in text
    assert summary.gpu in text


def test_the_engines_run_as_any_other(world, bundle, tmp_path):
    finish(bundle, output=tmp_path / "out", **QUICK)
    example = examples()[0]
    with Segmenter(tmp_path / "out" / "RedOrBlue.int8.engine") as segmenter:
        assert (segmenter(example.image) == example.result).all()


def test_int8_that_is_slower_is_not_shipped(world, plans, bundle):
    plans.seconds = {"fp16": 0.001, "int8": 0.004}
    summary = finish(bundle, **QUICK)
    assert summary.ship.engine == "RedOrBlue.fp16.engine"
    assert summary.ship.reason.startswith("INT8 is slower than FP16 here")
    assert any("RedOrBlue.int8.engine takes" in warning for warning in summary.warnings)


@pytest.mark.parametrize(("wrong", "left"), [("int8", "fp16"), ("fp16", "int8")])
def test_an_engine_that_misses_its_gate_is_not_written_and_the_other_is(world, plans, bundle, tmp_path, wrong, left):
    plans.wrong = {wrong}
    with pytest.raises(
        GateError, match=rf"{wrong.upper()} missed its gate, and was not written.*ship RedOrBlue.{left}"
    ) as missed:
        finish(bundle, **QUICK)
    summary = missed.value.report
    assert not summary.passed
    assert summary.ship.engine == f"RedOrBlue.{left}.engine"
    assert summary.ship.reason == f"{wrong.upper()} missed its gate, and {left.upper()} met its own"
    assert names(tmp_path / "finished") == {f"RedOrBlue.{left}.engine", f"RedOrBlue.{left}.engine.json", "summary.json"}


def test_if_both_miss_their_gates_there_is_nothing_to_ship(world, plans, bundle, tmp_path):
    plans.wrong = {"fp16", "int8"}
    with pytest.raises(GateError, match="FP16 and INT8 missed their gates, and were not written") as missed:
        finish(bundle, **QUICK)
    assert missed.value.report.ship.engine is None
    assert names(tmp_path / "finished") == {"summary.json"}


def test_the_gates_are_those_of_the_bundle(world, plans, tmp_path):
    plans.wrong = {"int8"}
    graphs = {"fp16": graph("fp16"), "int8": graph("int8", "agreement>=10%")}
    summary = finish(make_bundle(tmp_path / "bundle", graphs=graphs).folder, **QUICK)
    assert [engine.gate.criteria for engine in summary.engines] == [("agreement>=99.5%",), ("agreement>=10%",)]
    assert summary.passed


def test_ground_truth_in_the_bundle_gives_the_miou(world, plans, tmp_path):
    plans.wrong = {"int8"}
    folder = make_bundle(tmp_path / "bundle", truth=True).folder
    with pytest.raises(GateError, match="int8: mIoU drops by") as missed:
        finish(folder, **QUICK)
    summary = missed.value.report
    assert summary.pytorch_miou == 100
    assert summary.engines[0].miou_drop.points == 0
    assert summary.truth.pixels == sum(example.result.size for example in examples())


def test_engines_that_give_logits_are_held_against_logits(world, tmp_path):
    net = spec(num_classes=3, classes=("red", "green", "blue"), palette=default_palette(3))
    graphs = {"fp16": graph("fp16", "error<=1e-6")}
    summary = finish(make_bundle(tmp_path / "bundle", io="tensor", spec=net, graphs=graphs).folder, **QUICK)
    assert (summary.engines[0].parity.error, summary.engines[0].parity.agreement) == (0, 1)
    assert summary.engines[0].gate.criteria == ("error<=1e-06",)


def test_a_layer_in_another_precision_is_exit_code_4(world, plans, bundle, tmp_path):
    layer = {"Name": "head", "LayerType": "CaskConvolution"}
    formats = {"Inputs": [{"Name": "a", "Format/Datatype": "Row major linear FP32"}], "Outputs": []}
    plans.inspected = json.dumps({"Layers": [{**layer, **formats}], "Bindings": []})
    with pytest.raises(PrecisionError, match="does not run every layer in the precision asked for; got head in fp32"):
        finish(bundle, **QUICK)
    assert names(tmp_path) == {"bundle"}


def test_a_bundle_of_fp16_alone(world, tmp_path):
    summary = finish(make_bundle(tmp_path / "bundle", graphs={"fp16": graph("fp16")}).folder, **QUICK)
    assert (summary.ship.engine, summary.ship.reason) == ("RedOrBlue.fp16.engine", "it is the only engine")


def test_finishing_twice_replaces_and_removes_what_no_longer_passes(world, plans, bundle, tmp_path):
    finish(bundle, **QUICK)
    (tmp_path / "finished" / "note.txt").write_text("mine")
    plans.wrong = {"int8"}
    with pytest.raises(GateError):
        finish(bundle, **QUICK)
    left = {"RedOrBlue.fp16.engine", "RedOrBlue.fp16.engine.json", "summary.json", "note.txt"}
    assert names(tmp_path / "finished") == left


def test_a_disk_that_is_full_leaves_the_engines_of_an_earlier_run(world, bundle, tmp_path, monkeypatch):
    finish(bundle, **QUICK)
    before = names(tmp_path / "finished")

    def full(*_):
        raise OSError(28, "No space left on device")

    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda one, other: full() if "finished" in str(other) else replace(one, other))
    with pytest.raises(InputError, match=r"cannot write .*No space left on device"):
        finish(bundle, **QUICK)
    assert names(tmp_path / "finished") == before
    for precision in CONTENTS:
        Segmenter(tmp_path / "finished" / f"RedOrBlue.{precision}.engine").close()


def test_kernels_that_the_library_compiled_are_kept_beside_the_engine(world, tmp_path):
    folder = make_bundle(tmp_path / "bundle", backend="tensorrt-rtx").folder
    finish(folder, **QUICK)
    assert (tmp_path / "finished" / "RedOrBlue.int8.engine.cache").read_bytes() == b"compiled"


def test_tensorrt_rtx_is_asked_for_this_gpu_alone(world, plans, tmp_path):
    summary = finish(make_bundle(tmp_path / "bundle", backend="tensorrt-rtx").folder, **QUICK)
    assert [built[2] for built in plans.built] == [["SM86"], ["SM86"]]
    assert "tensorrt-rtx 1.7.1.116" in summary.gpu


def test_the_library_may_be_named(world, bundle, tmp_path):
    assert "tensorrt-rtx" in finish(bundle, backend="tensorrt-rtx", **QUICK).gpu
    with pytest.raises(UsageError, match="unknown `backend`"):
        finish(bundle, backend="onnxruntime")


def test_the_gpu_may_be_named(world, bundle):
    world.gpus = (Gpu(0, "Small", "8.6", 1 << 30), Gpu(1, "Large", "8.9", 1 << 34))
    world.current.context = "primary 0"
    assert finish(bundle, device=1, **QUICK).gpu == "Large, compute capability 8.9, tensorrt 10.3.0"
    assert world.current.context == "primary 0"
    with pytest.raises(DependencyError, match="there is no GPU 2"):
        finish(bundle, device=2, **QUICK)


def test_a_gpu_that_the_library_does_not_build_for_is_refused_before_work_starts(world, plans, tmp_path):
    world.gpus = (Gpu(0, "Hopper", "9.0", 1 << 30),)
    folder = make_bundle(tmp_path / "bundle", backend="tensorrt-rtx").folder
    with pytest.raises(ArtifactError, match=r"does not build for this GPU; got Hopper, compute capability 9\.0"):
        finish(folder, **QUICK)
    assert not plans.built
    assert names(tmp_path) == {"bundle"}


def test_a_missing_driver_or_library_says_what_to_install(world, bundle):
    world.driver = "CUDA_ERROR_NO_DEVICE"
    with pytest.raises(DependencyError, match="no NVIDIA driver was found"):
        finish(bundle, **QUICK)


def test_the_shape_of_the_times_may_be_named_if_an_engine_takes_it(world, bundle):
    assert finish(bundle, shape="64x96", **QUICK).shape == (64, 96)
    with pytest.raises(UsageError, match=r"takes `shape`; got 65x96; expected 1x16x24 to 1x64x96"):
        finish(bundle, shape=(65, 96), **QUICK)


def test_a_graph_that_the_library_refuses_leaves_no_folder(world, plans, bundle, tmp_path):
    plans.refused = {"int8"}
    with pytest.raises(InputError, match="Conv head: UNSUPPORTED_NODE, no such operator"):
        finish(bundle, **QUICK)
    assert names(tmp_path) == {"bundle"}


def test_nothing_is_written_into_the_bundle(world, bundle, tmp_path):
    for output in (bundle, bundle / "engines", tmp_path / "x" / ".." / "bundle"):
        with pytest.raises(UsageError, match="the engines cannot go into the bundle"):
            finish(bundle, output=output)
    with pytest.raises(UsageError, match="the log cannot go into the bundle"):
        finish(bundle, log=bundle / "build.log")


def test_a_bundle_called_as_its_engines_would_be_is_refused_before_work_starts(world, plans, tmp_path):
    folder = make_bundle(tmp_path / "finished").folder
    before = names(folder)
    with pytest.raises(UsageError, match=r"the engines cannot go into the bundle.*name another folder with `output`"):
        finish(folder, **QUICK)
    assert (names(folder), plans.built) == (before, [])
    assert finish(folder, output=tmp_path / "out", **QUICK).passed


@pytest.mark.parametrize("log", [".", "/", ".."])
def test_a_log_without_a_name_is_a_usage_error(world, bundle, log):
    with pytest.raises(UsageError, match="bad `log`"):
        finish(bundle, log=log, **QUICK)


def test_logs_that_cannot_be_written_are_an_error_before_work_starts(world, plans, bundle, tmp_path):
    (tmp_path / "x.int8.log").mkdir()
    with pytest.raises(InputError, match=r"x\.int8\.log; got a folder"):
        finish(bundle, log=tmp_path / "x.log", **QUICK)
    with pytest.raises(UsageError, match="the log has the name of an engine"):
        finish(bundle, log=tmp_path / "finished" / "RedOrBlue.engine", **QUICK)
    assert not plans.built
    assert names(tmp_path) == {"bundle", "x.int8.log"}


def test_an_image_that_fits_no_profile_is_an_error_before_work_starts(world, plans, tmp_path):
    profile = {"min": [1, 16, 24], "opt": [1, 24, 36], "max": [1, 25, 36]}
    with pytest.raises(ArtifactError, match="an image of the bundle fits no profile of it; got 26x36"):
        finish(make_bundle(tmp_path / "bundle", profiles=(profile,)).folder, **QUICK)
    assert not plans.built


def test_a_log_has_what_the_library_says_of_each_engine(world, bundle, tmp_path):
    finish(bundle, log=tmp_path / "build.log", **QUICK)
    assert "this plan is a fake" in (tmp_path / "build.fp16.log").read_text()
    assert (tmp_path / "build.int8.log").is_file()


def test_a_changed_bundle_never_reaches_the_library(world, plans, bundle, tmp_path):
    graph_file = bundle / "int8.onnx"
    graph_file.write_bytes(graph_file.read_bytes().replace(b"graph", b"grasp"))
    with pytest.raises(ArtifactError, match=r"int8.onnx is not the file that bundle.json describes"):
        finish(bundle, **QUICK)
    assert not world.events
    assert not plans.built
    assert names(tmp_path) == {"bundle"}


def test_a_file_that_changes_while_engines_are_built_is_refused(world, bundle, monkeypatch):
    from fcn_deploy.workflows import finishing

    real = finishing.build_on_device

    def tampered(*arguments, **options):
        (bundle / "fp16.onnx").write_bytes(b"another graph, fp16-fp16")
        return real(*arguments, **options)

    monkeypatch.setattr(finishing, "build_on_device", tampered)
    with pytest.raises(ArtifactError, match="has changed since it was checked"):
        finish(bundle, **QUICK)


def test_a_folder_where_an_engine_goes_is_an_error_before_work_starts(world, plans, bundle, tmp_path):
    (tmp_path / "out" / "RedOrBlue.int8.engine").mkdir(parents=True)
    with pytest.raises(InputError, match="a folder"):
        finish(bundle, output=tmp_path / "out", **QUICK)
    assert not plans.built


@pytest.mark.parametrize("variant", ["../up", "a/b", "..", ".hidden", "a\\b"])
def test_a_name_of_the_net_that_leads_out_of_the_folder_is_refused(variant):
    with pytest.raises(InputError, match="variant of a bundle"):
        make_bundle(Path("never"), spec=spec(variant=variant))


def test_the_command_prints_the_table_and_the_exit_code_of_a_missed_gate(world, plans, bundle, tmp_path, capsys):
    quick = ["--warmup", "0", "--duration", "0", "--iterations", "8"]
    assert run(["finish", str(bundle), *quick]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "ship RedOrBlue.int8.engine: INT8 meets its gate and is faster than FP16" in said
    assert "time / FP16" in said
    assert "simulated before" in said
    assert "Fake, compute capability 8.6" in said
    plans.wrong = {"int8"}
    assert run(["finish", str(bundle), *quick, "--json"]) == 3
    found = capsys.readouterr()
    assert json.loads(found.out)["ship"]["engine"] == "RedOrBlue.fp16.engine"
    assert "INT8 missed its gate" in found.err


SCRIPT = f"""{BLOCK}
from fcn_deploy.cli.app import run
from tests.support.fake_device import Plans, device
from tests.support.fake_nvidia import World

plans = Plans()
plans.seconds = {{"fp16": 0.004, "int8": 0.001}}
with device(World(), plans):
    code = run(sys.argv[2:])
assert not BLOCKED & set(sys.modules)
sys.exit(code)
"""


def finished_elsewhere(*arguments):
    """Runs `finish` in a process that can import neither torch nor onnx, nor anything else of the host."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, BLOCKED, "finish", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_device_needs_neither_torch_nor_onnx(tmp_path):
    folder = make_bundle(tmp_path / "bundle").folder
    done = finished_elsewhere(folder, "--warmup", 0, "--duration", 0, "--iterations", 8, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ship"]["engine"] == "RedOrBlue.int8.engine"
    (folder / "more.txt").write_text("")
    done = finished_elsewhere(folder)
    assert done.returncode == 5
    assert "has files that bundle.json does not list; got more.txt" in done.stderr
    shutil.rmtree(folder)
    done = finished_elsewhere(folder)
    assert (done.returncode, "is not a bundle; got no such file" in done.stderr) == (6, True)
