"""Python and the command line are the same thing: every option is a parameter, with the same name and default."""

import ast
import inspect
import os
import textwrap
from pathlib import Path

import click
import numpy as np
import pytest

import fcn_deploy
from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.cli.app import _COMMANDS, cli
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.evaluation.gates import Criterion, GateOption
from fcn_deploy.graph.model import load_exported
from fcn_deploy.workflows.benchmarking import benchmark
from fcn_deploy.workflows.exporting import export
from fcn_deploy.workflows.models import exported_model
from fcn_deploy.workflows.net_options import NetOptions
from fcn_deploy.workflows.parameters import (
    channel_order,
    criterion,
    gate_options,
    image_folder,
    image_shape,
    image_size,
    input_file,
    output_file,
    padding,
    percentiles,
    triple,
)
from fcn_deploy.workflows.references import is_checkpoint, opened

FUNCTIONS = {command: module.replace("-", "_") for command, module in _COMMANDS.items()}
# What only a terminal has: where to print, and what the caller of a function listens with.
OF_THE_TERMINAL = {"as_json", "debug", "help"}
OF_PYTHON = {"progress", "on_loaded"}


def options_of(command):
    return {
        parameter.name: parameter
        for parameter in cli.get_command(None, command).params
        if parameter.name not in OF_THE_TERMINAL
    }


@pytest.mark.parametrize("command", FUNCTIONS)
def test_every_option_is_a_parameter_and_every_parameter_an_option(command):
    parameters = inspect.signature(getattr(fcn_deploy, FUNCTIONS[command])).parameters
    assert set(options_of(command)) == set(parameters) - OF_PYTHON


@pytest.mark.parametrize("command", FUNCTIONS)
def test_no_parameter_is_taken_and_then_forgotten(command):
    function = getattr(fcn_deploy, FUNCTIONS[command])
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert set(inspect.signature(function).parameters) <= read


def optional(command):
    """The options that may be left out; --fp32, --fp16 and --int8 are values of one parameter."""
    return [
        option
        for option in options_of(command).values()
        if isinstance(option, click.Option) and not option.required and not (option.multiple and option.is_flag)
    ]


@pytest.mark.parametrize("command", [command for command in FUNCTIONS if optional(command)])
def test_options_and_parameters_have_the_same_defaults(command):
    parameters = inspect.signature(getattr(fcn_deploy, FUNCTIONS[command])).parameters
    for option in optional(command):
        default = parameters[option.name].default
        nothing = default in ((), inspect.Parameter.empty)
        assert _default(option) == (None if nothing else default), option.name


def _default(option):
    """What the command passes on if the option is not given."""
    value = option.to_info_dict()["default"]
    if value is None or option.is_flag:
        return value
    value = option.type_cast_value(click.Context(click.Command("command")), value)
    if option.name == "save":  # several kinds in one option, and several options
        value = tuple(kind for group in value for kind in group)
    return None if value == () else value


def test_shapes_and_sizes_are_taken_as_text_or_as_they_are():
    assert image_shape("4x512x256") == ImageShape(4, 512, 256)
    assert image_shape(ImageShape(1, 2, 3)) == ImageShape(1, 2, 3)
    assert image_size("360x480", "tile") == image_size((360, 480), "tile") == (360, 480)
    assert image_size(None, "tile") is None
    for bad in ("4x5x6", "360", "0x4", "a", 5, (1.5, 2), (0, 3), [2]):
        with pytest.raises(UsageError, match="`tile`"):
            image_size(bad, "tile")
    for bad in ("4x5x6x7", 5, (1.5, 2), (0, 3), [2]):
        with pytest.raises(UsageError, match="`shape`"):
            image_shape(bad)


def test_folders_are_taken_as_text_as_paths_and_opened(photo_folder):
    folder = image_folder(str(photo_folder), max_images=3)
    assert folder == image_folder(Path(photo_folder), max_images=3)
    assert image_folder(folder) == folder
    assert len(image_folder(folder, max_images=2)) == 2
    assert image_folder(folder, size=(8, 9)).size == (8, 9)
    with pytest.raises(UsageError, match="max_images"):
        image_folder(photo_folder, max_images=0)


