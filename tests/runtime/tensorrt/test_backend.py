"""Plans on a fake GPU: what is asked of CUDA and TensorRT, and in which order. tests/gpu runs the real ones."""

import gc
import json
import logging
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.artifacts.sidecar import sidecar_path
from fcn_deploy.errors import ArtifactError, ClosedError, DependencyError, InputError, UsageError
from fcn_deploy.runtime import RuntimeOptions, Segmenter, open_backend
from fcn_deploy.runtime.tensorrt.backend import TensorRTBackend
from fcn_deploy.runtime.tensorrt.cuda import OutOfMemoryError
from fcn_deploy.runtime.tensorrt.driver import Gpu
from tests.support import fake_nvidia
from tests.support.fake_nvidia import GpuArray

TWO_PROFILES = [
    {"min": [1, 8, 8], "opt": [1, 16, 16], "max": [4, 64, 64]},
    {"min": [1, 32, 32], "opt": [4, 60, 60], "max": [8, 128, 128]},
]


@pytest.fixture(autouse=True)
def quiet(caplog):
    """The fake library warns at every load."""
    caplog.set_level(logging.INFO, "fcn_deploy")


def photo(height=16, width=24, batch=1, seed=0):
    random = np.random.default_rng(seed)
    return {"image": random.integers(0, 4, (batch, height, width, 3), dtype=np.uint8)}


def check(backend, feeds):
    (labels,) = backend.infer(feeds).values()
    np.testing.assert_array_equal(labels, feeds["image"][..., 0])
    return labels


# What a plan gives


@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (33, 64, 4), (64, 9, 2)])
def test_a_plan_gives_its_labels_at_every_shape(world, plan, flavor, shape):
    backend = TensorRTBackend(plan(flavor))
    assert backend.inputs == (TensorSpec("image", "uint8", ("batch", "height", "width", 3)),)
    assert backend.outputs == (TensorSpec("labels", "uint8", ("batch", "height", "width")),)
    assert backend.name == flavor
    assert backend.metadata == {}
    for seed in range(4):  # run, capture, launch, launch
        check(backend, photo(*shape, seed=seed))
    backend.close()


def test_a_segmenter_needs_the_plan_alone(world, plan):
    with Segmenter(plan()) as segmenter:
        image = photo()["image"][0]
        np.testing.assert_array_equal(segmenter(image), image[..., 0])
        assert (segmenter.io, segmenter.backend, segmenter.spec.num_classes) == ("image", "tensorrt", 4)
    with Segmenter(plan(io="tensor")) as segmenter:
        assert segmenter.io == "tensor"
        assert segmenter.logits(image).shape == (3, 16, 24)


def test_results_are_the_callers_to_keep(world, plan):
    backend = TensorRTBackend(plan())
    first = check(backend, photo(seed=1))
    before = first.copy()
    check(backend, photo(seed=2))
    np.testing.assert_array_equal(first, before)
    backend.close()


def test_arrays_need_not_be_contiguous(world, plan):
    backend = TensorRTBackend(plan())
    check(backend, {"image": photo(16, 24)["image"].transpose(0, 2, 1, 3)[:, ::-1]})
    backend.close()


def test_an_axis_of_one_size_in_every_profile_is_fixed(world, plan):
    profiles = [{"min": [2, 8, 8], "opt": [2, 16, 16], "max": [2, 64, 64]}]
    backend = TensorRTBackend(plan(profiles=profiles))
    assert backend.inputs[0].shape == (2, "height", "width", 3)
    with pytest.raises(InputError, match=r"wrong shape; got \[1, 16, 24, 3\]; expected image: uint8 \[2, height"):
        backend.infer(photo())
    backend.close()


# Before the library is touched


def test_a_missing_file_comes_before_everything(world, tmp_path):
    with pytest.raises(InputError, match=r"no\.engine; got no such file"):
        TensorRTBackend(tmp_path / "no.engine", flavor="tensorrt")
    assert world.events == []


def test_the_driver_is_asked_before_the_library_is_imported(world, plan):
    TensorRTBackend(plan()).close()
    assert [event[0] for event in world.events][:3] == ["driver", "load", "runtime"]


def edit(path, change):
    sidecar = sidecar_path(path)
    data = json.loads(sidecar.read_text())
    change(data)
    sidecar.write_text(json.dumps(data))
    return path


COMMAND = (
    "fix: fcn-deploy build-engine MODEL.onnx --int8 --ranges RANGES.json --calib-method entropy --backend {} "
    "--io image --min-shape 1x8x8 --opt-shape 1x32x32 --max-shape 4x64x64"
)


def test_a_plan_that_is_not_the_sidecars_is_exit_5_before_the_driver(world, plan):
    path = plan()
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match="not the file its sidecar describes") as caught:
        TensorRTBackend(path)
    assert caught.value.exit_code == 5
    assert world.events == []


def test_an_engine_of_another_library_is_exit_5_before_the_driver(world, plan):
    with pytest.raises(ArtifactError, match="another library; got onnxruntime; expected tensorrt or tensorrt-rtx") as a:
        TensorRTBackend(plan("onnxruntime"))
    with pytest.raises(ArtifactError, match="another library; got tensorrt; expected tensorrt-rtx") as b:
        TensorRTBackend(plan("tensorrt"), flavor="tensorrt-rtx")
    assert COMMAND.format("tensorrt") in str(a.value)
    assert COMMAND.format("tensorrt-rtx") in str(b.value)
    assert world.events == []


