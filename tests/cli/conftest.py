import pytest

from fcn_deploy.cli.app import run


@pytest.fixture
def predict(exported, capsys):
    """Runs `predict` with the exported FCN-8s, checks its exit code, and returns what it said."""

    def predict(*arguments, code=0):
        command = ["predict", exported("fcn8s"), *arguments]
        assert run([str(argument) for argument in command]) == code, capsys.readouterr().err
        return capsys.readouterr()

    return predict
