"""The Backend of OpenVINO: what it computes, what it refuses, and that calls from several threads are safe."""

import re
import threading
import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from fcn_deploy.artifacts.shapes import TensorSpec
from fcn_deploy.artifacts.sidecar import ENGINE_KEY, OPENVINO_KEY
from fcn_deploy.artifacts.spec import METADATA_KEY
from fcn_deploy.errors import ArtifactError, ClosedError, DependencyError, InputError, UsageError
from fcn_deploy.runtime import cpu
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend
from fcn_deploy.runtime.openvino import library
from fcn_deploy.runtime.openvino.backend import OpenVinoBackend
from tests.support.openvino import needs_bf16, needs_openvino

pytestmark = needs_openvino


@pytest.fixture
def tiny(tiny_net):
    return tiny_net(np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3], [1, 1, 1]]))


@pytest.fixture
def stating(tiny):
    """Writes the net with more metadata, as an engine has it."""

    def write(**metadata):
        model = onnx.load(tiny)
        helper.set_model_props(model, {"fcn_deploy." + name: value for name, value in metadata.items()})
        onnx.save(model, tiny)
        return tiny

    return write


@pytest.fixture
def properties(monkeypatch):
    """What models are compiled with, in order."""
    given = []
    real = library.core()

    class Recording:
        def __getattr__(self, name):
            return getattr(real, name)

        def compile_model(self, model, device, options):
            given.append((device, options))
            return real.compile_model(model, device, options)

    monkeypatch.setattr(library, "core", Recording)
    return given


def image(*shape, seed=0):
    return {"image": np.random.default_rng(seed).normal(size=shape).astype(np.float32)}


def test_inputs_outputs_and_metadata_are_the_models(tiny):
    with OpenVinoBackend(tiny) as backend:
        assert backend.name == "openvino"
        assert backend.inputs == (TensorSpec("image", "float32", ("?", 3, "?", "?")),)
        assert backend.outputs == (TensorSpec("logits", "float32", ("?", 4, "?", "?")),)
        with OnnxRuntimeBackend(tiny) as other:
            assert backend.metadata == other.metadata
        assert METADATA_KEY in backend.metadata


def test_fixed_sizes_are_kept(tiny_net):
    with OpenVinoBackend(tiny_net(np.eye(3), shape=(2, 3, 8, 12))) as backend:
        assert backend.inputs[0].shape == (2, 3, 8, 12)
        with pytest.raises(InputError, match="wrong shape"):
            backend.infer(image(1, 3, 8, 12))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(17, 50), st.integers(17, 50))
