"""Plans on a real GPU, against ONNX Runtime on the CPU; tests/runtime/tensorrt/test_backend.py has a fake GPU."""

import importlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.artifacts.sidecar import load_sidecar
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.tensorrt.config import TensorRTConfig
from fcn_deploy.engines.tensorrt.profiles import ImageProfile
from fcn_deploy.errors import ArtifactError, ClosedError, DependencyError, InputError
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.tensorrt.backend import TensorRTBackend
from fcn_deploy.runtime.tensorrt.driver import find_gpus
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS
from fcn_deploy.runtime.tensorrt.kernel_cache import kernel_cache_path
from tests.support import tiny_plans
from tests.support.building import build

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def gpu():
    try:
        return find_gpus()[0]
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=[name for name, flavor in FLAVORS.items() if flavor.builds])
def flavor(request, gpu):
    found = FLAVORS[request.param]
    if not found.installed:
        pytest.skip(f"{found.name} is not installed")
    return found


@pytest.fixture(scope="module")
def plan(flavor, gpu, tmp_path_factory):
    """Builds plans for this GPU, once each; skips with the library's words where it does not support the GPU."""
    folder = tmp_path_factory.mktemp("plans")
    module = importlib.import_module(flavor.module)

    def build(io="image"):
        path = folder / f"{io}.engine"
        if not path.exists():
            tiny_plans.build(module, flavor.name, path, io, (gpu.compute_capability,))
        return path

    try:
        TensorRTBackend(build()).close()
    except ArtifactError as error:
        if not flavor.compute_capabilities or gpu.compute_capability in flavor.compute_capabilities:
            raise
        pytest.skip(f"{gpu.name} ({gpu.compute_capability}) is not one of {flavor.name}'s GPUs: {error}")
    return build


def photo(height=16, width=24, batch=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def assert_labels(labels, image):
    expected = tiny_plans.reference("image", image)
    assert labels.shape == expected.shape
    assert labels.dtype == np.uint8
    assert np.mean(labels == expected) > 0.99


@pytest.mark.parametrize("shape", [(8, 8, 1), (33, 64, 4), (64, 9, 2), (100, 128, 8)])
def test_labels_are_those_of_onnx_runtime(plan, shape):
    with Segmenter(plan()) as segmenter:
        for seed in range(4):
            image = photo(*shape, seed=seed)
            assert_labels(segmenter(image), image)


def test_logits_are_those_of_onnx_runtime(plan):
    image = np.random.default_rng(0).normal(size=(2, 3, 40, 50)).astype(np.float32)
    expected = tiny_plans.reference("tensor", image)
    with TensorRTBackend(plan("tensor")) as backend:
        for _ in range(3):
            logits = backend.infer({"image": image})["logits"]
            assert np.abs(logits - expected).max() < 5e-3 * np.ptp(expected)  # convolutions may be in TF32


@pytest.mark.parametrize("graphs", [0, 1, 4])
def test_shapes_alternate_and_memory_grows(plan, graphs):
    with TensorRTBackend(plan(), graphs=graphs) as backend:
        for seed, size in enumerate((16, 8, 16, 16, 40, 16, 8, 40, 128, 16, 16)):
            image = photo(size, size, seed=seed)
            assert_labels(backend.infer({"image": image})["labels"], image)


def test_threads_run_at_the_same_time(plan):
    with Segmenter(plan()) as segmenter:

        def call(seed):
            image = photo(*((8, 8), (16, 16), (24, 8), (64, 64))[seed % 4], seed=seed)
            assert_labels(segmenter(image), image)

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(call, range(60)))


def test_arrays_of_torch_stay_on_the_gpu(plan):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("torch has no CUDA here")
    backend = TensorRTBackend(plan())
    image = photo(32, 48)
    for _ in range(3):
        doubled = torch.from_numpy(image).cuda() // 2 * 2  # work that torch has only queued yet
        assert_labels(backend.infer({"image": doubled})["labels"], image // 2 * 2)
        labels = torch.empty((1, 32, 48), dtype=torch.uint8, device="cuda")
        backend.infer_device({"image": doubled}, {"labels": labels})
        assert_labels(labels.cpu().numpy(), image // 2 * 2)
    with pytest.raises(InputError, match="not contiguous"):
        backend.infer({"image": doubled.transpose(1, 2)})
    backend.close()


def test_shapes_outside_the_profiles_are_stated(plan):
    backend = TensorRTBackend(plan())
    with pytest.raises(InputError, match="1x8x8x3 to 4x64x64x3"):
        backend.infer({"image": photo(7, 8)})
    image = photo()
    assert_labels(backend.infer({"image": image})["labels"], image)
    backend.close()
    with pytest.raises(ClosedError):
        backend.infer({"image": image})


def test_a_truncated_plan_is_refused(flavor, plan, tmp_path):
    path = tmp_path / "cut.engine"
    content = plan().read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match="cannot load"):
        TensorRTBackend(path, flavor=flavor.name)


def test_what_was_compiled_is_kept_and_taken_again(flavor, plan, caplog):
    if not flavor.runtime_config:
        pytest.skip(f"{flavor.name} compiles when it builds")
    path = plan()
    for _ in range(2):
        with Segmenter(path) as segmenter:
            segmenter(photo())
    assert kernel_cache_path(path).stat().st_size > 0
    assert "compiled again" not in caplog.text
    kernel_cache_path(path).write_bytes(b"not a cache")
    with Segmenter(path) as segmenter:
        segmenter(photo())
    assert "compiled again" in caplog.text


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_inspector_tells_what_an_engine_runs_in(flavor, gpu, plan, exported, ranges_file, tmp_path, precision):
    """As tests/engines/tensorrt/test_achieved.py on a real GPU; `plan` skips if the library does not support it."""
    options = TensorRTConfig(
        (ImageProfile(*[ImageShape(1, 64, 64)] * 3),),
        compute_capabilities=(gpu.compute_capability,) if flavor.compute_capabilities else (),
    )
    built = build(
        *(exported("fcn8s"), BuildConfig(precision), ranges_file("fcn8s")), backend=flavor.name, options=options
    )
    path = tmp_path / "net.engine"
    built.save(path)
    found = load_sidecar(path).precision
    assert set(found.achieved_layers) == set(found.layers)
    if flavor.runtime_config:  # what is decided at load the plan may not tell
        return
    assert found.achieved in (precision, "partial")
    assert any(found.achieved_layers[name] == precision for name, asked in found.layers.items() if asked == precision)


def test_onnx_runtimes_cuda_provider_is_used_or_refused(gpu, tmp_path):
    path = tiny_plans.write_onnx(tmp_path / "tiny.onnx", "tensor")
    try:
        segmenter = Segmenter(path, provider="cuda", device=0)
    except DependencyError as error:
        pytest.skip(str(error))
    with segmenter, Segmenter(path) as reference:
        image = photo(32, 48)[0]
        assert np.mean(segmenter(image) == reference(image)) > 0.99
