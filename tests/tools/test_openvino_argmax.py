"""Times of labels by how logits lie, of a slim net in OpenVINO."""

import pytest
from click.testing import CliRunner

import openvino_argmax
from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.graph.model import load_exported
from fcn_deploy.mixed_precision.kernel_tuning import noise
from tests.support.openvino import needs_openvino


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_each_layout_is_timed_and_gives_the_same_labels(exported, ranges_file, precision):
    model, ranges = load_exported(exported("fcn8s")), Ranges.load(ranges_file("fcn8s"))
    images = noise(ImageShape(1, 48, 64))
    times = openvino_argmax.time_layouts(model, ranges, images, {"precision": precision}, threads=1, runs=2)
    assert set(times) == {"first", "last", "flat"}
    assert all(milliseconds > 0 for milliseconds in times.values())


@needs_openvino
def test_the_table_has_a_row_for_each_precision(exported, photo_folder):
    given = (exported("fcn8s"), "--calib-data", photo_folder, "--shape", "48x64", "--threads", 1, "--runs", 1)
    result = CliRunner().invoke(openvino_argmax.main, [str(each) for each in given], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if line.startswith("| fcn8s")]
    assert [row.split("|")[2].strip() for row in rows] == ["FP32", "BF16", "INT8", "INT8 over BF16"]
    assert all(row.count("|") == 6 for row in rows)