def test_a_pipe_is_a_file_to_read_and_a_folder_is_not(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert input_file(tmp_path / "pipe") == tmp_path / "pipe"
    for path, got in ((tmp_path, "a folder"), (tmp_path / "none", "no such file"), (tmp_path / ("n" * 300), "long")):
        with pytest.raises(InputError, match=got):
            input_file(path)


def test_the_channel_order_is_taken_however_it_is_written_and_nothing_else():
    assert channel_order("bgr") == channel_order("BGR") == "BGR"
    assert channel_order("rgb") == "RGB"
    assert channel_order(None) is None
    with pytest.raises(UsageError, match=r"`color`.*'grb'"):
        channel_order("grb")


def test_three_numbers_are_one_for_each_channel():
    assert triple((1, 2, np.float32(3)), "mean") == (1.0, 2.0, 3.0)
    for bad in ((1, 2), 5, ("a", 2, 3), (1, 2, 3, 4)):
        with pytest.raises(UsageError, match="bad `mean`"):
            triple(bad, "mean")


def test_gates_are_taken_one_or_several_as_text_or_as_objects():
    gate = Criterion("agreement", 0.98)
    assert gate_options("agreement>=98%") == gate_options([gate]) == gate_options(gate) == [GateOption(gate)]
    assert len(gate_options(("agreement>=98%", GateOption(gate)))) == 2
    with pytest.raises(UsageError, match="bad `gate`"):
        gate_options([5])
    with pytest.raises(UsageError, match="bad `accuracy_budget`"):
        criterion(0.98, "accuracy_budget")


def test_percentiles_may_be_one():
    assert percentiles(99) == (99,)
    assert percentiles([90, 99.9]) == (90, 99.9)


def test_a_loaded_model_has_its_spec(exported):
    model = load_exported(exported("fcn8s"))
    assert exported_model(model) is model
    with pytest.raises(UsageError, match="`spec_from`"):
        exported_model(model, model)


def test_export_refuses_an_unknown_channel_order_before_it_reads(tmp_path):
    with pytest.raises(UsageError, match="`color`"):
        export(tmp_path / "none.pth", color="BGRA")


def test_a_path_may_name_a_checkpoint_too():
    assert is_checkpoint("pytorch:fcn8s.pth")
    assert is_checkpoint(Path("pytorch:fcn8s.pth"))
    assert not is_checkpoint("fcn8s.onnx")


def test_an_engine_that_is_named_twice_is_opened_once(exported):
    with opened([str(exported("fcn8s")), exported("fcn8s")]) as (first, second):
        assert first is second


def test_benchmark_needs_engines():
    with pytest.raises(UsageError, match="needs engines"):
        benchmark([], shape="64x64")


def test_padding_needs_a_divisor_and_a_net_of_ones_own():
    assert padding("nets:UNet", 8, None) == Padding(8, "edge")
    assert padding("nets:UNet", None, None) is None
    with pytest.raises(UsageError, match="`size_divisor` with it"):
        padding("nets:UNet", None, "zero")
    with pytest.raises(UsageError, match="`model`"):
        padding(None, 8, None)


def test_an_output_is_checked_before_work_starts(tmp_path):
    model = tmp_path / "net.onnx"
    model.write_bytes(b"")
    assert output_file(None, (".onnx",)) is None
    assert output_file(str(tmp_path / "new.onnx"), (".onnx",), reads=(model, None, 3)) == tmp_path / "new.onnx"
    with pytest.raises(UsageError, match="suffix"):
        output_file(tmp_path / "net.txt", (".onnx",))
    with pytest.raises(UsageError, match="replace an input"):
        output_file(model, (".onnx",), reads=(str(model),))
    with pytest.raises(InputError, match="no folder"):
        output_file(tmp_path / "none" / "net.onnx", (".onnx",))


def test_a_pipe_of_class_names_is_not_read_before_it_is_needed(tmp_path):
    os.mkfifo(tmp_path / "names")
    assert NetOptions(class_names=tmp_path / "names").spec.class_names == tmp_path / "names"
