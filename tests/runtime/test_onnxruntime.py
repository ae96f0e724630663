import os
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.artifacts.sidecar import ENGINE_KEY
from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.errors import ArtifactError, ClosedError, DependencyError, InputError, UsageError
from fcn_deploy.installation import install_command
from fcn_deploy.runtime import Segmenter, cpu
from fcn_deploy.runtime import onnxruntime as module
from fcn_deploy.runtime.backend import check_feeds
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.runtime.open import open_backend
from fcn_deploy.runtime.options import RuntimeOptions

DYNAMIC = (TensorSpec("image", "float32", ("batch", 3, "height", "width")),)
FIXED = (TensorSpec("image", "uint8", (1, 8, 12, 3)),)


def zeros(*shape, dtype=np.float32):
    return {"image": np.zeros(shape, dtype)}


@pytest.fixture
def tiny(tiny_net):
    return tiny_net(np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3], [1, 1, 1]]))


@pytest.fixture
def session_options(monkeypatch):
    """The options and providers that sessions are opened with, in order."""
    opened = []
    real = ort.InferenceSession

    def recording(model, options, providers):
        opened.append((options, providers))
        return real(model, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", recording)
    return opened


# check_feeds


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (4, 3, 33, 65)])
def test_arrays_that_fit_are_accepted(shape):
    check_feeds(DYNAMIC, zeros(*shape))
    check_feeds(FIXED, zeros(1, 8, 12, 3, dtype=np.uint8))
    check_feeds((), {})


@pytest.mark.parametrize(
    "feeds", [{}, {"img": np.zeros((1, 3, 4, 4), np.float32)}, {**zeros(1, 3, 4, 4), "extra": np.zeros(1)}]
)
def test_missing_and_unknown_inputs_are_named(feeds):
    with pytest.raises(InputError, match=rf"wrong inputs; got {re.escape(str(sorted(feeds)))}; expected \['image'\]"):
        check_feeds(DYNAMIC, feeds)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int32])
def test_a_wrong_dtype_is_named(dtype):
    wanted = rf"input image has the wrong dtype; got {np.dtype(dtype)}; expected float32"
    with pytest.raises(InputError, match=wanted):
        check_feeds(DYNAMIC, zeros(1, 3, 4, 4, dtype=dtype))


@pytest.mark.parametrize(
    "shape", [(3, 4, 4), (1, 1, 3, 4, 4), (1, 4, 4, 3), (1, 1, 4, 4), (0, 3, 4, 4), (1, 3, 0, 4), (1, 3, 4, 0), ()]
)
def test_a_wrong_shape_is_named(shape):
    wanted = "input image has the wrong shape; got {}; expected image: float32 [batch, 3, height, width]"
    with pytest.raises(InputError, match=re.escape(wanted.format(list(shape)))) as caught:
        check_feeds(DYNAMIC, zeros(*shape))
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("shape", [(2, 8, 12, 3), (1, 9, 12, 3), (1, 8, 13, 3)])
def test_another_size_on_a_fixed_axis_is_refused(shape):
    with pytest.raises(InputError, match="wrong shape"):
        check_feeds(FIXED, zeros(*shape, dtype=np.uint8))


def test_the_input_that_does_not_fit_is_the_one_named():
    inputs = (TensorSpec("left", "float32", ("n",)), TensorSpec("right", "float32", ("n",)))
    with pytest.raises(InputError, match="input right"):
        check_feeds(inputs, {"left": np.zeros(1, np.float32), "right": np.zeros((1, 1), np.float32)})


# open_backend


def test_a_file_is_opened_by_its_suffix(tiny):
    backend = open_backend(str(tiny), RuntimeOptions(threads=1))
    assert isinstance(backend, OnnxRuntimeBackend)
    assert backend.name == "onnxruntime"


def test_a_missing_file_is_an_input_error_whatever_its_suffix(tmp_path):
    for name in ("a.onnx", "a.engine"):
        with pytest.raises(InputError, match=re.escape(f"cannot read {tmp_path / name}; got no such file")):
            open_backend(tmp_path / name)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ONNX.txt", ""])
def test_a_file_with_another_suffix_is_refused(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"content")
    with pytest.raises(InputError, match=r"ends in \.onnx, \.engine or \.plan") as caught:
        open_backend(path)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"allow_host_code": True}, "`allow_host_code` is for TensorRT plans"),
        ({"device": 1}, '`device` is for TensorRT plans, and for ONNX with `provider="cuda"`'),
        ({"tile": (64, 64)}, "`tile` is for a Segmenter, not for a backend"),
    ],
)
def test_an_option_that_a_model_does_not_take_is_a_usage_error(tiny, options, words):
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        open_backend(tiny, RuntimeOptions(**options))
    assert caught.value.exit_code == 2


