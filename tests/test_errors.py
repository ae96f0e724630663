import inspect

import pytest

import fcn_deploy
from fcn_deploy import errors
from fcn_deploy.errors import (
    ArtifactError,
    ClosedError,
    DependencyError,
    FcnDeployError,
    GateError,
    InputError,
    PrecisionError,
    UsageError,
    WrongIoError,
)

CODES = {
    FcnDeployError: 1,
    UsageError: 2,
    WrongIoError: 2,
    ClosedError: 2,
    GateError: 3,
    PrecisionError: 4,
    ArtifactError: 5,
    InputError: 6,
    DependencyError: 7,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_every_error_has_the_exit_code_of_the_contract(kind, code):
    assert kind.exit_code == kind("what").exit_code == code


def test_no_error_is_left_out():
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__}
    assert kinds == set(CODES)


@pytest.mark.parametrize("kind", CODES)
def test_every_error_can_be_caught_by_the_base_class(kind):
    assert issubclass(kind, FcnDeployError)
    assert kind.__doc__


def test_the_base_class_is_public():
    assert fcn_deploy.FcnDeployError is FcnDeployError


@pytest.mark.parametrize(
    ("kind", "builtin"), [(InputError, ValueError), (WrongIoError, TypeError), (ClosedError, RuntimeError)]
)
def test_some_are_what_python_would_raise(kind, builtin):
    with pytest.raises(builtin, match="what"):
        raise kind("what")


@pytest.mark.parametrize("kind", CODES)
def test_a_message_says_what_got_expected_and_the_fix(kind):
    error = kind("tensor image is too small", got=[1, 2], expected="3 or more", fix="pad it")
    assert str(error) == "tensor image is too small; got [1, 2]; expected 3 or more; fix: pad it"
    assert (error.what, error.got, error.expected, error.fix) == (
        "tensor image is too small",
        [1, 2],
        "3 or more",
        "pad it",
    )


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "what"),
        ({"got": 0}, "what; got 0"),
        ({"got": ""}, "what; got "),
        ({"expected": False}, "what; expected False"),
        ({"fix": "mend it"}, "what; fix: mend it"),
        ({"fix": "mend it", "got": 1}, "what; got 1; fix: mend it"),
    ],
)
def test_what_is_not_known_is_left_out(parts, message):
    assert str(InputError("what", **parts)) == message


def test_the_parts_are_named():
    with pytest.raises(TypeError):
        InputError("what", "got")


def test_a_gate_error_carries_the_report():
    error = GateError("missed")
    assert error.report is None
    error.report = {"agreement": 0.5}
    assert GateError("another").report is None
