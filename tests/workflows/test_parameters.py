"""Python and the command line are the same thing: every option is a parameter, with the same name and default."""

import inspect
from pathlib import Path

import click
import pytest

import fcn_deploy
from fcn_deploy.artifacts.geometry import Padding
from fcn_deploy.artifacts.shapes import ImageShape
from fcn_deploy.cli.app import _COMMANDS, cli
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.workflows.parameters import image_folder, image_shape, image_size, output_file, padding

FUNCTIONS = {command: module.replace("-", "_") for command, module in _COMMANDS.items()}
# What only a terminal has: where to print, and what the caller of a function listens with.
OF_THE_TERMINAL = {"as_json", "debug", "help"}
OF_PYTHON = {"progress"}


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
def test_options_and_parameters_have_the_same_defaults(command):
    parameters = inspect.signature(getattr(fcn_deploy, FUNCTIONS[command])).parameters
    command = cli.get_command(None, command)
    context = click.Context(command)
    compared = 0
    for option in command.params:
        if option.name in OF_THE_TERMINAL or not isinstance(option, click.Option) or option.required:
            continue
        if option.multiple and option.is_flag:
            continue  # --fp32, --fp16, --int8: values of one parameter
        compared += 1
        default = parameters[option.name].default
        assert _value(option, context) == (None if default in ((), inspect.Parameter.empty) else default), option.name
    assert compared or not options_of(command.name)


def _value(option, context):
    """What the command passes on if the option is not given; nothing and None are the same."""
    value = option.get_default(context)
    value = option.type_cast_value(context, value) if value is not None else None
    return None if value in ((), None) else value


def test_shapes_and_sizes_are_taken_as_text_or_as_they_are():
    assert image_shape("4x512x256") == ImageShape(4, 512, 256)
    assert image_shape(ImageShape(1, 2, 3)) == ImageShape(1, 2, 3)
    assert image_size("360x480") == image_size((360, 480)) == (360, 480)
    assert image_size(None) is None
    for bad in ("4x5x6", "360", "0x4", "a"):
        with pytest.raises(UsageError):
            image_size(bad)


def test_folders_are_taken_as_text_as_paths_and_opened(photo_folder):
    folder = image_folder(str(photo_folder), max_images=3)
    assert folder == image_folder(Path(photo_folder), max_images=3)
    assert image_folder(folder) is folder
    with pytest.raises(UsageError, match="max_images"):
        image_folder(photo_folder, max_images=0)


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