# OnnxRuntimeBackend


def test_inputs_outputs_and_metadata_are_the_models(tiny):
    backend = OnnxRuntimeBackend(tiny)
    assert backend.inputs == (TensorSpec("image", "float32", ("batch", 3, "height", "width")),)
    assert backend.outputs == (TensorSpec("logits", "float32", ("batch", 4, "height", "width")),)
    assert METADATA_KEY in backend.metadata
    assert backend.version == ort.__version__


def test_an_image_engine_takes_and_gives_bytes(engine):
    backend = OnnxRuntimeBackend(engine("image"))
    assert str(backend.inputs[0]) == "image: uint8 [batch, height, width, 3]"
    assert str(backend.outputs[0]) == "labels: uint8 [batch, height, width]"


def test_a_file_and_its_bytes_give_the_same(tiny):
    feeds = {"image": np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)}
    logits = OnnxRuntimeBackend(tiny).infer(feeds)["logits"]
    np.testing.assert_array_equal(OnnxRuntimeBackend(tiny.read_bytes()).infer(feeds)["logits"], logits)
    np.testing.assert_allclose(logits[:, 3], feeds["image"].sum(1), rtol=1e-5, atol=1e-6)


def test_feeds_are_checked_and_need_not_be_contiguous(tiny):
    backend = OnnxRuntimeBackend(tiny)
    with pytest.raises(InputError, match="wrong dtype"):
        backend.infer(zeros(1, 3, 4, 4, dtype=np.float64))
    image = np.random.default_rng(0).normal(size=(5, 7, 3, 2)).astype(np.float32).transpose(3, 2, 0, 1)[..., ::-1]
    wanted = backend.infer({"image": np.ascontiguousarray(image)})["logits"]
    np.testing.assert_array_equal(backend.infer({"image": image})["logits"], wanted)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_reaches_the_session(tiny, session_options, threads):
    OnnxRuntimeBackend(tiny, threads=threads)
    (options, providers), *_ = session_options
    assert options.intra_op_num_threads == threads
    assert providers == ["CPUExecutionProvider"]


def test_without_a_number_of_threads_the_library_chooses(tiny, session_options):
    OnnxRuntimeBackend(tiny)
    assert session_options[0][0].intra_op_num_threads == ort.SessionOptions().intra_op_num_threads


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_a_usage_error(tiny, threads):
    with pytest.raises(UsageError, match=f"bad number of threads; got {threads!r}; expected 1 or more"):
        OnnxRuntimeBackend(tiny, threads=threads)


def test_simulated_quantisation_is_an_option_of_the_session(tiny, session_options):
    OnnxRuntimeBackend(tiny, simulate_quantization=True)
    assert session_options[0][0].get_session_config_entry("session.disable_quant_qdq") == "1"


def test_simulated_quantisation_gives_nearly_what_the_integer_kernels_give(engine):
    path = engine("tensor", "int8")
    random = np.random.default_rng(0)
    feeds = {"image": random.normal(size=(1, 3, 40, 56)).astype(np.float32)}
    fused = OnnxRuntimeBackend(path).infer(feeds)["logits"]
    simulated = OnnxRuntimeBackend(path, simulate_quantization=True).infer(feeds)["logits"]
    assert np.abs(fused - simulated).max() < 0.02 * np.ptp(simulated)


