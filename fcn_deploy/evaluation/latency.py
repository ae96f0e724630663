"""Latency, measured so that a noisy machine favours no contestant: in turn, round by round."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcn_deploy.artifacts.measures import Ratio
from fcn_deploy.errors import UsageError
from fcn_deploy.text import printable

# In seconds. The threads of a pool wait busily for a while after a run, in case there is another. The next contestant
# must not have to share the cores with them.
_SETTLE = 0.02

# Of fewer rounds, quartiles and percentiles are hardly more than the single rounds.
LEAST_ROUNDS = 5


@dataclass(frozen=True)
class BenchmarkConfig:
    """How long to measure; names and defaults of the times are those of trtexec.

    Attributes:
        warmup: Milliseconds that each contestant runs before anything counts; at least one run.
        duration: Seconds of measuring, over all contestants together.
        iterations: Least number of rounds, whatever the duration.
        percentiles: Of latency, to report.

    Raises:
        UsageError: A value is out of range.
    """

    warmup: float = 200
    duration: float = 3
    iterations: int = 10
    percentiles: tuple[float, ...] = (90, 95, 99)

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < math.inf and 0 <= self.duration < math.inf and self.iterations >= 1):
            raise UsageError(
                "bad benchmark settings",
                got=f"`warmup` {self.warmup}, `duration` {self.duration}, `iterations` {self.iterations}",
                expected="`warmup` and `duration` of 0 or more, at least one iteration",
            )
        if not all(0 < percentile <= 100 for percentile in self.percentiles):
            raise UsageError("bad percentiles", got=self.percentiles, expected="above 0, at most 100")


@dataclass(frozen=True, eq=False)
class Timing:
    """The latencies of one contestant.

    Attributes:
        name: Of the contestant.
        latencies: float64 [rounds], in milliseconds, in the order in which they were measured.
    """

    name: str
    latencies: NDArray[np.float64]

    def __repr__(self) -> str:
        return printable(f"Timing({self.name}, {len(self.latencies)} rounds, median {self.median:.1f} ms)")

    @property
    def median(self) -> float:
        """In milliseconds."""
        return float(np.median(self.latencies))

    def percentile(self, share: float) -> float:
        """Returns the latency in milliseconds that `share` percent of the runs do not exceed.

        NaN for fewer than `LEAST_ROUNDS` runs.
        """
        return math.nan if len(self.latencies) < LEAST_ROUNDS else float(np.percentile(self.latencies, share))

    def throughput(self, batch: int) -> float:
        """Returns images per second, for runs of `batch` images each."""
        return 1000 * batch / float(self.latencies.mean())


def ratio(timing: Timing, baseline: Timing) -> Ratio:
    """Compares two contestants that were timed together.

    The ratio is taken within each round, in which both met the same machine, so a drift of its speed cancels out.
    Quartiles of fewer than `LEAST_ROUNDS` rounds are NaN.
    """
    low, median, high = np.percentile(timing.latencies / baseline.latencies, [25, 50, 75])
    if len(timing.latencies) < LEAST_ROUNDS:
        low = high = math.nan
    return Ratio(float(median), float(low), float(high))


@dataclass(frozen=True)
class Clock:
    """What time is told by and passed with; tests put their own in its place.

    Attributes:
        now: Returns a time in seconds, which never goes back.
        sleep: Waits for so many seconds.
    """

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep

    def milliseconds(self, run: Callable[[], object]) -> float:
        """Returns how long a call takes."""
        begin = self.now()
        run()
        return 1000 * (self.now() - begin)


_CLOCK = Clock()


def time_in_turn(
    contestants: Mapping[str, Callable[[], object]],
    config: BenchmarkConfig | None = None,
    on_round: Callable[[float], None] = lambda share: None,
    *,
    clock: Clock = _CLOCK,
) -> list[Timing]:
    """Times functions in turn.

    Each round runs each contestant once, in a new random order, so that no contestant always follows the same one.

    Args:
        contestants: Functions by name; at least one.
        config: How long.
        on_round: Called after each round, while nothing is timed, with the share that is done, 0..1.
        clock: What the functions are timed by.

    Returns:
        One timing for each contestant, in their order.
    """
    config = config or BenchmarkConfig()
    for contestant in contestants.values():
        _warm_up(contestant, config.warmup, clock)
    names = list(contestants)
    latencies: dict[str, list[float]] = {name: [] for name in names}
    order = np.random.default_rng(0)
    rounds, begin = 0, clock.now()
    while rounds < config.iterations or clock.now() - begin < config.duration:
        for name in order.permutation(names).tolist():
            if len(names) > 1:
                clock.sleep(_SETTLE)
            latencies[name].append(clock.milliseconds(contestants[name]))
        rounds += 1
        spent = (clock.now() - begin) / config.duration if config.duration else 1.0
        on_round(min(rounds / config.iterations, spent, 1.0))
    return [Timing(name, np.array(latencies[name])) for name in names]


def _warm_up(contestant: Callable[[], object], milliseconds: float, clock: Clock) -> None:
    spent = clock.milliseconds(contestant)
    while spent < milliseconds:
        spent += clock.milliseconds(contestant)
