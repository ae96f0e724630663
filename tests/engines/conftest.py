"""Exported models and their ranges, each read once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.graph.model import ExportedModel, load_exported


@pytest.fixture(scope="session")
def model(exported) -> Callable[[str], ExportedModel]:
    """Reads the exported net of a variant."""
    read = {}

    def load(variant="fcn8s"):
        if variant not in read:
            read[variant] = load_exported(exported(variant))
        return read[variant]

    return load


@pytest.fixture(scope="session")
def ranges(ranges_file) -> Callable[[str], Ranges]:
    """Reads the ranges of the exported net of a variant."""
    read = {}

    def load(variant="fcn8s"):
        if variant not in read:
            read[variant] = Ranges.load(ranges_file(variant))
        return read[variant]

    return load


@pytest.fixture(scope="session")
def prequantized(quantized) -> Callable[[str], ExportedModel]:
    """Reads the FCN-8s as ONNX Runtime's quantiser leaves it, in a scheme of quantized_nets."""
    read = {}

    def load(scheme):
        if scheme not in read:
            read[scheme] = load_exported(quantized(scheme))
        return read[scheme]

    return load
