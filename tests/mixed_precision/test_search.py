"""Budgets on a slim net: the mix that is found keeps the budget, and is checked by engines of its own."""

import pytest

from fcn_deploy.errors import GateError, InputError, UsageError
from fcn_deploy.evaluation.gates import Criterion
from fcn_deploy.mixed_precision.damage import Fidelity, LayerSensitivity, Sensitivity, measure_sensitivity
from fcn_deploy.mixed_precision.decision import decide
from fcn_deploy.mixed_precision.evaluator import Judge
from fcn_deploy.mixed_precision.method_search import try_methods
from fcn_deploy.mixed_precision.search import giving_back_order, plan_mix
from fcn_deploy.quantization.methods import METHODS


def judged(made, photos):
    return Judge(made.model, made.spec, [(photo, None) for photo in photos], None)


def search(made, photos, criterion):
    judge = judged(made, photos)
    return plan_mix(made, criterion, judge, lambda: measure_sensitivity(made, photos[:3])), judge


def reachable(made, photos):
    """A budget between what all INT8 keeps and what the net itself does."""
    whole = judged(made, photos).assess(made.make(made.start)).parity
    return Criterion("agreement", whole.agreement_low + 0.6 * (1 - whole.agreement_low))


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_layers_are_given_back_until_the_bound_keeps_the_budget(mixer, photos, target):
    made = mixer(target=target)
    criterion = reachable(made, photos)
    plan, judge = search(made, photos, criterion)
    assert set(plan.chosen.int8) < set(made.start)
    assert plan.chosen.met
    assert not plan.trials[0].met
    assert plan.trials[0].int8 == made.start
    again = judge.assess(made.make(plan.chosen.int8)).parity
    assert (again.agreement, again.agreement_low) == (plan.chosen.measured, plan.chosen.bound)
    assert again.agreement_low >= criterion.limit
    # Cheapest: no layer given back on the way can be INT8 again, by the trials that were made.
    assert all(not trial.met or len(trial.int8) <= len(plan.chosen.int8) for trial in plan.trials)


def test_all_int8_is_kept_where_it_will_do_and_nothing_is_measured(mixer, photos):
    made = mixer()

    def measure():
        raise AssertionError("sensitivity was measured")

    plan = plan_mix(made, Criterion("agreement", 0.01), judged(made, photos), measure)
    assert plan.chosen.int8 == made.start
    assert len(plan.trials) == 1


def test_only_the_net_itself_keeps_a_budget_of_everything(mixer, photos):
    plan, _ = search(mixer(), photos[:4], Criterion("agreement", 1.0))
    assert plan.chosen.int8 == ()


def test_a_budget_that_not_even_float_keeps_is_a_missed_gate(mixer, photos):
    made = mixer()
    with pytest.raises(GateError, match="cannot be met, not even without INT8") as caught:
        search(made, photos[:1], Criterion("agreement", 0.5))  # of one image there is no interval
    assert caught.value.exit_code == 3


def test_the_order_is_damage_per_saving_and_first_what_saves_nothing():
    def layer(name, alone, saving, int8=True):
        return LayerSensitivity(name, int8, 1, Fidelity(alone, 30), Fidelity(0.9, 30), 10.0, 10.0 - saving)

    layers = (
        layer("cheap", 0.99, 10),
        layer("dear", 0.99, 1),
        layer("slower", 0.999, -1),
        layer("float", 0.5, 1, False),
    )
    found = Sensitivity("onnxruntime", "mse", 1, (8, 8), Fidelity(0.9, 20), layers)
    assert giving_back_order(found) == ["slower", "dear", "cheap"]


def test_auto_tries_every_method_and_takes_what_agrees_best(mixer, photos):
    made = mixer()
    tried = try_methods(made, judged(made, photos))
    assert set(tried) == set(METHODS)
    assert list(tried.values()) == sorted(tried.values(), reverse=True)
    decision = decide(made.model, made.ranges, made.config, [(photo, None) for photo in photos], auto=True)
    assert decision.config.method == next(iter(tried))
    assert decision.tried == tried
    assert decision.plan is None


def test_a_budget_of_miou_is_held_against_the_ground_truth(mixer, photos, exported):
    from fcn_deploy.runtime import Segmenter

    made = mixer()
    with Segmenter(exported("fcn8s")) as net:
        samples = [(photo, net(photo).astype("int32")) for photo in photos]
    loose = decide(made.model, made.ranges, made.config, samples, budget=Criterion("miou_drop", 100.0))
    assert loose.config.int8_layers == made.start
    # The net agrees with itself, so any rounding costs mIoU.
    strict = decide(made.model, made.ranges, made.config, samples, budget=Criterion("miou_drop", 0.0))
    assert strict.plan.chosen.bound <= 0
    assert len(strict.config.int8_layers) < len(made.start)


def test_images_that_do_not_go_with_the_question_are_refused(mixer, photos):
    made = mixer()
    with pytest.raises(InputError, match="no images to judge on"):
        judged(made, [])
    with pytest.raises(InputError, match="images without ground truth"):
        Judge(made.model, made.spec, [(photos[0], None), (photos[1], photos[1][..., 0] * 0)], None)
    with pytest.raises(UsageError, match="needs ground truth"):
        search(made, photos[:2], Criterion("miou_drop", 0.5))
