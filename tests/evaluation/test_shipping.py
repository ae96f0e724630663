"""Which engine to ship: the fastest that meets its gate, and FP32 unless another is faster beyond doubt."""

import numpy as np
import pytest

from fcn_deploy.evaluation.latency import Timing
from fcn_deploy.evaluation.shipping import Contender, recommend

FP32 = (10, 10, 10, 10, 10, 10, 10, 10)


def contender(precision, latencies, passed=True):
    return Contender(f"net.{precision}.onnx", precision, passed, Timing(precision, np.array(latencies, float)))


def recommended(fp32=FP32, **others):
    return recommend([contender("fp32", fp32), *(contender(name, times) for name, times in others.items())])


def test_the_fastest_is_shipped_with_its_speedup():
    found = recommended(bf16=[6] * 8, int8=[4, 4, 4, 4, 4, 4, 6, 6])
    assert str(found) == (
        "ship net.int8.onnx: INT8 meets its gate and is faster than FP32 (0.40x the time, quartiles 0.40-0.45)"
    )
    assert found.engine == "net.int8.onnx"
    assert found.speedup.median == 2.5
    assert found.speedup.low <= found.speedup.median <= found.speedup.high


@pytest.mark.parametrize(
    ("int8", "reason"),
    [
        (
            [10.2, 10.2, 10.2, 10.8, 10.8, 11.5, 11.5, 11.5],
            "INT8 is slower than FP32 here (1.08x the time, quartiles 1.02-1.15)",
        ),
        ([9, 9, 9, 9, 10, 11, 11, 11], "INT8 is not faster than FP32 here (0.95x the time, quartiles 0.90-1.10)"),
        ([10] * 8, "INT8 is not faster than FP32 here (1.00x the time, quartiles 1.00-1.00)"),
    ],
)
def test_int8_that_is_not_faster_is_said_and_fp32_is_shipped(int8, reason):
    found = recommended(int8=int8)
    assert (found.engine, found.reason) == ("net.fp32.onnx", reason)
    assert found.speedup.median == 1


def test_int8_has_to_be_faster_than_bf16_too():
    found = recommended(bf16=[6] * 8, int8=[6, 6, 6, 6.3, 6.3, 5.7, 5.7, 6])
    assert found.engine == "net.bf16.onnx"
    assert found.reason.startswith("BF16 meets its gate and is faster than FP32 (0.60x the time")
    assert "; INT8 is not faster than BF16 here (1.00x" in found.reason


def test_what_is_slower_than_fp32_is_in_nobodys_way():
    found = recommended(bf16=[12] * 8, int8=[4] * 8)
    assert found.engine == "net.int8.onnx"
    assert "BF16" not in found.reason


def test_an_engine_that_missed_its_gate_is_not_shipped_however_fast():
    found = recommend([contender("fp32", FP32), contender("bf16", FP32), contender("int8", [1] * 8, passed=False)])
    assert (found.engine, found.speedup) == (None, None)
    assert str(found) == (
        "no engine to ship: INT8 missed its gate; FP32 and BF16 met their gates, and can be deployed without it"
    )
    assert str(recommend([contender("fp32", FP32, passed=False)])) == "no engine to ship: FP32 missed its gate"


def test_of_a_few_rounds_nothing_is_concluded():
    found = recommended(fp32=[10, 10, 10, 10], int8=[1, 1, 1, 1])
    assert found.engine is None
    assert str(found).startswith("not known which engine to ship: each was timed 4 times")


def test_a_single_engine_is_the_one_to_ship():
    found = recommended()
    assert str(found) == "ship net.fp32.onnx: it is the only engine"