def test_a_plan_for_another_gpu_is_exit_5_before_the_library_is_imported(world, plan):
    with pytest.raises(ArtifactError, match=r"got Fake, compute capability 8\.6; expected 8\.9, 12\.0") as a:
        TensorRTBackend(plan("tensorrt-rtx", target={"gpu": ["8.9", "12.0"]}))
    assert a.value.exit_code == 5
    assert COMMAND.format("tensorrt-rtx") + " --compute-capability 8.6 -o net.engine" in str(a.value)
    assert "sha256 0123456789ab" in str(a.value)
    assert world.names("load") == []


def test_a_plan_whose_model_brought_its_scales_is_built_again_without_ranges(world, plan):
    path = edit(plan(library="10.2.0"), lambda data: data["precision"].update(method="given"))
    with pytest.raises(ArtifactError, match=r"build-engine MODEL\.onnx --int8 --backend tensorrt --io image"):
        TensorRTBackend(path)


def test_what_a_plan_was_built_with_is_in_the_command_that_builds_it_again(world, plan):
    made = {"requested": "fp8", "base": "fp32", "method": "minmax", "tf32": True}
    path = edit(plan(library="10.2.0"), lambda data: data["precision"].update(made))
    command = r"--fp8 --ranges RANGES\.json --calib-method minmax --base fp32 --tf32 --backend tensorrt"
    with pytest.raises(ArtifactError, match=command):
        TensorRTBackend(path)


@pytest.mark.parametrize(
    ("gpu", "made", "advice"),
    [
        ("8.6", {"requested": "fp8"}, "has no FP8 on this GPU; build another engine: {} --fp16 --backend"),
        ("8.9", {"requested": "fp8"}, "{} --fp8 --ranges RANGES.json --calib-method entropy --backend"),
        (
            "8.6",
            {"requested": "fp8", "base": "fp32", "tf32": True},
            "has no FP8 on this GPU; build another engine: {} --fp16 --backend",
        ),
        ("8.6", {"requested": "int8", "base": "bf16"}, "--base bf16 --backend"),
        ("7.5", {"requested": "bf16", "base": "bf16"}, "has no BF16 on this GPU; build another engine: {} --fp16 --b"),
        ("7.5", {"requested": "fp32", "base": "fp32", "tf32": True}, "no TF32 on this GPU; build another engine: {}"),
        ("7.5", {"requested": "int8", "base": "fp32", "tf32": True}, "no INT8 and no TF32 on this GPU; build another"),
        ("7.5", {"requested": "int8", "method": "given"}, "no INT8 on this GPU; run the engine on a GPU that has"),
    ],
)  # fmt: skip
def test_a_gpu_without_the_precision_of_a_plan_is_told_what_can_be_built_for_it(world, plan, gpu, made, advice):
    world.gpus = (Gpu(0, "Fake", gpu, 1 << 30),)
    path = edit(plan("tensorrt-rtx", target={"gpu": ["12.0"]}), lambda data: data["precision"].update(made))
    with pytest.raises(ArtifactError, match="was built for other GPUs") as caught:
        TensorRTBackend(path)
    said = str(caught.value)
    assert advice.format("fcn-deploy build-engine MODEL.onnx") in said
    assert made.get("method") == "given" or f"--compute-capability {gpu} -o net.engine" in said
    assert "--fp16" not in said or not {"--tf32", "--base", "--ranges"}.intersection(said.split())


def test_a_base_that_a_gpu_lacks_is_replaced_in_what_it_is_told(world, plan):
    world.gpus = (Gpu(0, "Fake", "7.5", 1 << 30),)
    for method, option in (("entropy", "--backend"), ("given", "--base fp32 --backend")):
        made = {"requested": "int8", "base": "bf16", "method": method}
        path = edit(plan("tensorrt", target={"gpu": ["8.6"]}), lambda data, made=made: data["precision"].update(made))
        with pytest.raises(ArtifactError, match=rf"tensorrt has no BF16 on this GPU.*--int8 .*{option}") as caught:
            TensorRTBackend(path)
        assert "bf16" not in str(caught.value)


def test_the_gpus_of_a_plan_are_in_the_command_that_builds_it_again(world, plan):
    """FP8 without them would be refused: by default TensorRT-RTX builds for GPUs that do not have it."""
    path = plan("tensorrt-rtx", library="1.4.0", target={"gpu": ["8.6", "8.9"]})
    with pytest.raises(ArtifactError, match=r"--compute-capability 8\.6 --compute-capability 8\.9 -o net\.engine"):
        TensorRTBackend(path)
    with pytest.raises(ArtifactError, match=r"--backend tensorrt-rtx .* --compute-capability 8\.6 -o net\.engine"):
        TensorRTBackend(plan("tensorrt", target={"gpu": ["8.6"]}), flavor="tensorrt-rtx")
    wide = {"gpu": ["8.0"], "hardware_compatible": True}
    with pytest.raises(ArtifactError, match="another library") as caught:
        TensorRTBackend(plan("tensorrt", target=wide), flavor="tensorrt-rtx")
    assert "--compute-capability" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["9.0", "10.0", "7.0", "5.2"])
def test_a_gpu_that_the_library_does_not_know_is_exit_5_before_it_is_imported(world, plan, architecture):
    world.gpus = (Gpu(0, "Hopper", architecture, 1 << 30),)
    with pytest.raises(ArtifactError) as caught:
        TensorRTBackend(plan("tensorrt-rtx"))
    assert "tensorrt-rtx cannot run" in str(caught.value)
    assert f"got Hopper, compute capability {architecture}; expected 7.5, 8.0" in str(caught.value)
    other = "build for tensorrt, or " if architecture != "5.2" else ""
    assert f"fix: {other}run the exported model in ONNX Runtime" in str(caught.value)
    assert world.count("load") == 0


def test_a_gpu_newer_than_all_that_are_known_is_the_librarys_to_decide(world, plan):
    world.gpus = (Gpu(0, "Fake", "13.0", 1 << 30),)
    for flavor in ("tensorrt", "tensorrt-rtx"):
        TensorRTBackend(plan(flavor, target={"gpu": []})).close()


