"""`auto`: which calibration method agrees best with the net, on images that calibration has not seen."""

from __future__ import annotations

from dataclasses import replace

from fcn_deploy.mixed_precision.candidates import Candidates
from fcn_deploy.mixed_precision.evaluator import Evaluator
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.quantization.methods import METHODS

_SILENT = Silent()


def try_methods(candidates: Candidates, evaluator: Evaluator, progress: Progress = _SILENT) -> dict[str, float]:
    """Quantises a net by each calibration method, and measures how well it agrees with the net.

    Args:
        candidates: What is quantised; the method of its configuration is ignored.
        evaluator: Holds the images.
        progress: Told of each method.

    Returns:
        Share of pixels with the same label, 0..1, by method. The best comes first; of equal ones, the one that METHODS
        names first.
    """
    found = {}
    for method in progress.track(tuple(METHODS), len(METHODS), "trying calibration methods"):
        tried = replace(candidates, config=replace(candidates.config, method=method))
        found[method] = evaluator.evaluate(tried.make(tried.start)).parity.agreement
    return dict(sorted(found.items(), key=lambda item: -item[1]))