@pytest.mark.parametrize("activations", [np.uint8, np.int8])
def test_weights_of_all_8_bits_saturate_on_no_cpu(activations):
    """The worst case of kernels that add two products in 16 bits: on x86 without VNNI it gave a half, or nothing."""
    channels, limit = 64, int(np.iinfo(activations).max)
    constants = {
        "w": np.full((4, channels, 3, 3), 127, np.int8),
        "w_scale": np.ones(4, np.float32),
        "w_zero": np.zeros(4, np.int8),
        "x_scale": np.array(1, np.float32),
        "y_scale": np.array(127 * channels * 9, np.float32),
        "zero": np.array(0, activations),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "x_scale", "zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "x_scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_f"], axis=0),
        helper.make_node("Conv", ["x", "w_f"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "y_scale", "zero"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "y_scale", "zero"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, 5, 5])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4, 3, 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    image = np.full((1, channels, 5, 5), limit, np.float32)
    found = OnnxRuntimeBackend(model.SerializeToString()).infer({"image": image})["logits"]
    np.testing.assert_array_equal(found, np.full((1, 4, 3, 3), limit * 127 * channels * 9, np.float32))


@pytest.mark.parametrize("answer", [False, None])
def test_without_vnni_weights_are_made_unsigned(tiny, session_options, exact_8_bits, answer):
    exact_8_bits(answer)
    OnnxRuntimeBackend(tiny)
    assert session_options[0][0].get_session_config_entry("session.x64quantprecision") == "1"


def test_with_vnni_weights_stay_signed_because_their_kernels_are_faster(tiny, session_options, exact_8_bits):
    exact_8_bits(True)
    OnnxRuntimeBackend(tiny)
    with pytest.raises(RuntimeError, match="x64quantprecision"):
        session_options[0][0].get_session_config_entry("session.x64quantprecision")


def test_fast_math_is_an_error_where_it_does_nothing(tiny, monkeypatch):
    monkeypatch.setattr(cpu, "is_arm64", lambda: False)
    with pytest.raises(DependencyError, match="no fast math for this machine"):
        Segmenter(tiny, fast_math=True)


def test_fast_math_is_a_session_option(tiny, session_options, monkeypatch):
    """Off Arm, ONNX Runtime takes it and does nothing; what it does on Arm is for tools/arm_check.sh."""
    monkeypatch.setattr(module, "require_fast_math", lambda: None)
    image = np.ones((1, 3, 2, 2), np.float32)
    plain = OnnxRuntimeBackend(tiny).infer({"image": image})
    fast = open_backend(tiny, RuntimeOptions(fast_math=True)).infer({"image": image})
    assert session_options[1][0].get_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16") == "1"
    for name, array in plain.items():
        np.testing.assert_array_equal(fast[name], array)


def test_the_optimised_graph_is_written_to_optimized_path(tiny, tmp_path):
    target = tmp_path / "optimized.onnx"
    OnnxRuntimeBackend(tiny, optimized_path=target)
    assert OnnxRuntimeBackend(target).outputs == OnnxRuntimeBackend(tiny).outputs


def test_an_unknown_provider_is_a_usage_error(tiny):
    with pytest.raises(UsageError, match="unknown provider; got 'tensorrt'; expected cpu or cuda"):
        OnnxRuntimeBackend(tiny, provider="tensorrt")


def test_a_device_on_the_cpu_is_a_usage_error(tiny):
    with pytest.raises(UsageError, match='`device` is for TensorRT plans, and for ONNX with `provider="cuda"`'):
        OnnxRuntimeBackend(tiny, device=0)


def test_a_provider_that_is_not_installed_is_a_dependency_error(tiny, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["AzureExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(DependencyError, match="no cuda provider; got Azure") as caught:
        OnnxRuntimeBackend(tiny, provider="cuda")
    assert str(caught.value).endswith(install_command("gpu"))
    assert caught.value.exit_code == 7


def test_a_provider_that_does_not_start_is_a_dependency_error(tiny, monkeypatch):
    # What ONNX Runtime does without a driver: it prints a warning and opens the session on the CPU.
    opened = []

    def falling_back(model, options, providers):
        opened.extend(providers)
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", falling_back)
    with pytest.raises(DependencyError, match="did not start its cuda provider; got a session on CPU") as caught:
        OnnxRuntimeBackend(tiny, provider="cuda", device=1)
    assert caught.value.exit_code == 7
    assert opened == [("CUDAExecutionProvider", {"device_id": "1"})]


def cuda_session(monkeypatch, on_cpu=(), metadata=None):
    """Fakes an ONNX Runtime whose CUDA provider starts and leaves the operators `on_cpu` to the CPU."""
    groups = [
        SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=lambda: [SimpleNamespace(op_type="MaxPool")]),
        SimpleNamespace(
            ep_name="CPUExecutionProvider", get_nodes=lambda: [SimpleNamespace(op_type=kind) for kind in on_cpu]
        ),
    ]
    asked = []

    def assignment():
        assert asked[0].get_session_config_entry("session.record_ep_graph_assignment_info") == "1"
        if on_cpu is None:
            raise AttributeError("no such method")
        return groups

    def session(model, options, providers):
        asked.append(options)
        return SimpleNamespace(
            get_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
            disable_fallback=lambda: None,
            get_provider_graph_assignment_info=assignment,
            get_inputs=list,
            get_outputs=list,
            get_modelmeta=lambda: SimpleNamespace(custom_metadata_map=metadata or {}),
        )

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: sys.stdout.write("Failed to load a library\n"), raising=False)
    monkeypatch.setattr(ort, "InferenceSession", session)


def test_what_preloading_prints_does_not_reach_stdout(tiny, monkeypatch, capsys):
    cuda_session(monkeypatch)
    OnnxRuntimeBackend(tiny, provider="cuda")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["int8-generic", "int8-vnni"])
