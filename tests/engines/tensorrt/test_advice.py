"""What is advised by the layers of a plan."""

from fcn_deploy.engines.tensorrt.advice import advise_fp16
from fcn_deploy.engines.tensorrt.layer_table import read_layer_table
from fcn_deploy.engines.tensorrt.plan_reader import read_plan
from tests.support.layer_tables import RTX, TENSORRT, rtx_layer, table


def plan(*layers):
    return read_plan(read_layer_table(table(*layers)), "log")


def conv(name, reads, writes):
    return rtx_layer(name, "correlation", [f"{name}_in {reads} 1,8,4,4"], [f"{name}_out {writes} 1,8,4,4"], [name])


def test_fp16_is_advised_if_int8_moves_more():
    said = advise_fp16(read_plan(read_layer_table(RTX), "log"))
    assert "1 of 1 INT8 convolutions take 9 bytes per element" in said
    assert "2 in FP16" in said
    assert "`twin`" in said
    follows = rtx_layer("q", "kgen", ["a_out fp16 1,8,4,4"], ["q_out int8 1,8,4,4"])
    assert "1 of 2 INT8 convolutions take 5 bytes" in advise_fp16(
        plan(conv("a", "int8", "fp16"), follows, conv("b", "int8", "int8"))
    )


def test_nothing_is_advised_if_int8_moves_no_more_or_there_is_none():
    assert advise_fp16(plan(conv("a", "int8", "int8"), conv("b", "int8", "fp16"))) is None
    assert advise_fp16(plan(conv("a", "fp16", "fp32"))) is None
    assert advise_fp16(read_plan(read_layer_table(TENSORRT), "log")) is None
