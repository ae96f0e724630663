"""Which of INT8 and float is faster, as one sentence."""

from dataclasses import replace

import numpy as np
import pytest

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.sidecar import EngineFile, Sidecar, Source
from fcn_deploy.artifacts.spec import ModelSpec
from fcn_deploy.evaluation.latency import Timing
from fcn_deploy.reporting.siblings import find_siblings

FP16 = Sidecar(
    engine=EngineFile("net.fp16.engine", "ab" * 32, 7),
    backend="tensorrt",
    library="10.3.0",
    io="image",
    precision=Precision("fp16", "fp16"),
    spec=ModelSpec("fcn8s", 8, 1.0, 2, ("sky", "building"), default_palette(2)),
    source=Source("cd" * 32),
    target={"cpu": "generic", "gpu": ["8.7"]},
)
INT8 = replace(FP16, precision=Precision("int8", "fp16"), source=Source("cd" * 32, "ef" * 32))

OF_H = "the time of h ("


def measured(int8, fp16, first=INT8, second=FP16):
    timings = [Timing("i", np.array(int8, float)), Timing("h", np.array(fp16, float)), Timing("pt", np.ones(len(int8)))]
    return find_siblings({"i": first, "h": second, "pt": None}, timings)


@pytest.mark.parametrize(
    ("int8", "faster", "text"),
    [
        (
            [6, 6, 6, 6, 6.5, 7.5, 8],
            "int8",
            f"INT8 is faster than FP16: i takes 0.60x {OF_H}1.7x faster; quartiles 0.60-0.70).",
        ),
        ([12] * 5, "fp16", f"INT8 is slower than FP16: i takes 1.20x {OF_H}1.2x slower; quartiles 1.20-1.20)."),
        (
            [9, 9.5, 10, 10.5, 11],
            None,
            f"Neither INT8 nor FP16 is faster: i takes 1.00x {OF_H}as fast; quartiles 0.95-1.05).",
        ),
        (
            [6, 6, 6, 6],
            None,
            f"Too few rounds to tell whether INT8 or FP16 is faster: i takes 0.60x {OF_H}1.7x faster; no quartiles).",
        ),
    ],
)
def test_one_sentence_says_which_of_two_siblings_is_faster_and_by_how_much(int8, faster, text):
    (pair,) = measured(int8, [10] * len(int8))
    assert (pair.faster, str(pair)) == (faster, text)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_int8_that_is_slower_than_another_float_is_said_too(precision):
    (pair,) = measured([12] * 5, [10] * 5, second=replace(FP16, precision=Precision(precision, precision)))
    assert pair.faster == precision
    assert str(pair).startswith(f"INT8 is slower than {precision.upper()}: i takes 1.20x the time of h (1.2x slower;")
    assert pair.to_json() == {
        "int8": "i",
        precision: "h",
        "ratio": {"median": 1.2, "low": 1.2, "high": 1.2},
        "faster": precision,
        "text": str(pair),
    }


@pytest.mark.parametrize(
    "other",
    [
        replace(FP16, source=Source("00" * 32)),
        replace(FP16, backend="tensorrt-rtx"),
        INT8,
        None,
    ],
)
def test_engines_that_differ_in_more_than_int8_and_float_are_not_siblings(other):
    assert measured([6] * 4, [10] * 4, second=other) == []