def test_an_int8_engine_for_cpus_is_refused_on_cuda(tiny, monkeypatch, kind):
    cuda_session(monkeypatch, metadata={ENGINE_KEY: kind})
    with pytest.raises(
        ArtifactError, match="INT8 engine for CPUs: the CUDA provider would compute its layers in float"
    ) as caught:
        OnnxRuntimeBackend(tiny, provider="cuda")
    assert caught.value.exit_code == 5


def test_convolutions_on_the_cpu_are_refused_on_cuda_and_other_operators_are_logged(tiny, monkeypatch, caplog):
    cuda_session(monkeypatch, on_cpu=("Shape", "ConvTranspose"))
    with pytest.raises(ArtifactError, match=r"would run convolutions of .* on the CPU; got ConvTranspose, Shape"):
        OnnxRuntimeBackend(tiny, provider="cuda")
    cuda_session(monkeypatch, on_cpu=("Shape", "ArgMax"), metadata={ENGINE_KEY: "fp32-generic"})
    with caplog.at_level("INFO", "fcn_deploy"):
        OnnxRuntimeBackend(tiny, provider="cuda")
    assert "no CUDA kernels for these operators and runs them on the CPU: ArgMax, Shape" in caplog.text


def test_an_older_onnx_runtime_that_does_not_say_where_nodes_run_is_accepted(tiny, monkeypatch):
    cuda_session(monkeypatch, on_cpu=None)
    OnnxRuntimeBackend(tiny, provider="cuda")


@pytest.mark.skipif(
    tuple(map(int, ort.__version__.split(".")[:2])) < (1, 24), reason="ONNX Runtime says it from version 1.24 on"
)
def test_this_onnx_runtime_says_where_nodes_run(tiny):
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(str(tiny), options, providers=["CPUExecutionProvider"])
    (group,) = session.get_provider_graph_assignment_info()
    assert (group.ep_name, [node.op_type for node in group.get_nodes()]) == ("CPUExecutionProvider", ["Conv"])


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(range(256)) * 40])
def test_a_corrupt_file_is_an_artifact_error_that_names_it(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=re.escape(f"{ort.__version__} cannot load {path}; got ")) as caught:
        OnnxRuntimeBackend(path)
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_an_artifact_error(tiny, share):
    content = tiny.read_bytes()
    tiny.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ArtifactError, match="cannot load"):
        OnnxRuntimeBackend(tiny)


def test_a_closed_backend_refuses_to_run(tiny):
    with OnnxRuntimeBackend(tiny) as backend:
        backend.infer(zeros(1, 3, 2, 2))
    backend.close()
    with pytest.raises(ClosedError, match="this backend is closed; fix: open the engine again"):
        backend.infer(zeros(1, 3, 2, 2))


def test_a_call_that_runs_during_close_finishes(tiny, monkeypatch):
    backend = OnnxRuntimeBackend(tiny)
    started, closed = threading.Event(), threading.Event()
    real = check_feeds

    def waiting(inputs, feeds):
        real(inputs, feeds)
        started.set()
        assert closed.wait(10)

    monkeypatch.setattr("fcn_deploy.runtime.onnxruntime.check_feeds", waiting)
    results = []
    caller = threading.Thread(target=lambda: results.append(backend.infer(zeros(1, 3, 2, 2))))
    caller.start()
    assert started.wait(10)
    backend.close()
    closed.set()
    caller.join(10)
    assert results[0]["logits"].shape == (1, 4, 2, 2)


@pytest.mark.parametrize(("asked", "stays"), [(None, "1"), ("0", "0")])
def test_onnx_runtime_is_told_to_keep_its_telemetry_off_unless_the_user_said_otherwise(asked, stays):
    code = "import os, fcn_deploy.runtime.onnxruntime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    environment |= {} if asked is None else {"ORT_DISABLE_TELEMETRY": asked}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == stays


def test_an_inference_writes_nothing_under_the_home_folder(exported, tmp_path):
    code = (
        "import sys, numpy as np\nfrom fcn_deploy.runtime import Segmenter\n"
        "Segmenter(sys.argv[1])(np.zeros((32, 48, 3), np.uint8))"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_"))}
    command = [sys.executable, "-c", code, str(exported("fcn8s"))]
    subprocess.run(command, env={**environment, "HOME": str(home)}, check=True)
    assert not list(home.rglob("*"))
