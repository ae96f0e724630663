"""What the layers of a plan move: figures of tables that are written by hand."""

import pytest

from fcn_deploy.artifacts.plan import Plan, PlanLayer, PlanTensor
from fcn_deploy.engines.tensorrt.layer_table import read_layer_table
from fcn_deploy.engines.tensorrt.plan_reader import read_plan
from fcn_deploy.engines.tensorrt.traffic import describe, traffic_of
from tests.support.layer_tables import RTX, TENSORRT


def plan(*layers, **tensors):
    """A plan; layers are (name, kind, reads, writes), tensors are "type sizes"."""
    made = []
    for name, kind, reads, writes, *nodes in layers:
        kernel = f"__myl_{kind.partition(':')[2]}_0x1" if ":" in kind else ""
        made.append(PlanLayer(name, kind.partition(":")[0], kernel, tuple(nodes), tuple(reads), tuple(writes)))
    return Plan("log", tuple(made), {name: PlanTensor.parse(text) for name, text in tensors.items()})


def steps(traffic):
    return {step.layer.name: step for step in traffic.steps}


def test_a_fused_convolution_writes_its_result_once():
    fused = plan(("conv", "correlation", "x", "y"), x="fp16 1x64x8x8", y="fp16 1x64x8x8")
    assert traffic_of(fused).bytes_per_element() == {"conv": 2}
    assert traffic_of(fused).moved == 2 * (2 * 64 * 64)


def test_a_kernel_that_brings_the_result_on_belongs_to_the_convolution():
    # Written as FP32 (4), read (4), written as int8 (1): 9 bytes.
    unfused = plan(
        ("conv", "correlation", "x", "y"),
        ("rest", "kgen:MulAddReluRounCast", "y", "z"),
        x="int8 1x64x8x8",
        y="fp32 1x64x8x8",
        z="int8 1x64x8x8",
    )
    traffic = traffic_of(unfused)
    assert traffic.bytes_per_element() == {"conv": 9}
    assert traffic.bytes_per_element(reads="int8") == {"conv": 9}
    assert traffic.bytes_per_element(reads="fp16") == {}
    assert traffic.writes("int8") == {"fp32": 1}
    assert [step.bytes_per_element for step in traffic.steps] == [4, 5]
    assert traffic.moved == 64 * 64 * (1 + 4 + 4 + 1)


def test_what_a_pool_and_a_convolution_read_is_not_counted_again():
    chain = plan(
        ("conv", "CaskConvolution", "x", "y"),
        ("pool", "CaskPooling", "y", "z"),
        ("next", "CaskConvolution", "z", "w"),
        x="fp16 1x3x8x8",
        y="fp16 1x64x8x8",
        z="fp16 1x64x4x4",
        w="int8 1x128x4x4",
    )
    assert traffic_of(chain).bytes_per_element() == {"conv": 2, "next": 1}
    assert traffic_of(chain).bytes_per_element("pool") == {"pool": 2}
    assert traffic_of(chain).moved == 2 * 192 + 2 * 4096 + 2 * 4096 + 2 * 1024 + 2 * 1024 + 2048


def test_other_sizes_count_by_their_part_of_the_result():
    crop = plan(
        ("up", "deconv", "x", "y"),
        ("crop", "kgen:SlicSlic", "y", "z"),
        x="fp16 -1x16x-1x-1",
        y="fp16 -1x16x-1x-1",
        z="fp16 -1x11x-1x-1",
    )
    traffic = traffic_of(crop)
    assert traffic.bytes_per_element() == {"up": pytest.approx(2 + 2 + 2 * 11 / 16)}
    assert (traffic.moved, traffic.reformats) == (None, 1)  # height and width are not fixed
    halved = plan(
        ("conv", "conv", "x", "y"),
        ("half", "kgen:SlicAdd", "y", "z"),
        x="fp16 1x8x8x8",
        y="fp16 1x8x8x8",
        z="fp16 1x8x4x8",
    )
    assert traffic_of(halved).bytes_per_element() == {"conv": 2 + 2 + 1}


def test_a_sum_of_two_results_belongs_to_the_later_one():
    both = plan(
        ("a", "conv", "x", "y"),
        ("b", "conv", "x", "z"),
        ("add", "kgen:Add", "yz", "s"),
        x="fp16 1x8x8x8",
        y="fp16 1x8x8x8",
        z="fp16 1x8x8x8",
        s="fp16 1x8x8x8",
    )
    assert traffic_of(both).bytes_per_element() == {"a": 2, "b": 2 + 6}


def test_what_is_written_twice_is_counted():
    twice = plan(
        ("conv", "correlation", "x", "y"),
        ("rest", "kgen:MulRounCast", "y", ["q", "h"]),
        ("pool1", "maxpool", "q", "p", "pool"),
        ("pool2", "maxpool", "h", "r", "pool"),
        ("next", "correlation", "pr", "s"),
        ("top", "kgen:Topk", "s", ["values", "places"]),
        ("cast", "kgen:CastResh", ["places"], ["labels"]),
        x="int8 1x8x8x8",
        y="fp16 1x8x8x8",
        q="int8 1x8x8x8",
        h="fp16 1x8x8x8",
        p="int8 1x8x4x4",
        r="fp16 1x8x4x4",
        s="fp16 1x8x4x4",
        values="fp16 1x1x4x4",
        places="int32 1x1x4x4",
        labels="uint8 1x4x4",
    )
    traffic = traffic_of(twice)
    found = {name: step.copies for name, step in steps(traffic).items() if step.copies}
    assert found == {"rest": 1, "pool2": 1}  # and not the values, which nobody reads
    assert (traffic.second_copies, traffic.reformats) == (2, 1)


def test_layers_of_a_second_profile_are_no_copies():
    pools = [(f"pool_myl{part}_3", "maxpool", "x", "y", "pool") for part in (0, 1)]
    traffic = traffic_of(plan(*pools, x="fp16 1x8x8x8", y="fp16 1x8x4x4"))
    assert (traffic.second_copies, traffic.profiles, traffic.moved) == (0, 2, None)
    later = [("pool", "pooling", "x", "y", "pool"), ("pool [profile 1]", "pooling", "x", "y", "pool")]
    assert traffic_of(plan(*later, x="fp16 1x8x8x8", y="fp16 1x8x4x4")).second_copies == 0


def test_a_type_of_no_known_size_has_no_figure():
    odd = plan(("conv", "conv", "x", "y"), x="unknown 1x8x8x8", y="unknown 1x8x8x8")
    assert traffic_of(odd).bytes_per_element() == {"conv": None}
    assert traffic_of(odd).moved is None


def test_the_tables_that_builders_log():
    rtx, tensorrt = (traffic_of(read_plan(read_layer_table(text), "log")) for text in (RTX, TENSORRT))
    assert rtx.bytes_per_element() == {"conv1_2_myl0_4": 9}
    assert [step.role for step in tensorrt.steps] == ["copy", "convolution", "other", "convolution"]
    assert tensorrt.bytes_per_element() == {"conv1_1 + conv1_1/Relu": 2 + 2 + 1, "conv1_2": 1}
    assert tensorrt.reformats == 1


def test_it_is_told_in_one_clause():
    read = read_plan(read_layer_table(RTX), "log")
    assert describe(read) == (
        "3 kernels, 0 reformats, 0 tensors written twice; 1 INT8 convolution, 9 bytes per element"
    )