def test_a_hardware_compatible_plan_runs_on_newer_gpus_only(world, plan):
    TensorRTBackend(plan(target={"gpu": ["8.0"], "hardware_compatible": True})).close()
    with pytest.raises(ArtifactError, match=r"--hardware-compatibility -o net\.engine"):
        TensorRTBackend(plan(target={"gpu": ["9.0"], "hardware_compatible": True}))


def test_without_an_architecture_the_library_decides(world, plan):
    TensorRTBackend(plan(target={"gpu": []})).close()


@pytest.mark.parametrize("version", ["10.2.0", "10.3.1", "11.0.0", "8.6.1"])
def test_another_version_is_exit_5_before_the_plan_is_loaded(world, plan, version):
    with pytest.raises(
        ArtifactError, match=f"another version of tensorrt; got tensorrt 10.3.0; expected {version}"
    ) as a:
        TensorRTBackend(plan(library=version))
    assert a.value.exit_code == 5
    assert COMMAND.format("tensorrt") in str(a.value)
    assert "where tensorrt 10.3.0 is installed" in str(a.value)
    assert world.names("runtime") == []


def test_another_build_of_the_same_version_is_taken(world, plan):
    TensorRTBackend(plan(library="10.3.0.26")).close()


def test_a_version_compatible_plan_runs_on_newer_versions_only(world, plan):
    compatible = {"version_compatible": True}
    TensorRTBackend(plan(library="10.2.0", target=compatible), allow_host_code=True).close()
    with pytest.raises(ArtifactError, match=r"got tensorrt 10\.3\.0; expected 9\.3\.0 or a newer 9\.x; fix: "):
        TensorRTBackend(plan(library="9.3.0", target=compatible), allow_host_code=True)
    with pytest.raises(ArtifactError, match=r"expected 10\.4\.0 or a newer 10\.x; fix: .*--version-compatible"):
        TensorRTBackend(plan(library="10.4.0", target=compatible), allow_host_code=True)


def test_host_code_runs_only_if_it_is_allowed(world, plan):
    TensorRTBackend(plan()).close()
    TensorRTBackend(plan(), allow_host_code=True).close()
    assert world.names("host code") == [("host code", False), ("host code", True)]
    with pytest.raises(ArtifactError, match=r"brings code that runs on the host.*allow_host_code=True"):
        TensorRTBackend(plan(target={"version_compatible": True}))
    assert len(world.names("host code")) == 2


def test_a_corrupt_plan_is_exit_5_with_the_librarys_words(world, plan):
    with pytest.raises(ArtifactError, match=r"tensorrt 10\.3\.0 cannot load .*; got the magic tag does not match") as a:
        TensorRTBackend(plan(data=b"corrupt"))
    assert a.value.exit_code == 5
    assert COMMAND.format("tensorrt") in str(a.value)
    del a
    gc.collect()
    assert world.count("free", "runtime") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "CHW4"}, "cannot feed or read tensor image of the engine; got a vectorised layout"),
        ({"location": "HOST"}, "cannot feed or read tensor image of the engine; got a tensor in host memory"),
        ({"dtype": "FP8"}, "cannot feed or read tensor labels of the engine; got FP8"),
    ],
)
def test_a_plan_with_other_tensors_is_refused(world, plan, change, words):
    with pytest.raises(ArtifactError, match=words):
        TensorRTBackend(plan(**change))


def test_warnings_of_the_library_are_logged(world, plan, caplog):
    TensorRTBackend(plan()).close()
    assert "tensorrt: this plan is a fake" in caplog.text


# Which library


def test_the_lean_runtime_runs_tensorrts_plans_if_tensorrt_is_not_installed(world_with, plan, caplog):
    world_with("tensorrt-lean", "tensorrt-rtx")
    backend = TensorRTBackend(plan())
    check(backend, photo())
    backend.close()
    assert backend.name == "tensorrt-lean"
    assert "runs on tensorrt-lean: tensorrt is not installed" in caplog.text


def test_the_named_library_runs_the_plan(world, plan, caplog):
    backend = TensorRTBackend(plan(), flavor="tensorrt-lean")
    assert backend.name == "tensorrt-lean"
    assert "not installed" not in caplog.text
    backend.close()


@pytest.mark.parametrize("installed", [(), ("tensorrt", "tensorrt-rtx")])
def test_without_a_sidecar_the_library_must_be_named(world_with, plan, make_spec, installed):
    world = world_with(*installed)
    path = plan(sidecar=False)
    for opening in (lambda: open_backend(path), lambda: Segmenter(path, spec=make_spec())):
        with pytest.raises(
            ArtifactError, match=r"no sidecar.*open_backend\(engine, flavor=\.\.\.\), spec=spec\)"
        ) as caught:
            opening()
        assert caught.value.exit_code == 5
    with pytest.raises(UsageError, match="unknown TensorRT flavor; got 'trt'"):
        open_backend(path, flavor="trt")
    assert world.events == []


def test_the_named_library_runs_a_plan_without_a_sidecar(world, plan, make_spec):
    path = plan(sidecar=False)
    with Segmenter(open_backend(path, flavor="tensorrt"), spec=make_spec()) as segmenter:
        image = photo()["image"][0]
        np.testing.assert_array_equal(segmenter(image), image[..., 0])


def test_the_only_installed_library_runs_a_plan_without_a_sidecar_and_says_so(world_with, plan, make_spec, caplog):
    world_with("tensorrt")
    with caplog.at_level(logging.INFO, "fcn_deploy"), Segmenter(plan(sidecar=False), spec=make_spec()) as segmenter:
        image = photo()["image"][0]
        np.testing.assert_array_equal(segmenter(image), image[..., 0])
    assert "has no sidecar; tensorrt runs it" in caplog.text


