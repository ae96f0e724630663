import math
from itertools import pairwise

import numpy as np
import pytest

from fcn_deploy.errors import UsageError
from fcn_deploy.evaluation.latency import BenchmarkConfig, Clock, Timing, ratio, time_in_turn

NO_TIME = BenchmarkConfig(warmup=0, duration=0, iterations=6)


class Course:
    """Contestants and the clock that only they move."""

    def __init__(self):
        self.seconds, self.calls = 0.0, []
        self.clock = Clock(now=lambda: self.seconds, sleep=lambda seconds: None)

    def contestant(self, name, *milliseconds):
        """Makes a contestant that takes so many milliseconds, at last always the same, and leaves its name."""
        taken = iter(milliseconds)

        def run():
            self.calls.append(name)
            self.seconds += next(taken, milliseconds[-1]) / 1000

        return run

    def time(self, contestants, config, *on_round):
        return time_in_turn(contestants, config, *on_round, clock=self.clock)


@pytest.fixture
def course():
    return Course()


def test_every_round_has_each_contestant_once_and_none_always_follows_the_same(course):
    course.time({name: course.contestant(name, 1) for name in "abc"}, BenchmarkConfig(0, 0, 30))
    assert "".join(course.calls[:3]) == "abc"  # the warm-up
    rounds = ["".join(course.calls[start : start + 3]) for start in range(3, len(course.calls), 3)]
    assert len(rounds) == 30
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    followers = set(pairwise("".join(rounds)))
    assert {(first, second) for first in "abc" for second in "abc" if first != second} <= followers


def test_timings_are_in_the_order_of_the_contestants_and_of_the_rounds(course):
    contestants = {
        "slow": course.contestant("slow", 99, 10, 11, 12, 13, 14, 15),
        "fast": course.contestant("fast", 99, 1, 2, 3, 4, 5, 6),
    }
    slow, fast = course.time(contestants, NO_TIME)
    assert (slow.name, fast.name) == ("slow", "fast")
    np.testing.assert_allclose(slow.latencies, [10, 11, 12, 13, 14, 15])
    np.testing.assert_allclose(fast.latencies, [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("iterations", [1, 10])
def test_there_are_at_least_as_many_rounds_as_asked(course, iterations):
    (timing,) = course.time({"a": course.contestant("a", 5000)}, BenchmarkConfig(0, 1, iterations))
    assert len(timing.latencies) == iterations


def test_rounds_go_on_until_the_duration_is_over(course):
    config = BenchmarkConfig(warmup=0, duration=1, iterations=3)
    timings = course.time({"a": course.contestant("a", 60), "b": course.contestant("b", 40)}, config)
    # 100 ms a round: the tenth ends the second.
    assert len(timings[0].latencies) in (10, 11)
    assert len(timings[0].latencies) == len(timings[1].latencies)


def test_the_warm_up_does_not_count(course):
    run = course.contestant("a", 900, 800, *[10] * 6)
    (timing,) = course.time({"a": run}, BenchmarkConfig(warmup=1000, duration=0, iterations=6))
    np.testing.assert_allclose(timing.latencies, [10] * 6)
    assert len(course.calls) == 2 + 6


def test_every_contestant_warms_up_for_its_own_time(course):
    contestants = {"a": course.contestant("a", 50), "b": course.contestant("b", 20)}
    course.time(contestants, BenchmarkConfig(warmup=100, duration=0, iterations=1))
    assert "".join(course.calls) in ("aabbbbbab", "aabbbbbbab")


def test_without_a_warm_up_there_is_one_run_all_the_same(course):
    course.time({"a": course.contestant("a", 1)}, BenchmarkConfig(warmup=0, duration=0, iterations=1))
    assert len(course.calls) == 2


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (NO_TIME, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]),
        (BenchmarkConfig(0, 1, 1), [0.4, 0.8, 1]),  # 400 ms a round
        (BenchmarkConfig(0, 1, 5), [0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_every_round_tells_the_share_that_is_done(course, config, wanted):
    shares = []
    course.time({"a": course.contestant("a", 400)}, config, shares.append)
    assert shares == pytest.approx(wanted)


def test_what_a_contestant_raises_comes_through():
    with pytest.raises(ZeroDivisionError):
        time_in_turn({"a": lambda: 1 / 0}, NO_TIME)


def test_a_real_clock_measures_milliseconds():
    (timing,) = time_in_turn({"a": lambda: sum(range(1000))}, BenchmarkConfig(0, 0, 3))
    assert (timing.latencies > 0).all()
    assert timing.median < 1000


def test_the_ratio_is_taken_round_by_round():
    timing = Timing("a", np.array([2.0, 8.0, 30.0, 5.0, 6.0]))
    baseline = Timing("b", np.array([1.0, 2.0, 10.0, 1.0, 1.0]))
    found = ratio(timing, baseline)  # 2, 4, 3, 5 and 6
    assert (found.low, found.median, found.high) == (3.0, 4.0, 5.0)


def test_four_rounds_have_a_median_and_neither_quartiles_nor_percentiles():
    timing, baseline = Timing("a", np.array([2.0, 4.0, 6.0, 8.0])), Timing("b", np.ones(4))
    found = ratio(timing, baseline)
    assert found.median == timing.median == 5
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(timing.percentile(90))
    assert Timing("a", np.arange(5.0)).percentile(100) == 4


def test_a_machine_that_slows_down_does_not_change_the_ratio(course):
    drift = [2.0**index for index in range(6)]
    contestants = {
        "twice": course.contestant("twice", 1, *(2 * d for d in drift)),
        "once": course.contestant("once", 1, *drift),
    }
    found = ratio(*course.time(contestants, NO_TIME))
    assert (found.low, found.median, found.high) == pytest.approx((2, 2, 2))


def test_a_contestant_against_itself_is_one():
    timing = Timing("a", np.array([2.0, 8.0, 30.0]))
    assert ratio(timing, timing).median == 1


def test_figures_of_known_latencies():
    timing = Timing("a", np.arange(1.0, 101.0))
    assert timing.median == 50.5
    assert timing.percentile(100) == 100
    assert timing.percentile(90) == pytest.approx(np.percentile(np.arange(1, 101), 90))
    assert timing.throughput(1) == pytest.approx(1000 / 50.5)
    assert timing.throughput(4) == pytest.approx(4000 / 50.5)


@pytest.mark.parametrize("settings", [{"warmup": -1}, {"duration": -0.1}, {"iterations": 0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(UsageError, match="bad benchmark settings") as caught:
        BenchmarkConfig(**settings)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("percentiles", [(0,), (50, 101), (-1, 90)])
def test_bad_percentiles_are_refused(percentiles):
    with pytest.raises(UsageError, match="above 0, at most 100"):
        BenchmarkConfig(percentiles=percentiles)
