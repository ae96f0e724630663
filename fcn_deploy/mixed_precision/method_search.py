"""`auto`: which calibration method agrees best with the net, on images that calibration has not observed."""

from __future__ import annotations

from dataclasses import replace

from fcn_deploy.mixed_precision.candidates import Mixer
from fcn_deploy.mixed_precision.evaluator import Judge
from fcn_deploy.progress import Progress, Silent
from fcn_deploy.quantization.methods import METHODS

AUTO = "auto"
_SILENT = Silent()


def try_methods(mixer: Mixer, judge: Judge, progress: Progress = _SILENT) -> dict[str, float]:
    """Quantises a net by each calibration method and measures the agreement with the net.

    Args:
        mixer: What is quantised; its own method has no say.
        judge: Holds the images.
        progress: Told of each method.

    Returns:
        Share of pixels labelled alike, 0..1, by method; best first, of equals the one that METHODS names first.
    """
    found = {}
    for method in progress.track(tuple(METHODS), len(METHODS), "trying calibration methods"):
        tried = replace(mixer, config=replace(mixer.config, method=method))
        found[method] = judge.assess(tried.make(tried.start)).parity.agreement
    return dict(sorted(found.items(), key=lambda item: -item[1]))
