import io
import json
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from fcn_deploy.artifacts.conditions import Conditions
from fcn_deploy.artifacts.gate import Gate
from fcn_deploy.artifacts.measures import Drop, GroundTruth, Parity, Ratio
from fcn_deploy.artifacts.recommendation import Recommendation
from fcn_deploy.artifacts.summary import EngineSummary, Summary
from fcn_deploy.artifacts.tuning import Tuning
from fcn_deploy.reporting.tables import summary_table, tuning_table


def _engine(precision, size, agreement, drop, median, vs_pytorch, vs_fp32, passed):
    return EngineSummary(
        file=f"fcn16s.{precision}.onnx",
        bytes=size,
        precision=precision,
        gate=Gate(agreement, passed),
        failures=() if passed else ("agreement 95.000%, required 97%",),
        parity=Parity(100, agreement),
        miou=None if drop is None else 81.8182,
        miou_drop=drop,
        median_ms=median,
        percentiles_ms={},
        vs_pytorch=vs_pytorch,
        vs_fp32=vs_fp32,
    )


def _summary(labelled):
    drops = (Drop(0.0, 0.0, 0.0), Drop(10.25, -0.5, 11.75)) if labelled else (None, None)
    ratios = (Ratio(0.2, 0.2, 0.2), Ratio(1.0, 1.0, 1.0)), (Ratio(0.1, 0.075, 0.125), Ratio(0.5, 0.375, 0.625))
    return Summary(
        model="fcn16s.onnx",
        variant="fcn16s",
        export_error=1e-6,
        calibration={"observed": 1000, "judged": 1000},
        shape=(1024, 2048),
        pytorch_ms=10000.0,
        pytorch_miou=81.82 if labelled else None,
        engines=(
            _engine("fp32", 537_000_000, 1.0, drops[0], 2000.0, *ratios[0], True),
            _engine("int8", 134_500_000, 0.95, drops[1], 1000.0, *ratios[1], False),
        ),
    )


def _lines(summary):
    out = io.StringIO()
    Console(file=out, width=80).print(summary_table(summary))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_largest_figures_of_a_summary_stand_whole_at_80_columns(labelled):
    lines = _lines(_summary(labelled))
    assert lines[0] == "fcn16s, gates on 1000 images; image to labels at 1024x2048"
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[1:]]
    found = {name: cells for name, *cells in rows}
    assert found["MB"] == ["-", "537.0", "134.5"]
    assert found["agreement"] == ["reference", "100.000%", "95.000%"]
    assert found["ms, median"] == ["10000.0", "2000.0", "1000.0"]
    assert found["time / PyTorch"] == ["1", "0.20x, 5.0x faster", "0.10x, 10.0x faster"]
    assert found["time / FP32"] == ["-", "1.00x, as fast", "0.50x, 2.0x faster"]
    assert found["gate"] == ["-", "passed", "FAILED"]
    assert ("mIoU" in found) == labelled
    if labelled:
        assert found["mIoU"] == ["81.82", "81.82", "81.82"]
        assert found["mIoU drop"] == ["-", "+0.00", "+10.25"]
        assert found["95% interval"] == ["+0.00 to +0.00", "-0.50 to +11.75"]


def test_few_rounds_have_no_quartiles_and_it_says_so():
    conditions = Conditions(2, 3.5, 2, "a CPU")
    few = Ratio(0.5, math.nan, math.nan)
    summary = _summary(False)
    engines = tuple(replace(engine, vs_pytorch=few, vs_fp32=few) for engine in summary.engines)
    lines = _lines(replace(summary, engines=engines, conditions=conditions, rounds=3))
    assert not any("nan" in line for line in lines)
    assert "times: 3 rounds (quartiles take 5), 2 threads, load 3.50 before the start, 2" in " ".join(lines)
    assert "0.50x, 2.0x faster" in " ".join(lines)


@pytest.mark.parametrize(
    ("median", "words"),
    [
        (1 / 3, "3.0x faster"),
        (1.2, "1.2x slower"),
        (0.97, "1.03x faster"),
        (1.04, "1.04x slower"),
        (1.0, "as fast"),
        (0.996, "as fast"),
        (math.nan, "not measured"),
    ],
)
def test_a_ratio_is_said_in_words(median, words):
    assert Ratio(median, median, median).in_words == words


def test_what_to_ship_is_the_first_line_under_the_table():
    ship = Recommendation("fcn16s.fp32.onnx", "INT8 is slower than FP32 here", Ratio(1.0, 1.0, 1.0))
    lines = _lines(replace(_summary(False), ship=ship, conditions=Conditions(2, 3.5, 2, "a CPU"), rounds=10))
    place = lines.index("ship fcn16s.fp32.onnx: INT8 is slower than FP32 here")
    assert lines[place + 1].startswith("times: 10 rounds")


def test_a_tuning_is_a_table_of_its_candidates():
    ratios = {"onnxruntime INT8": Ratio(1.5, 1.25, 1.75), "openvino INT8": Ratio(1.0, 1.0, 1.0)}
    times = {"onnxruntime INT8": 30.0, "openvino INT8": 20.0, "of an earlier version": 25.0}
    tuning = Tuning("1x64x96", 1, "a CPU", times, "openvino INT8", ratios)
    out = io.StringIO()
    Console(file=out, width=80).print(tuning_table(tuning))
    rows = [re.split(r"\s{2,}", line.strip()) for line in out.getvalue().splitlines()]
    assert rows[0][0] == "image to labels at 1x64x96, 1 thread"
    assert ["candidate", "median ms", "/ openvino INT8"] in rows
    assert ["onnxruntime INT8", "30.0", "1.50x, 1.5x slower"] in rows
    assert ["1.25-1.75"] in rows
    assert ["of an earlier version", "25.0", "-"] in rows


def test_a_summary_read_from_its_json_has_the_same_table():
    summary = replace(_summary(True), conditions=Conditions(None, 0.25, 8, "a CPU"), rounds=10)
    assert _lines(Summary.from_json(json.loads(json.dumps(summary.to_json())))) == _lines(summary)


def test_what_makes_figures_worthless_stands_under_the_table():
    summary = _summary(True)
    one_label, nan = Parity(1, 1.0, only_label=0), Parity(1, math.nan, math.inf, engine_not_finite=1)
    fp32, int8 = summary.engines
    summary = replace(
        summary,
        engines=(replace(fp32, parity=one_label), replace(int8, parity=nan, miou_drop=Drop(0.5, math.nan, math.nan))),
        truth=GroundTruth(100, 0.25, (255,), ("[b]tram",), {}, 20.0),
        warnings=("the normalisation was assumed",),
    )
    text = "\n".join(_lines(summary))
    assert re.search(r"agreement +reference +one label +NaN or inf", text)
    assert "one image: none" in text
    assert "ground truth: 25.0% of the pixels ignored (255); never occurring: [b]tram" in " ".join(text.split())
    assert "warning: the normalisation was assumed" in text
    assert max(map(len, text.splitlines())) <= 80
