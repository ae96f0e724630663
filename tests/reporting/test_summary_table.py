import io
import re

import numpy as np
import pytest
from rich.console import Console

from fcn_deploy.evaluation.accuracy import Drop
from fcn_deploy.evaluation.comparison import Assessment
from fcn_deploy.evaluation.gates import judge
from fcn_deploy.evaluation.latency import Timing
from fcn_deploy.evaluation.parity import Parity
from fcn_deploy.reporting.tables import summary_table
from fcn_deploy.workflows.summary import EngineResult, Summary


def _timing(*milliseconds):
    return Timing("", np.array(milliseconds))


def _engine(precision, size, agreement, drop, timing):
    confusion = None if drop is None else np.array([[[9, 1], [1, 9]]])
    parity = Parity(100, agreement)
    return EngineResult(
        file=f"fcn16s.{precision}.onnx",
        size=size,
        precision=precision,
        assessment=Assessment(parity, confusion, drop),
        verdict=judge(precision, parity, drop),
        timing=timing,
    )


def _summary(labelled):
    drops = (Drop(0.0, 0.0, 0.0), Drop(10.25, -0.5, 11.75)) if labelled else (None, None)
    return Summary(
        model="fcn16s.onnx",
        variant="fcn16s",
        export_error=1e-6,
        calibration={"observed": 1000, "judged": 1000},
        engines=(
            _engine("fp32", 537_000_000, 1.0, drops[0], _timing(2000.0, 2000.0)),
            _engine("int8", 134_500_000, 0.95, drops[1], _timing(500.0, 1500.0)),
        ),
        pytorch=_timing(10000.0, 10000.0),
        pytorch_miou=81.82 if labelled else None,
        shape=(1024, 2048),
    )


def _lines(summary):
    out = io.StringIO()
    Console(file=out, width=80).print(summary_table(summary))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_largest_figures_stand_whole_at_80_columns(labelled):
    lines = _lines(_summary(labelled))
    assert lines[0] == "fcn16s, judged on 1000 images; image to labels at 1024x2048"
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[1:]]
    found = {name: cells for name, *cells in rows}
    assert found["MB"] == ["-", "537.0", "134.5"]
    assert found["agreement"] == ["reference", "100.000%", "95.000%"]
    assert found["ms, median"] == ["10000.0", "2000.0", "1000.0"]
    assert found["time / PyTorch"] == ["1", "0.20x", "0.10x"]
    assert found["time / FP32"] == ["-", "1.00x", "0.50x"]
    assert found["gate"] == ["-", "passed", "FAILED"]
    assert ("mIoU" in found) == labelled
    if labelled:
        assert found["mIoU"] == ["81.82", "81.82", "81.82"]
        assert found["mIoU drop"] == ["-", "+0.00", "+10.25"]
        assert found["95% interval"] == ["+0.00 to +0.00", "-0.50 to +11.75"]