def test_a_plan_without_a_sidecar_and_a_spec_is_exit_5_before_the_driver(world_with, plan):
    world = world_with("tensorrt")
    with pytest.raises(ArtifactError, match="has no sidecar") as caught:
        Segmenter(plan(sidecar=False))
    assert caught.value.exit_code == 5
    assert world.events == []


def test_a_sidecar_is_obeyed_even_if_the_library_is_named(world, plan):
    with pytest.raises(ArtifactError, match="other GPUs"):
        TensorRTBackend(plan(target={"gpu": ["12.0"]}), flavor="tensorrt")


def test_options_of_onnx_are_refused_for_plans_and_the_reverse(world, plan, tiny_net):
    for options, name in (
        ({"threads": 1}, "threads"),
        ({"provider": "cpu"}, "provider"),
        ({"provider": "cuda"}, "provider"),
    ):
        with pytest.raises(
            UsageError, match=f"`{name}` is for .*(ONNX engines|engines of ONNX Runtime).* got .*net.engine"
        ):
            open_backend(plan(), RuntimeOptions(**options))
    with pytest.raises(UsageError, match="`flavor` is for TensorRT plans"):
        open_backend(tiny_net(np.eye(3)), flavor="tensorrt")
    assert world.events == []


# The driver


def test_the_device_is_the_one_asked_for(world, plan):
    gpu = world.gpus[0]
    world.gpus = (gpu, type(gpu)(1, "Other", "8.9", 1 << 30))
    backend = TensorRTBackend(plan(), device=1)
    check(backend, photo())
    assert {stream.device for stream in world.streams.values()} == {1}
    backend.close()
    for index in (2, -1):
        with pytest.raises(DependencyError, match=f"no GPU {index}; got 2, counted from 0") as caught:
            TensorRTBackend(plan(), device=index)
        assert caught.value.exit_code == 7


def test_the_callers_device_stays_current(world, plan):
    world.current.context = "the caller's"
    backend = TensorRTBackend(plan())
    check(backend, photo())
    with pytest.raises(InputError):
        backend.infer(photo(1, 1))
    backend.close()
    assert world.current.context == "the caller's"


@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx", "tensorrt-lean"])
def test_without_a_driver_it_is_exit_7_and_no_library_is_imported(plan, flavor):
    path = plan("tensorrt" if flavor == "tensorrt-lean" else flavor)
    script = """
    import json, sys
    from fcn_deploy.errors import DependencyError
    from fcn_deploy.runtime.tensorrt.backend import TensorRTBackend
    from tests.support import fake_nvidia

    world = fake_nvidia.World()
    world.driver = "CUDA_ERROR_NO_DEVICE"
    with fake_nvidia.installed(world):
        try:
            TensorRTBackend(sys.argv[1], flavor=sys.argv[2])
        except DependencyError as error:
            names = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
            print(json.dumps([error.exit_code, str(error), sorted(names), world.events]))
    """
    command = [sys.executable, "-c", dedent(script), str(path), flavor]
    root = Path(__file__).parents[3]  # where `tests` is
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert result.returncode == 0, result.stderr
    code, message, modules, events = json.loads(result.stdout)
    assert code == 7
    assert message.startswith("no NVIDIA driver was found; got cuInit answered CUDA_ERROR_NO_DEVICE; fix: ")
    assert events == [["driver"]]
    assert not {name for name in modules if name.startswith("tensorrt") or name in ("torch", "onnx", "click")}


def test_a_driver_without_a_gpu_is_exit_7(world, plan):
    world.gpus = ()
    with pytest.raises(DependencyError, match="no NVIDIA driver was found; got a driver without a GPU") as caught:
        TensorRTBackend(plan())
    assert caught.value.exit_code == 7
    assert world.names("load") == []


# Profiles


def test_the_nearest_profile_runs_the_shape(world, plan):
    backend = TensorRTBackend(plan(profiles=TWO_PROFILES))
    check(backend, photo(16, 16))
    assert world.names("profile") == []
    check(backend, photo(60, 60, 4))
    check(backend, photo(60, 60, 4))  # captured, in a context of its own
    check(backend, photo(40, 40, 8))
    check(backend, photo(8, 8))
    assert world.names("profile") == [("profile", 1), ("profile", 1), ("profile", 0)]
    backend.close()


def test_a_shape_outside_every_profile_is_an_input_error_that_states_them(world, plan):
    backend = TensorRTBackend(plan(profiles=TWO_PROFILES))
    with pytest.raises(
        InputError, match=re.escape("got image 9x16x16x3; expected image 1x8x8x3 to 4x64x64x3")
    ) as caught:
        backend.infer(photo(16, 16, 9))
    assert "or image 1x32x32x3 to 8x128x128x3, tuned for 4x60x60x3" in str(caught.value)
    assert "`min_shape`, `opt_shape` and `max_shape`" in str(caught.value)
    assert caught.value.exit_code == 6
    check(backend, photo())
    backend.close()
    assert world.made == 1


def test_an_output_of_unknown_shape_is_refused(world, plan):
    backend = TensorRTBackend(plan(dynamic_output=True))
    with pytest.raises(ArtifactError, match="shape of output labels depends on the values of the inputs"):
        backend.infer(photo())
    backend.close()


# Buffers and graphs


