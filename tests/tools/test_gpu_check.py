"""The script for machines with a GPU, tried on one without: its CPU side, and what it makes of refusals."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import gpu_check
import gpu_libraries
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.errors import DependencyError
from fcn_deploy.evaluation.latency import BenchmarkConfig
from fcn_deploy.evaluation.parity import Output
from fcn_deploy.runtime.tensorrt.flavor import find_flavor
from gpu_cases import Case, Net


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("smoke") / "gpu.json"
    result = CliRunner().invoke(gpu_check.main, ["--smoke", "-o", str(path)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return json.loads(path.read_text()), result.stderr


@pytest.mark.slow
def test_the_cpu_side_runs_and_agrees_with_the_reference(report):
    facts, _ = report
    assert facts["smoke"]
    assert facts["host"]["torch"]["version"]
    assert {"cpu", "nvidia", "libraries"} <= facts["host"].keys()
    (net,) = facts["nets"]
    rows = {row["name"]: row for row in net["cases"] if row["backend"] in ("pytorch", "onnxruntime")}
    assert set(rows) == {
        "pytorch, fp32, labels",
        "pytorch, fp32, logits",
        "pytorch, fp32, labels, channels_last",
        "onnxruntime, fp32, labels",
        "onnxruntime, fp32, logits",
        "onnxruntime, int8, labels",
        "onnxruntime, int8, logits",
    }
    for row in rows.values():
        assert row["refused"] is None
        assert row["parity"]["agreement"] > (0.97 if row["precision"] == "int8" else 0.999)
        assert row["end_to_end_ms"]["median"] > 0
        assert row["resident_ms"] is None
        assert not row["on_gpu"]
    assert rows["pytorch, fp32, logits"]["parity"]["error"] < 1e-4
    int8, fp32 = (rows[f"onnxruntime, {precision}, labels"]["engine_bytes"] for precision in ("int8", "fp32"))
    assert int8 < 0.35 * fp32


@pytest.mark.slow
def test_the_table_has_a_row_for_what_ran(report):
    _, said = report
    assert "| onnxruntime, int8, labels | 9" in said


@pytest.mark.slow
@pytest.mark.skipif(not find_flavor("tensorrt-rtx").installed, reason="TensorRT-RTX is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_plans_are_built_and_refused_for_want_of_a_driver(report):
    facts, said = report
    rows = [row for row in facts["nets"][0]["cases"] if row["backend"] == "tensorrt-rtx"]
    assert len(rows) == 12
    for row in rows:
        assert row["engine_bytes"] > 0
        assert row["refused"].startswith("DependencyError: no NVIDIA driver was found")
        assert row["traceback"] is None
    # A graph or none is a matter of running: the two share an engine.
    assert sum(row["build_s"] is not None for row in rows) == 6
    sizes = {row["precision"]: row["engine_bytes"] for row in rows}
    assert max(sizes["int8"], sizes["fp16"]) < sizes["fp32"]
    assert said.count("refused: ") == 1


class Fake:
    """A runner that answers as the reference does, until it does not."""

    def __init__(self, failing_from=100):
        self.calls, self.failing_from, self.closed = 0, failing_from, False

    def prepare(self, images):
        return images

    def infer(self, feed):
        self.calls += 1
        if self.calls >= self.failing_from:
            raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")
        return np.zeros(feed.shape[:3], np.uint8)

    def resident(self, feed):
        return None

    def close(self):
        self.closed = True


def check(*cases):
    shape, images = ImageShape(1, 4, 5), np.zeros((2, 4, 5, 3), np.uint8)
    expected = [Output(np.zeros((4, 5), np.uint8))] * 2
    net = Net("fake", shape, None, None, b"", None, images, expected, None)
    rows, saved = [], []
    gpu_libraries._check(net, cases, BenchmarkConfig(0, 0, 5), rows, lambda: saved.append(len(rows)))
    return rows, saved


def test_a_refusal_is_put_down_in_the_librarys_words_and_the_rest_goes_on():
    def refuse():
        raise DependencyError("no NVIDIA driver was found", got="cuInit answered 999")

    fine = Fake()
    rows, saved = check(
        Case("tensorrt-rtx", "fp16", "labels", "", False, refuse),
        Case("pytorch", "fp32", "labels", "", False, lambda: fine),
    )
    assert rows[0]["refused"] == "DependencyError: no NVIDIA driver was found; got cuInit answered 999"
    assert rows[1]["refused"] is None
    assert rows[1]["parity"]["agreement"] == 1
    assert rows[1]["end_to_end_ms"]["rounds"] == 5
    assert fine.closed
    assert saved == [1, 2, 2]  # before each case, so that a crash leaves the ones before it, and at the end


def test_what_fails_while_it_is_timed_is_a_refusal_too():
    broken, fine = Fake(failing_from=5), Fake()
    rows, _ = check(
        Case("a", "fp32", "labels", "", False, lambda: broken), Case("b", "fp32", "labels", "", False, lambda: fine)
    )
    assert rows[0]["refused"].startswith("RuntimeError: CUDA error: an illegal memory access")
    assert "in infer" in rows[0]["traceback"]
    assert rows[0]["end_to_end_ms"] is None
    assert rows[1]["end_to_end_ms"]["rounds"] == 5
    assert broken.calls == 5  # no further call once it has failed
    assert broken.closed


def test_what_cannot_be_closed_does_not_keep_the_findings_back():
    class Stuck(Fake):
        def close(self):
            raise RuntimeError("context is destroyed")

    fine = Fake()
    rows, saved = check(
        Case("a", "fp32", "labels", "", False, lambda: fine), Case("b", "fp32", "labels", "", False, Stuck)
    )
    assert rows[1]["refused"] == "RuntimeError: context is destroyed"
    assert fine.closed
    assert saved[-1] == 2


def test_wrong_labels_show():
    class Wrong(Fake):
        def infer(self, feed):
            return super().infer(feed) + np.uint8(1)

    rows, _ = check(Case("a", "fp32", "labels", "", False, Wrong))
    assert rows[0]["parity"]["agreement"] == 0


def test_nothing_on_a_gpu_is_exit_7(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_libraries, "make_net", lambda *arguments, **options: check_net())
    monkeypatch.setattr(gpu_libraries, "cases", lambda *arguments: [Case("a", "fp32", "labels", "", False, Fake)])

    def check_net():
        images = np.zeros((1, 4, 5, 3), np.uint8)
        spec = type("Spec", (), {"width": 1.0})
        return Net("f", ImageShape(1, 4, 5), None, spec, b"", None, images, [Output(images[0, ..., 0])], None)

    arguments = [
        "--net",
        "demo",
        "--warmup",
        "0",
        "--duration",
        "0",
        "--iterations",
        "1",
        "-o",
        str(tmp_path / "gpu.json"),
    ]
    result = CliRunner().invoke(gpu_check.main, arguments)
    assert result.exit_code == 7, result.stderr
    assert result.stderr.splitlines()[-1] == "nothing ran on a GPU"
    assert json.loads((tmp_path / "gpu.json").read_text())["nets"][0]["cases"][0]["refused"] is None
