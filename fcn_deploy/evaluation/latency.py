"""Latency, measured so that a noisy machine cannot favour anyone: in turn, round by round."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.errors import UsageError

# Thread pools spin for a while after a run, in case of another; the next contestant must not have to share the cores
# with its predecessor's.
_SETTLE = 0.02


@dataclass(frozen=True)
class BenchmarkConfig:
    """How long to measure; the names and defaults of time are trtexec's.

    Attributes:
        warmup: Milliseconds each contestant runs before anything counts; at least one run.
        duration: Seconds of measuring, over all contestants together.
        iterations: Least number of rounds, whatever the duration.
        percentiles: Of latency, to report.
    """

    warmup: float = 200
    duration: float = 3
    iterations: int = 10
    percentiles: tuple[float, ...] = (90, 95, 99)

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < math.inf and 0 <= self.duration < math.inf and self.iterations >= 1):
            raise UsageError(
                "bad benchmark settings",
                got=f"warmup {self.warmup}, duration {self.duration}, iterations {self.iterations}",
                expected="warmup and duration of 0 or more, at least one iteration",
            )
        if not all(0 < percentile <= 100 for percentile in self.percentiles):
            raise UsageError("bad percentiles", got=self.percentiles, expected="above 0, at most 100")


@dataclass(frozen=True, eq=False)
class Timing:
    """The latencies of one contestant.

    Attributes:
        name: Of the contestant.
        latencies: float64 [rounds], in milliseconds, in the order they were measured.
    """

    name: str
    latencies: NDArray[np.float64]

    @property
    def median(self) -> float:
        """In milliseconds."""
        return float(np.median(self.latencies))

    def percentile(self, share: float) -> float:
        """Returns the latency in milliseconds that `share` percent of the runs do not exceed."""
        return float(np.percentile(self.latencies, share))

    def throughput(self, batch: int) -> float:
        """Returns images per second, at a batch of `batch` a run."""
        return 1000 * batch / float(self.latencies.mean())


@dataclass(frozen=True)
class Ratio:
    """Time of one contestant over that of another, round by round.

    Attributes:
        median: Of the rounds' ratios.
        low: Their first quartile.
        high: Their third quartile.
    """

    median: float
    low: float
    high: float


def ratio(timing: Timing, baseline: Timing) -> Ratio:
    """Compares two contestants of one benchmark.

    The ratio is taken within each round, where both met the same machine, so a drift of its speed cancels out.
    """
    low, median, high = np.percentile(timing.latencies / baseline.latencies, [25, 50, 75])
    return Ratio(float(median), float(low), float(high))


def benchmark(
    contestants: Mapping[str, Callable[[], object]],
    config: BenchmarkConfig | None = None,
    on_round: Callable[[float], None] = lambda share: None,
) -> list[Timing]:
    """Times functions in turn.

    Every round runs each contestant once, in an order drawn anew, so that nobody always follows the same predecessor.

    Args:
        contestants: Functions by name; at least one.
        config: How long.
        on_round: Called between the rounds, when nobody is timed, with the share that is done, 0..1.

    Returns:
        One timing for each contestant, in their order.
    """
    config = config or BenchmarkConfig()
    for contestant in contestants.values():
        _warm_up(contestant, config.warmup)
    names = list(contestants)
    latencies: dict[str, list[float]] = {name: [] for name in names}
    order = np.random.default_rng(0)
    rounds, begin = 0, time.perf_counter()
    while rounds < config.iterations or time.perf_counter() - begin < config.duration:
        for name in order.permutation(names).tolist():
            if len(names) > 1:
                time.sleep(_SETTLE)
            latencies[name].append(_time(contestants[name]))
        rounds += 1
        spent = (time.perf_counter() - begin) / config.duration if config.duration else 1.0
        on_round(min(rounds / config.iterations, spent, 1.0))
    return [Timing(name, np.array(latencies[name])) for name in names]


def _warm_up(contestant: Callable[[], object], milliseconds: float) -> None:
    spent = _time(contestant)
    while spent < milliseconds:
        spent += _time(contestant)


def _time(contestant: Callable[[], object]) -> float:
    begin = time.perf_counter()
    contestant()
    return 1000 * (time.perf_counter() - begin)
