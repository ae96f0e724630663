import numpy as np

from fcn_deploy.evaluation.bootstrap import RESAMPLES, draws, interval


def test_every_draw_has_as_many_images_as_there_are():
    drawn = draws(7)
    assert drawn.shape == (RESAMPLES, 7)
    assert (drawn.sum(1) == 7).all()
    assert 0.9 < drawn.mean(0).min() <= drawn.mean(0).max() < 1.1


def test_draws_come_again_of_the_same_seed_alone():
    np.testing.assert_array_equal(draws(5, seed=3), draws(5, seed=3))
    assert (draws(5, seed=3) != draws(5, seed=4)).any()


def test_the_interval_leaves_out_a_fortieth_at_either_end():
    assert interval(np.arange(1001.0)) == (25.0, 975.0)
    assert interval(np.append(np.arange(1001.0), np.nan)) == (25.0, 975.0)


def test_the_interval_of_a_mean_is_about_two_standard_errors_to_either_side():
    values = np.random.default_rng(0).normal(size=200)
    low, high = interval(draws(200) @ values / 200)
    error = values.std() / np.sqrt(200)
    np.testing.assert_allclose([low, high], values.mean() + error * np.array([-1.96, 1.96]), atol=0.2 * error)
