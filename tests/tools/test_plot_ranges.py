"""The plot of what calibration saw: of the tensors asked for, with the range of every method."""

import pytest
from click.testing import CliRunner

import plot_ranges
from fcn_deploy.quantization.methods import METHODS


def plot(*arguments):
    return CliRunner().invoke(plot_ranges.main, [str(argument) for argument in arguments])


def test_it_lists_the_tensors_and_draws_those_asked_for(ranges_file, tmp_path):
    ranges, path = ranges_file("fcn8s"), tmp_path / "ranges.svg"
    listed = [line.split(": ")[0] for line in plot(ranges).stdout.splitlines()]
    assert "conv3_1/Relu" in listed
    result = plot(ranges, "--tensor", "image", "--tensor", "conv3_1/Relu", "-o", path)
    assert result.exit_code == 0, result.output
    drawing = path.read_text()
    for text in ("image", "conv3_1/Relu", *(f"{method}: " for method in METHODS)):
        assert f"<!-- {text}" in drawing  # how matplotlib comments what it draws as outlines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--tensor", "conv9_9", "-o", "x.svg"), "conv9_9"), (("--tensor", "image"), "--output")],
)
def test_what_cannot_be_drawn_is_said(ranges_file, arguments, message):
    result = plot(ranges_file("fcn8s"), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
