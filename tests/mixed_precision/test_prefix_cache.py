import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fcn_deploy.graph.model import parse
from fcn_deploy.mixed_precision.damage import without
from fcn_deploy.mixed_precision.fingerprints import cut, fingerprints, frontier, input_name
from fcn_deploy.mixed_precision.prefix_cache import run_variants
from fcn_deploy.runtime.image import normalize
from fcn_deploy.runtime.onnxruntime import OnnxRuntimeBackend


def names(model, done):
    return {str(value.name) for value in frontier(parse(model), fingerprints(parse(done).graph))}


@pytest.fixture
def feeds(photos, candidates):
    return [{"image": normalize(photo[np.newaxis], candidates().model.spec.normalization)} for photo in photos[:3]]


# frontier


def test_a_candidate_differs_from_the_net_from_its_first_int8_layer_on(candidates):
    found = names(candidates().make(("conv4_2", "conv5_1")), candidates().make(()))
    assert "conv4_1/Relu" in found
    # The skip of pool3 leaves before; the sizes that crops go by come of the image.
    assert {name.split("/")[0] for name in found if "/" in name} <= {"conv4_1", "score_pool3_fr", "pool3", "upscore8"}


def test_integers_are_handed_over_as_integers(candidates):
    made = candidates()
    whole = parse(made.make(made.start))
    cuts = frontier(parse(made.make(without(made.start, "conv4_2"))), fingerprints(whole.graph))
    producers = {value.producer().op_type for value in cuts if value.producer() is not None}
    assert "QuantizeLinear" in producers
    assert "DequantizeLinear" not in producers


def test_of_equal_graphs_only_the_node_of_the_output_is_left(candidates):
    model = candidates().make(())
    last = parse(model).graph.outputs[0].producer()
    assert names(model, model) <= {value.name for value in last.inputs if value is not None}


def test_names_do_not_matter_and_constants_do():
    def graph(weight, name):
        node = onnx.helper.make_node("Mul", ["x", "w"], [name])
        relu = onnx.helper.make_node("Relu", [name], ["y"])
        tensor = onnx.numpy_helper.from_array(np.float32([weight]), "w")
        value = [onnx.helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, [1]) for each in ("x", "y")]
        model = onnx.helper.make_model(onnx.helper.make_graph([node, relu], "g", value[:1], value[1:], [tensor]))
        return ir.from_proto(model)

    assert [value.name for value in frontier(graph(2, "a"), fingerprints(graph(2, "b").graph))] == ["a"]
    assert [value.name for value in frontier(graph(2, "a"), fingerprints(graph(3, "b").graph))] == ["x"]


def test_the_output_of_a_branch_has_no_fingerprint():
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["inner"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)],
    )
    nodes = [
        onnx.helper.make_node("If", ["flag"], ["chosen"], then_branch=branch, else_branch=branch),
        onnx.helper.make_node("Relu", ["chosen"], ["y"]),
    ]
    inputs = [
        onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1]),
        onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []),
    ]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])]
    model = ir.from_proto(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", inputs, outputs)))
    prints = fingerprints(model.graph)
    assert {value.name for value in prints} == {"x", "flag"}


def test_the_rest_begins_with_the_tensors_that_were_computed(candidates, feeds):
    made = candidates()
    net, candidate = made.make(()), made.make(("conv5_3",))
    model = parse(candidate)
    cuts = frontier(model, fingerprints(parse(net).graph))
    rest = onnx.load_model_from_string(cut(model, cuts))
    assert {value.name for value in rest.graph.input} == {input_name(value) for value in cuts.values()}
    kept = {initializer.name for initializer in rest.graph.initializer}
    assert any("conv5_3" in name for name in kept)
    assert not any("conv1_2" in name or "conv3" in name for name in kept)


# run_variants


@pytest.mark.parametrize(
    ("variant", "target"), [("fcn8s", "onnxruntime"), ("fcn8s", "tensorrt"), ("fcn32s", "onnxruntime")]
)
def test_variants_give_what_they_give_when_they_run_alone(candidates, feeds, variant, target):
    made = candidates(variant, target)
    runs = {
        (): {name: (name,) for name in made.layers},
        made.start: {name: without(made.start, name) for name in made.start},
    }
    for base, variants in runs.items():
        makes = {name: (lambda int8=int8: made.make(int8)) for name, int8 in variants.items()}
        results = list(run_variants(made.make(base), makes, feeds))
        assert [(each.variant, each.image) for each in results] == [
            (name, image) for name in (None, *variants) for image in range(len(feeds))
        ]
        alone = {name: OnnxRuntimeBackend(made.make(int8)) for name, int8 in {None: base, **variants}.items()}
        for result in results:
            wanted = alone[result.variant].infer(feeds[result.image])["logits"]
            np.testing.assert_allclose(result.logits, wanted, rtol=0, atol=2e-5 * np.ptp(wanted))


def test_sizes_that_the_net_has_computed_are_handed_over_with_their_shape():
    def resized(factor):
        content = f"""<ir_version: 9, opset_import: ["" : 18]>
            net (float[batch, 3, height, width] image) => (float[batch, 3, height, width] logits)
            <float factor = {{{factor}}}> {{
                pooled = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(image)
                scaled = Mul(pooled, factor)
                images = Shape<end = 2>(pooled)
                size = Shape<start = 2>(image)
                sizes = Concat<axis = 0>(images, size)
                logits = Resize<mode = "nearest">(scaled, , , sizes)
            }}"""
        return onnx.parser.parse_model(content).SerializeToString()

    feed = {"image": np.ones((1, 3, 6, 8), np.float32)}
    results = list(run_variants(resized(1), {"doubled": lambda: resized(2)}, [feed]))
    assert [result.logits.mean() for result in results] == [1, 2]