def test_memory_grows_and_is_never_allocated_again(world, plan):
    backend = TensorRTBackend(plan())
    for height, width in [(16, 16), (8, 8), (16, 16), (32, 32), (16, 16), (32, 32), (31, 33)]:
        check(backend, photo(height, width))
    sizes = [event[2] for event in world.names("allocate") if event[1] == "device"]
    assert sorted(sizes) == sorted([1000, 16 * 16 * 3, 16 * 16, 32 * 32 * 3, 32 * 32])
    pinned = [event[2] for event in world.names("allocate") if event[1] == "pinned"]
    assert sorted(pinned) == sorted([16 * 16 * 3, 16 * 16, 32 * 32 * 3, 32 * 32])
    backend.close()
    assert world.memory == {}


def test_each_shape_is_captured_once(world, plan):
    backend = TensorRTBackend(plan())
    check(backend, photo(32, 32))
    for _ in range(5):
        check(backend, photo(16, 16))
        check(backend, photo(8, 24))
    assert world.count("capture") == 2
    assert world.count("launch") == 2 * 4
    # run once, then warmed up and captured in a context of the graph's own
    assert world.count("enqueue", (1, 16, 16, 3)) == 3
    assert world.made == 3
    backend.close()


def test_the_graph_used_longest_ago_goes_first(world, plan):
    backend = TensorRTBackend(plan(), graphs=2)
    check(backend, photo(64, 64))
    for size in (8, 16, 8, 24, 8, 16):
        for _ in range(2):
            check(backend, photo(size, size))
    # 8 and 16 captured; 24 evicts 16, for 8 came later; 16 again evicts 24
    assert world.count("capture") == 4
    assert world.count("free", "graph") == 2
    backend.close()
    assert world.count("free", "graph") == 4


def test_graphs_are_freed_when_their_memory_moves(world, plan):
    backend = TensorRTBackend(plan())
    for _ in range(3):
        check(backend, photo(16, 16))
    check(backend, photo(32, 32))
    assert world.count("free", "graph") == 1
    for seed in range(3):
        check(backend, photo(16, 16, seed=seed))
    assert world.count("capture") == 2
    backend.close()


def test_without_graphs_nothing_is_captured(world, plan):
    backend = TensorRTBackend(plan(), graphs=0)
    for _ in range(3):
        check(backend, photo())
    assert world.count("capture") == 0
    assert world.count("enqueue") == 3
    assert world.count("shape") == 1
    backend.close()


def test_a_library_with_graphs_of_its_own_is_left_to_capture_them(world, plan):
    backend = TensorRTBackend(plan("tensorrt-rtx"))
    config = backend._engine.config
    assert config.cuda_graph_strategy == "WHOLE_GRAPH_CAPTURE"
    for _ in range(4):
        check(backend, photo())
    assert world.count("capture") == 0
    del config
    backend.close()
    backend = TensorRTBackend(plan("tensorrt-rtx"), graphs=0)
    assert backend._engine.config.cuda_graph_strategy == "DISABLED"
    backend.close()


# Arrays on the GPU


@pytest.mark.parametrize("dlpack", [True, False])
def test_an_array_on_the_gpu_is_read_in_place(world, plan, dlpack):
    backend = TensorRTBackend(plan())
    image = photo()["image"]
    array = GpuArray(world, image, dlpack=dlpack)
    for _ in range(3):
        np.testing.assert_array_equal(backend.infer({"image": array})["labels"], image[..., 0])
    assert world.count("address", "image", array.buffer.handle) == 3
    assert [event[2] for event in world.names("allocate") if event[1] == "pinned"] == [16 * 24]
    assert world.count("capture") == 1
    backend.close()


def test_infer_device_writes_outputs_on_the_gpu(world, plan):
    backend = TensorRTBackend(plan())
    image = photo()["image"]
    labels = GpuArray(world, np.zeros((1, 16, 24), np.uint8))
    backend.infer_device({"image": GpuArray(world, image)}, {"labels": labels})
    np.testing.assert_array_equal(labels.read(), image[..., 0])
    assert [event for event in world.names("allocate") if event[1] == "pinned"] == []
    backend.infer_device({"image": 3 - image}, {"labels": labels})
    np.testing.assert_array_equal(labels.read(), 3 - image[..., 0])
    backend.close()


def test_arrays_at_changing_addresses_do_not_evict_graphs(world, plan):
    backend = TensorRTBackend(plan(), graphs=1)
    for _ in range(2):
        check(backend, photo())
    for seed in range(5):
        image = photo(seed=seed)
        array = GpuArray(world, image["image"])
        np.testing.assert_array_equal(backend.infer({"image": array})["labels"], image["image"][..., 0])
    check(backend, photo())
    assert world.count("capture") == 1
    backend.close()


def refused(world, image, **changes):
    array = GpuArray(world, image)
    for name, value in changes.items():
        setattr(array, name, value)
    return array


def test_arrays_that_do_not_fit_are_refused_and_the_context_lives_on(world, plan):
    backend = TensorRTBackend(plan())
    image = photo()["image"]
    good, labels = GpuArray(world, image), GpuArray(world, np.zeros((1, 16, 24), np.uint8))
    inputs = [
        (refused(world, image, device=1), "image is not on the engine's GPU; got device 1; expected device 0"),
        (refused(world, image, strides=(1, 1, 1, 1)), "image is not contiguous"),
        (GpuArray(world, image.astype(np.float32)), "input image has the wrong dtype; got float32; expected uint8"),
        (GpuArray(world, image[0]), "input image has the wrong shape"),
        (image.tolist(), "image is not an array; got list"),
    ]
    for array, words in inputs:
        with pytest.raises(InputError, match=words):
            backend.infer({"image": array})
    outputs = [
        ({}, "wrong outputs; got"),
        ({"labels": np.zeros((1, 16, 24), np.uint8)}, "output labels cannot be written to; got an array of the host"),
        ({"labels": refused(world, labels.read(), readonly=True)}, "got a read-only array"),
        ({"labels": GpuArray(world, np.zeros((1, 16, 23), np.uint8))}, r"got \[1, 16, 23\]; expected \[1, 16, 24\]"),
        ({"labels": GpuArray(world, np.zeros((1, 16, 24), np.int32))}, "output labels has the wrong dtype; got int32"),
    ]
    for targets, words in outputs:
        with pytest.raises(InputError, match=words):
            backend.infer_device({"image": good}, targets)
    backend.infer_device({"image": good}, {"labels": labels})
    np.testing.assert_array_equal(labels.read(), image[..., 0])
    assert world.made == 1
    backend.close()


