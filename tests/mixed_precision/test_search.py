"""Accuracy budgets on a slim net: what the search finds keeps the budget, and is checked by runs of its own."""

import pytest

from fcn_deploy.artifacts.sensitivity import Fidelity, LayerSensitivity, Sensitivity
from fcn_deploy.errors import GateError, InputError, UsageError
from fcn_deploy.evaluation.gates import Criterion
from fcn_deploy.mixed_precision.damage import measure_sensitivity
from fcn_deploy.mixed_precision.decision import decide
from fcn_deploy.mixed_precision.evaluator import Evaluator
from fcn_deploy.mixed_precision.method_search import try_methods
from fcn_deploy.mixed_precision.search import revert_order, search_layers
from fcn_deploy.quantization.methods import METHODS
from tests.support.openvino import needs_openvino


def evaluator_of(made, photos):
    return Evaluator(made.model, [(photo, None) for photo in photos], None)


def search(made, photos, criterion):
    evaluator = evaluator_of(made, photos)
    return search_layers(made, criterion, evaluator, lambda: measure_sensitivity(made, photos[:3])), evaluator


def reachable(made, photos):
    """A budget between what all INT8 keeps and what the net itself does."""
    whole = evaluator_of(made, photos).evaluate(made.make(made.start)).parity
    return Criterion("agreement", whole.agreement_low + 0.6 * (1 - whole.agreement_low))


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt", pytest.param("openvino", marks=needs_openvino)])
def test_layers_revert_to_float_until_the_bound_keeps_the_budget(candidates, photos, target):
    made = candidates(target=target)
    criterion = reachable(made, photos)
    found, evaluator = search(made, photos, criterion)
    assert set(found.chosen.int8) < set(made.start)
    assert found.chosen.met
    assert not found.trials[0].met
    assert found.trials[0].int8 == made.start
    again = evaluator.evaluate(made.make(found.chosen.int8)).parity
    assert (again.agreement, again.agreement_low) == (found.chosen.measured, found.chosen.bound)
    assert again.agreement_low >= criterion.limit
    # Cheapest: no layer that reverted on the way can be INT8 again, by the trials that were made.
    assert all(not trial.met or len(trial.int8) <= len(found.chosen.int8) for trial in found.trials)


def test_all_int8_is_kept_where_it_will_do_and_nothing_is_measured(candidates, photos):
    made = candidates()

    def measure():
        raise AssertionError("sensitivity was measured")

    found = search_layers(made, Criterion("agreement", 0.01), evaluator_of(made, photos), measure)
    assert found.chosen.int8 == made.start
    assert len(found.trials) == 1


def test_only_the_net_itself_keeps_a_budget_of_everything(candidates, photos):
    found, _ = search(candidates(), photos[:4], Criterion("agreement", 1.0))
    assert found.chosen.int8 == ()


def test_a_budget_that_not_even_float_keeps_is_a_missed_gate(candidates, photos):
    made = candidates()
    with pytest.raises(GateError, match="cannot be met, not even without INT8") as caught:
        search(made, photos[:1], Criterion("agreement", 0.5))  # of one image there is no interval
    assert caught.value.exit_code == 3


def test_layers_revert_by_damage_per_saving_and_those_that_save_nothing_first():
    def layer(name, alone, saving, int8=True):
        return LayerSensitivity(name, int8, 1, Fidelity(alone, 30), Fidelity(0.9, 30), 10.0, 10.0 - saving)

    layers = (
        layer("cheap", 0.99, 10),
        layer("dear", 0.99, 1),
        layer("slower", 0.999, -1),
        layer("float", 0.5, 1, False),
    )
    found = Sensitivity("onnxruntime", "mse", 1, (8, 8), Fidelity(0.9, 20), layers)
    assert revert_order(found) == ["slower", "dear", "cheap"]


def test_auto_tries_every_method_and_takes_what_agrees_best(candidates, photos):
    made = candidates()
    tried = try_methods(made, evaluator_of(made, photos))
    assert set(tried) == set(METHODS)
    assert list(tried.values()) == sorted(tried.values(), reverse=True)
    decision = decide(made, [(photo, None) for photo in photos], auto=True)
    assert decision.config.method == next(iter(tried))
    assert decision.tried == tried
    assert decision.search is None


def test_a_budget_of_miou_is_held_against_the_ground_truth(candidates, photos, exported):
    from fcn_deploy.runtime import Segmenter

    made = candidates()
    with Segmenter(exported("fcn8s")) as net:
        samples = [(photo, net(photo).astype("int32")) for photo in photos]
    loose = decide(made, samples, budget=Criterion("miou_drop", 100.0))
    assert loose.config.int8_layers == made.start
    # The net agrees with itself, so any rounding costs mIoU.
    strict = decide(made, samples, budget=Criterion("miou_drop", 0.0))
    assert strict.search.chosen.bound <= 0
    assert len(strict.config.int8_layers) < len(made.start)


def test_images_that_do_not_go_with_the_question_are_refused(candidates, photos):
    made = candidates()
    with pytest.raises(InputError, match="no images to evaluate on"):
        evaluator_of(made, [])
    with pytest.raises(InputError, match="images without ground truth"):
        Evaluator(made.model, [(photos[0], None), (photos[1], photos[1][..., 0] * 0)], None)
    with pytest.raises(UsageError, match="needs ground truth"):
        search(made, photos[:2], Criterion("miou_drop", 0.5))
