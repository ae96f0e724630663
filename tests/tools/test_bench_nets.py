"""The table of what INT8 costs on several nets, beside others."""

import json

import pytest
from click.testing import CliRunner

import bench_nets


def run(*arguments):
    return CliRunner().invoke(bench_nets.main, [str(each) for each in arguments], catch_exceptions=False)


def judged(agreement=0.99, drop=0.1, ratio=None):
    row = {
        "refused": None,
        "fidelity": {"agreement": [agreement, agreement - 0.01, agreement + 0.01], "drop": [drop, 0, 1]},
    }
    return row if ratio is None else row | {"whole": {"ratio": ratio, "ratio_low": 0.4, "ratio_high": 0.6}}


def test_labels_are_those_of_the_first_run_and_times_those_of_the_last():
    names = ("onnxruntime-static", "ours-int8", "modelopt-onnxruntime", "ours-tensorrt-simulated")
    first = {name: judged(ratio=0.9) for name in names[:2]}
    first |= {names[2]: {"refused": "No module named 'modelopt'"}, names[3]: judged(0.98, -0.5)}
    last = {name: judged(0.5, ratio=0.5) for name in names[:2]} | {name: first[name] for name in names[2:]}
    runs = [{"contestants": {"onnxruntime": judged(), **first}}, {"contestants": {"onnxruntime": judged(), **last}}]
    assert list(bench_nets.table_rows("Net", runs)) == [
        "| Net | ONNX Runtime, `quantize_static` | 99.00% (98.00 to 100.00) | 0.10 (0.00 to 1.00) | 0.50 (0.40-0.60) |",
        "|  | ModelOpt, ONNX Runtime | not measured: No module named 'modelopt' |  |  |",
        "|  | this project, ONNX Runtime | 99.00% (98.00 to 100.00) | 0.10 (0.00 to 1.00) | 0.50 (0.40-0.60) |",
        "|  | this project, TensorRT simulated | 98.00% (97.00 to 99.00) | -0.50 (0.00 to 1.00) |  |",
    ]


@pytest.mark.parametrize(
    ("given", "reason"),
    [((), "--camvid does not say where it is"), (("--camvid", "{}/absent"), "there is no {}/absent/fcn8s_camvid.pth")],
)
def test_a_net_that_is_not_here_is_left_out_with_a_reason(tmp_path, given, reason):
    words = (word.format(tmp_path) for word in given)
    result = run("--net", "Fcn8s", "-o", tmp_path / "table.md", *words)
    assert result.exit_code == 1
    assert f"FCN-8s is left out: {reason.format(tmp_path)}" in result.output
    assert "no net was measured" in result.output
    assert not (tmp_path / "table.md").exists()


def test_every_row_is_of_a_contestant():
    from contestants import ALL

    assert set(bench_nets.ROWS) <= set(ALL)


@pytest.mark.slow
def test_a_net_of_the_tests_is_measured_from_its_weights_to_the_table(tmp_path, monkeypatch):
    for name in ("_CALIBRATION", "_EVALUATION"):
        monkeypatch.setattr(bench_nets, name, getattr(bench_nets, name)[:3])
    table = tmp_path / "table.md"
    result = run("--net", "FastScnn", "--rounds", 5, "--duration", 0, "--threads", 1, "--max-images", 2, "-o", table)
    assert result.exit_code == 0, result.output
    assert "| Fast-SCNN | ONNX Runtime, `quantize_static` |" in table.read_text()
    assert result.output.endswith(table.read_text() + "\n")
    report = json.loads((tmp_path / "FastScnn.json").read_text())
    assert [each["shape"] for each in report["runs"]] == ["1x192x256", "1x512x512"]
    assert report["runs"][0]["contestants"]["ours-int8"]["fidelity"]["images"] == 2