def test_strides_of_an_axis_of_one_do_not_matter(world, plan):
    backend = TensorRTBackend(plan())
    image = photo()["image"]
    array = refused(world, image, strides=(5, 24 * 3, 3, 1))
    np.testing.assert_array_equal(backend.infer({"image": array})["labels"], image[..., 0])
    backend.close()


# Threads


@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx"])
def test_threads_run_at_the_same_time_and_never_in_one_context(world, plan, flavor):
    world.delay = 0.002
    backend = TensorRTBackend(plan(flavor), contexts=3)
    shapes = [(8, 8), (16, 16), (24, 8), (64, 64)]

    def call(seed):
        check(backend, photo(*shapes[seed % 4], seed=seed))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(80)))
    assert 1 < len(world.streams) <= 3
    backend.close()
    assert world.count("free", "stream") == len(world.streams)
    assert world.memory == {}


def test_one_thread_makes_one_context(world, plan):
    backend = TensorRTBackend(plan("tensorrt-rtx"))
    assert world.made == 0
    for size in (8, 16, 32):
        check(backend, photo(size, size))
    assert world.made == 1
    backend.close()


@pytest.mark.parametrize(
    ("profiles", "asked", "chosen"),
    [
        (None, None, "LAZY"),  # a range
        ([{key: [1, 16, 24] for key in ("min", "opt", "max")}], None, "EAGER"),
        (TWO_PROFILES, "eager", "EAGER"),
        (None, "none", "NONE"),
        (None, "lazy", "LAZY"),
    ],
)
def test_kernels_are_specialised_before_the_first_run_of_fixed_shapes_alone(world, plan, profiles, asked, chosen):
    path = plan("tensorrt-rtx", profiles=profiles)
    with Segmenter(path, specialization=asked) as segmenter:
        config = segmenter._backend._engine.config
        assert config.dynamic_shapes_kernel_specialization_strategy == chosen
        del config


def test_only_tensorrt_rtx_specialises_kernels(world, plan):
    with pytest.raises(UsageError, match="`specialization` is for TensorRT-RTX; got tensorrt; fix: leave it out"):
        TensorRTBackend(plan("tensorrt"), specialization="eager")
    with pytest.raises(UsageError, match="unknown `specialization`; got 'soon'; expected lazy or eager or none"):
        TensorRTBackend(plan("tensorrt-rtx"), specialization="soon")
    assert world.count("load") == 0


def test_contexts_and_graphs_reach_the_backend(world, plan):
    with Segmenter(plan(), contexts=1, graphs=0) as segmenter:
        for _ in range(3):
            segmenter(photo()["image"][0])
        assert segmenter._backend._slots._limit == 1
    assert world.count("capture") == 0


def test_fewer_than_no_graphs_are_a_usage_error(world, plan):
    with pytest.raises(UsageError, match="bad number of CUDA `graphs`; got -1; expected an integer, 0 or more"):
        TensorRTBackend(plan(), graphs=-1)
    assert world.events == []


def test_no_contexts_are_a_usage_error(world, plan):
    with pytest.raises(UsageError, match="bad number of execution `contexts`; got 0; expected an integer, 1 or more"):
        TensorRTBackend(plan(), contexts=0)


@pytest.mark.parametrize("value", [True, 1.5, "2", [2], np.float32(2), np.array([1, 2])])
def test_numbers_that_are_no_integers_are_a_usage_error(world, plan, value):
    for name in ("contexts", "graphs"):
        with pytest.raises(UsageError, match=re.escape(f"`{name}`; got {value!r}; expected an integer")):
            TensorRTBackend(plan(), **{name: value})
        with pytest.raises(UsageError, match=f"`{name}`"):
            RuntimeOptions(**{name: value})
    with pytest.raises(UsageError, match="unknown `specialization`"):
        TensorRTBackend(plan("tensorrt-rtx"), specialization=value)
    assert world.events == []


def test_integers_of_numpy_are_integers(world, plan):
    with Segmenter(plan(), contexts=np.int64(1), graphs=np.uint8(0)) as segmenter:
        segmenter(photo()["image"][0])
        assert segmenter._backend._slots._limit == 1


# Errors and the end


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        ("execute", "tensorrt cannot run the engine; got the GPU has left the building"),
        ("context", "tensorrt cannot make an execution context; got no reason given"),
    ],
)
def test_after_an_error_nothing_broken_is_used_again(world, plan, fail, words):
    backend = TensorRTBackend(plan(), contexts=1)
    world.fail = fail
    with pytest.raises(ArtifactError, match=words) as caught:
        backend.infer(photo())
    assert caught.value.exit_code == 5
    del caught
    assert world.count("free", "stream") == len(world.streams)
    assert world.memory == {}
    world.fail = None
    check(backend, photo())
    assert len(world.streams) == 2
    backend.close()


def test_after_a_capture_that_fails_work_runs_without_graphs_and_the_log_says_so_once(world, plan, caplog):
    backend = TensorRTBackend(plan())
    check(backend, photo(32, 32))
    check(backend, photo())
    world.fail = "capture"
    for seed in range(3):
        check(backend, photo(seed=seed))
        check(backend, photo(32, 32, seed=seed))
    assert all(stream.recording is None for stream in world.streams.values())
    said = [record for record in caplog.records if "CUDA graphs" in record.message]
    assert [record.levelname for record in said] == ["WARNING"]
    assert said[0].message == (
        "CUDA graphs are off from here on, because a capture failed: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: and more"
    )
    world.fail = None
    for _ in range(3):
        check(backend, photo())
    assert world.count("capture") == 1
    assert world.count("launch") == 0
    backend.close()
    assert world.memory == {}


