"""Candidates of slim random nets."""

from collections.abc import Callable

import pytest

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.graph.model import ExportedModel, load_exported
from fcn_deploy.mixed_precision.candidates import Candidates


@pytest.fixture(scope="session")
def model(exported) -> Callable[[str], ExportedModel]:
    """Reads the exported net of a variant, once a session."""
    read = {}

    def load(variant="fcn8s"):
        if variant not in read:
            read[variant] = load_exported(exported(variant))
        return read[variant]

    return load


@pytest.fixture(scope="session")
def candidates(model, ranges_file) -> Callable[..., Candidates]:
    """Makes the candidates of a variant, for a target."""

    def make(variant="fcn8s", target="onnxruntime", **config):
        return Candidates(model(variant), Ranges.load(ranges_file(variant)), BuildConfig("int8", **config), target)

    return make
