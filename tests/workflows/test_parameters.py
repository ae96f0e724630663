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
