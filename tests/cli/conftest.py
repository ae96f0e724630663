"""What the tests of the commands share."""

import pytest

from fcn_deploy.cli.app import run


@pytest.fixture
def call(capsys):
    """Runs a command line in process, checks its exit code, and returns what it said."""

    def call(*arguments, code=0):
        assert run([str(argument) for argument in arguments]) == code, capsys.readouterr().err
        return capsys.readouterr()

    return call