def test_graphs_that_were_captured_before_a_failure_are_still_launched(world, plan):
    backend = TensorRTBackend(plan())
    check(backend, photo(32, 32))
    for _ in range(3):
        check(backend, photo())
    world.fail = "capture"
    for _ in range(2):
        check(backend, photo(32, 32))
    check(backend, photo())
    assert world.count("launch") == 3
    backend.close()


def test_a_gpu_that_is_broken_is_an_error_and_no_question_of_graphs(world, plan):
    backend = TensorRTBackend(plan())
    check(backend, photo())
    world.fail = "execute"
    with pytest.raises(ArtifactError, match="got the GPU has left the building"):
        backend.infer(photo())
    backend.close()
    assert world.memory == {}


@pytest.mark.parametrize("flavor", ["tensorrt", "tensorrt-rtx"])
def test_closing_frees_in_order(world, plan, flavor):
    backend = TensorRTBackend(plan(flavor))
    for _ in range(2):
        check(backend, photo())
    world.events.clear()
    backend.close()
    order = [event[1] for event in world.names("free")]
    kinds = ["graph", "context", "pinned", "device", "stream", "engine", "runtime"]
    assert set(order) == set(kinds) - ({"graph"} if flavor == "tensorrt-rtx" else set())
    assert order == sorted(order, key=lambda kind: {"pinned": 2, "device": 2}.get(kind, kinds.index(kind)))
    backend.close()


def test_after_closing_every_call_raises(world, plan):
    with TensorRTBackend(plan()) as backend:
        check(backend, photo())
    assert world.memory == {}
    with pytest.raises(ClosedError, match="this backend is closed; fix: open the engine again"):
        backend.infer(photo())
    with pytest.raises(ClosedError):
        backend.infer_device(photo(), {})
    assert len(backend.inputs) == 1


def test_closing_waits_for_the_calls_under_way(world, plan):
    world.delay = 0.05
    backend = TensorRTBackend(plan(), contexts=2)
    started = threading.Barrier(3)
    outcomes = []

    def call():
        started.wait()
        try:
            for _ in range(100):
                check(backend, photo())
        except ClosedError:
            outcomes.append("closed")

    callers = [threading.Thread(target=call, daemon=True) for _ in range(2)]
    for caller in callers:
        caller.start()
    started.wait()
    backend.close()
    assert world.memory == {}
    for caller in callers:
        caller.join(10)
    assert outcomes == ["closed", "closed"]


# Memory


def test_scratch_memory_is_that_of_the_profile(world, plan):
    backend = TensorRTBackend(plan(profiles=TWO_PROFILES))

    def scratch():
        return [event[2] for event in world.names("allocate") if event[1] == "device" and event[2] % 1000 == 0]

    for _ in range(2):
        check(backend, photo(16, 16))
    assert scratch() == [1000]
    check(backend, photo(128, 128))  # the second profile takes twice as much
    assert scratch() == [1000, 2000]
    assert world.count("free", "graph") == 1
    for size in (128, 16, 16, 16, 128):
        check(backend, photo(size, size))
    assert scratch() == [1000, 2000]
    backend.close()


def in_parallel(backend, calls, feeds):
    started = threading.Barrier(calls)

    def call(_):
        started.wait()
        return check(backend, feeds)

    with ThreadPoolExecutor(calls) as threads:
        return list(threads.map(call, range(calls)))


NEEDED = 1000 + 32 * 32 * 3 + 32 * 32  # what one call on 32x32 holds


def test_a_full_gpu_makes_calls_wait_for_each_other(world, plan, caplog):
    world.delay = 0.02
    world.room = 2 * NEEDED + 500
    backend = TensorRTBackend(plan(), graphs=0)
    assert len(in_parallel(backend, 6, photo(32, 32))) == 6
    assert len(in_parallel(backend, 6, photo(32, 32))) == 6
    assert world.used <= 2 * NEEDED
    said = [record.message for record in caplog.records if "calls run at the same time" in record.message]
    assert said
    assert all(line.startswith("the memory of GPU 0 is full: from here on, ") for line in said)
    backend.close()
    assert world.used == 0


def test_a_call_that_grows_on_a_full_gpu_takes_the_room_of_idle_contexts(world, plan):
    world.delay = 0.02
    backend = TensorRTBackend(plan(), graphs=0)
    in_parallel(backend, 3, photo(16, 16))
    world.room = 1000 + 64 * 64 * 4 + 100
    check(backend, photo(64, 64))
    assert world.used == 1000 + 64 * 64 * 4
    backend.close()


def test_a_call_that_has_the_gpu_to_itself_and_no_room_is_an_error(world, plan):
    world.room = NEEDED
    backend = TensorRTBackend(plan(), graphs=0)
    with pytest.raises(ArtifactError, match="the memory of GPU 0 is full; got no room for 49152 bytes more"):
        backend.infer(photo(64, 64, batch=4))
    check(backend, photo(32, 32))
    backend.close()
    assert world.memory == {}


def test_a_library_that_is_out_of_memory_says_so(world, plan):
    world.fail = "full"
    with (
        TensorRTBackend(plan("tensorrt-rtx")) as backend,
        pytest.raises(OutOfMemoryError, match=r"tensorrt_rtx cannot make an execution context; got .*OutOfMemory"),
    ):
        backend.infer(photo())