def test_any_size_gives_what_onnxruntime_gives(exported, batch, height, width):
    # Below 17 a map of one pixel is smaller than a pool: engines are built with padding for that.
    feeds = image(batch, 3, height, width, seed=height * width)
    ours, reference = _opened(exported("fcn8s"))
    found, wanted = ours.infer(feeds)["logits"], reference.infer(feeds)["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.ptp(wanted))


_OPEN = {}


def _opened(path):
    if path not in _OPEN:
        _OPEN[path] = OpenVinoBackend(path, threads=1), OnnxRuntimeBackend(path, threads=1)
    return _OPEN[path]


def test_a_file_and_its_bytes_give_the_same_and_the_result_is_the_callers(tiny):
    feeds = image(2, 3, 5, 7)
    with OpenVinoBackend(tiny) as file, OpenVinoBackend(tiny.read_bytes()) as content:
        first = file.infer(feeds)["logits"]
        kept = first.copy()
        np.testing.assert_array_equal(content.infer(feeds)["logits"], first)
        file.infer(image(2, 3, 5, 7, seed=1))
        np.testing.assert_array_equal(first, kept)
        first[:] = 0  # writable, and not what the library reads


def test_feeds_are_checked_and_need_not_be_contiguous(tiny):
    with OpenVinoBackend(tiny) as backend:
        with pytest.raises(InputError, match="wrong dtype"):
            backend.infer({"image": np.zeros((1, 3, 4, 4))})
        strided = np.random.default_rng(0).normal(size=(5, 7, 3, 2)).astype(np.float32).transpose(3, 2, 0, 1)[..., ::-1]
        wanted = backend.infer({"image": np.ascontiguousarray(strided)})["logits"]
        np.testing.assert_array_equal(backend.infer({"image": strided})["logits"], wanted)


def test_it_computes_in_float32_though_the_library_would_choose_bfloat16(tiny, properties):
    with OpenVinoBackend(tiny, threads=1) as backend:
        assert {node.precision for node in backend.executed() if node.kind == "Convolution"} == {"f32"}
    ((device, options),) = properties
    assert device == "CPU"
    assert options["INFERENCE_PRECISION_HINT"] == "f32"
    assert (options["INFERENCE_NUM_THREADS"], options["NUM_STREAMS"]) == (1, 1)
    assert options["ENABLE_CPU_PINNING"] is False


@needs_bf16
def test_an_engine_that_was_built_for_bfloat16_runs_in_it(stating):
    with OpenVinoBackend(stating(engine="bf16-generic", openvino="bf16")) as backend:
        assert {node.precision for node in backend.executed() if node.kind == "Convolution"} == {"bf16"}


def test_an_engine_in_bfloat16_is_refused_without_it(stating, monkeypatch):
    monkeypatch.setattr(cpu, "has_bf16", lambda: False)
    with pytest.raises(ArtifactError, match="computes in BF16; got a CPU without BF16 instructions"):
        OpenVinoBackend(stating(engine="bf16-generic", openvino="bf16"))


def test_an_engine_for_onnxruntime_is_refused_and_one_for_openvino_by_onnxruntime(stating):
    path = stating(engine="fp32-generic")
    with pytest.raises(ArtifactError, match="built for another library; got an engine for ONNX Runtime") as caught:
        OpenVinoBackend(path)
    assert caught.value.exit_code == 5
    path = stating(engine="fp32-generic", openvino="fp32")
    assert {ENGINE_KEY, OPENVINO_KEY} <= OpenVinoBackend(path).metadata.keys()
    with pytest.raises(ArtifactError, match="built for another library; got an engine for OpenVINO") as caught:
        OnnxRuntimeBackend(path)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("content", [b"", b"junk", b"\x08\x0a\x12\x07pytorch"])
def test_a_file_that_is_no_model_is_an_artifact_error(tmp_path, content, capfd):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=re.escape(f"cannot load {path}; got ")) as caught:
        OpenVinoBackend(path)
    assert caught.value.exit_code == 5
    assert "src/" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_what_it_cannot_run_is_named_with_the_shape_and_the_cause(exported):
    with OpenVinoBackend(exported("fcn8s")) as backend:
        message = r"cannot run the model on image \[1, 3, 1, 1\]; got Kernel .* larger than the data shape"
        with pytest.raises(ArtifactError, match=message):
            backend.infer(image(1, 3, 1, 1))
        assert backend.infer(image(1, 3, 33, 33))["logits"].shape == (1, 5, 33, 33)


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_a_bad_number_of_threads_is_a_usage_error(tiny, threads):
    with pytest.raises(UsageError, match="bad number of threads"):
        OpenVinoBackend(tiny, threads=threads)


def test_threads_are_of_the_cpu_and_other_devices_must_be_there(tiny):
    with pytest.raises(UsageError, match="`threads` are of the CPU"):
        OpenVinoBackend(tiny, threads=2, device_name="GPU")
    with pytest.raises(UsageError, match="unknown `device_name`"):
        OpenVinoBackend(tiny, device_name="AUTO")
    with pytest.raises(DependencyError, match=r"finds no GPU\.7"):
        OpenVinoBackend(tiny, device_name="GPU.7")


def test_after_close_every_call_raises(tiny):
    backend = OpenVinoBackend(tiny)
    backend.close()
    backend.close()
    for call in (lambda: backend.infer(image(1, 3, 4, 4)), backend.executed):
        with pytest.raises(ClosedError, match="this backend is closed"):
            call()


def test_calls_from_several_threads_on_several_backends_give_the_same(tiny, tiny_net):
    other = tiny_net(np.ones((2, 3)), file="other.onnx")
    feeds = [image(1, 3, 8 + index, 9 + 2 * index, seed=index) for index in range(6)]
    with OpenVinoBackend(tiny, threads=1) as first, OpenVinoBackend(other, threads=2) as second:
        wanted = {backend: [backend.infer(each)["logits"] for each in feeds] for backend in (first, second)}
        wrong = []

        def work(backend):
            for _ in range(20):
                found = [backend.infer(each)["logits"] for each in feeds]
                wrong.extend(not np.array_equal(*pair) for pair in zip(found, wanted[backend], strict=True))

        workers = [threading.Thread(target=work, args=(backend,)) for backend in (first, second) * 2]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(wrong) == 4 * 20 * 6
    assert not any(wrong)


def test_a_call_that_runs_while_the_backend_is_closed_ends_well_and_the_next_raises(tiny):
    backend, ended = OpenVinoBackend(tiny, threads=1), []

    def work():
        try:
            while True:
                assert backend.infer(image(1, 3, 64, 64))["logits"].shape == (1, 4, 64, 64)
        except ClosedError:
            ended.append(True)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    time.sleep(0.1)
    backend.close()
    for worker in workers:
        worker.join()
    assert ended == [True] * 3
