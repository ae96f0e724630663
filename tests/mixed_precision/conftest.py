"""Mixers of slim random nets."""

from collections.abc import Callable

import pytest

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.mixed_precision.candidates import Mixer


@pytest.fixture(scope="session")
def mixer(exported, ranges_file) -> Callable[..., Mixer]:
    """Makes the mixer of a variant, for a target."""

    def make(variant="fcn8s", target="onnxruntime", **config):
        ranges = Ranges.load(ranges_file(variant))
        return Mixer(exported(variant).read_bytes(), ranges, BuildConfig("int8", **config), target)

    return make