@given(room=st.integers(NEEDED, 6 * NEEDED), calls=st.integers(1, 6), contexts=st.integers(1, 6))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_room_for_one_call_is_enough_for_all(tmp_path_factory, room, calls, contexts, make_spec):
    world = fake_nvidia.World()
    world.room, world.delay = room, 0.001
    path = tmp_path_factory.mktemp("plan") / "net.engine"
    path.write_bytes(fake_nvidia.plan_bytes())
    with fake_nvidia.installed(world), TensorRTBackend(path, flavor="tensorrt", contexts=contexts, graphs=0) as backend:
        for _ in range(2):
            assert len(in_parallel(backend, calls, photo(32, 32))) == calls
    assert world.used == 0


# Where arrays lie


@pytest.mark.parametrize("offset", [1, 3, 64, 255])
def test_an_address_that_is_not_aligned_is_copied_on_the_gpu(world, plan, offset):
    backend = TensorRTBackend(plan())
    feeds = photo()
    image = GpuArray(world, feeds["image"], offset=offset)
    for _ in range(3):
        np.testing.assert_array_equal(backend.infer({"image": image})["labels"], feeds["image"][..., 0])
    assert world.count("copy on the device") == 3
    assert world.count("launch") == 2  # the copy's address is always the same
    labels = GpuArray(world, np.zeros((1, 16, 24), np.uint8), offset=offset)
    for _ in range(3):
        backend.infer_device({"image": image}, {"labels": labels})
    np.testing.assert_array_equal(labels.read(), feeds["image"][..., 0])
    assert world.count("copy on the device") == 9
    backend.close()


def test_an_aligned_address_is_not_copied(world, plan):
    with TensorRTBackend(plan()) as backend:
        backend.infer({"image": GpuArray(world, photo()["image"], offset=256)})
    assert world.count("copy on the device") == 0


class PinnedTensor:
    """An array of another library in page-locked memory of the host."""

    def __init__(self, array):
        self._array = array

    def __dlpack_device__(self):
        return (3, 0)

    def __dlpack__(self, **options):
        return self._array.__dlpack__()


def pinned(world, feeds):
    image = fake_nvidia.aligned(feeds["image"].nbytes).reshape(feeds["image"].shape)
    image[...] = feeds["image"]
    world.memory[image.ctypes.data] = image.reshape(-1)
    world.pinned.add(image.ctypes.data)
    return image


def test_page_locked_memory_is_copied_from_where_it_is(world, plan, monkeypatch):
    monkeypatch.setattr(np, "from_dlpack", lambda tensor: tensor._array)  # numpy's own asks for a device of a real one
    with TensorRTBackend(plan()) as backend:
        feeds = photo()
        image = pinned(world, feeds)
        for array in (image, PinnedTensor(image)):
            world.events.clear()
            np.testing.assert_array_equal(backend.infer({"image": array})["labels"], feeds["image"][..., 0])
            assert world.count("copy", image.ctypes.data) == 1
            assert [event for event in world.names("allocate") if event[1] == "pinned"] in (
                [],
                [("allocate", "pinned", 16 * 24)],
            )
        # a part of it that is not in C order has to be staged
        part = image[:, :, ::2]
        np.testing.assert_array_equal(backend.infer({"image": part})["labels"], part[..., 0])
        del world.memory[image.ctypes.data]


# The cache of compiled kernels


def cache_of(path):
    return path.with_name(path.name + ".cache")


def test_compiled_kernels_are_kept_next_to_the_engine(world, plan):
    path = plan("tensorrt-rtx")
    TensorRTBackend(path).close()
    assert cache_of(path).read_bytes() == b"compiled"
    cache_of(path).write_bytes(b"of a previous run")
    stamp = cache_of(path).stat().st_mtime_ns
    TensorRTBackend(path).close()
    assert cache_of(path).read_bytes() == b"of a previous run"
    assert cache_of(path).stat().st_mtime_ns == stamp


def test_what_a_new_shape_has_had_compiled_is_saved_at_once_and_again(world, plan):
    path = plan("tensorrt-rtx")
    now = [0.0]
    with TensorRTBackend(path) as backend:
        backend._cache._clock = lambda: now[0]

        def saved(seconds, size=16):
            now[0] = seconds
            world.events.clear()
            check(backend, photo(size, size))
            return world.count("serialize")

        assert saved(100) == 1  # compiled just now
        assert cache_of(path).read_bytes() == b"compiled"
        assert saved(104) == 0
        assert saved(105) == 1  # what was compiled in the background since
        assert saved(106, size=32) == 0  # another shape: soon, but not for each of many
        assert saved(111, size=24) == 1
        assert saved(120) == 1
        assert saved(130) == 0
        assert saved(171) == 1
        assert saved(1000) == 0


def test_a_cache_that_does_not_fit_is_a_warning_and_is_replaced(world, plan, caplog):
    path = plan("tensorrt-rtx")
    cache_of(path).write_bytes(b"of another GPU")
    world.cache_accepted = False
    backend = TensorRTBackend(path)
    assert (
        "net.engine.cache belongs to another GPU, driver or library, or is corrupt (no reason given); kernels are"
        in caplog.text
    )
    check(backend, photo())
    backend.close()
    assert cache_of(path).read_bytes() == b"compiled"


def test_a_cache_that_cannot_be_written_is_a_warning(world, plan, caplog):
    path = plan("tensorrt-rtx")
    cache_of(path).mkdir()
    TensorRTBackend(path).close()
    assert "net.engine.cache; got a folder" in caplog.text
    assert "the next process compiles the kernels again" in caplog.text


def test_other_libraries_write_no_cache(world, plan):
    path = plan("tensorrt")
    TensorRTBackend(path).close()
    assert not cache_of(path).exists()
