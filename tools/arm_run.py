"""Runs engines on scenes by the runtime of this package; `arm_check.sh` runs this here and in an emulated Python.

    python tools/arm_run.py FOLDER RESULT

reads `FOLDER/*.onnx` and `FOLDER/scenes.npy`, and writes the labels to RESULT, an `.npz` of one array for each engine
and each level of ONNX Runtime's optimisations: `int8-vnni all`, as the runtime runs it, and `int8-vnni extended`; and
`fp32 fast_math` if the CPU has it. It imports what a device has: numpy, ONNX Runtime and `fcn_deploy.runtime`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from fcn_deploy.errors import DependencyError
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.cpu import cpu_features, exact_8_bits, has_bf16, machine

_OPTIONS: Any = ort.SessionOptions


class _Extended(_OPTIONS):
    """Options of a session that keeps the layouts of the graph: what is float is then summed in the same order."""

    def __init__(self) -> None:
        super().__init__()
        self.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


def main(folder: Path, result: Path) -> None:
    """Runs all engines of a folder.

    Args:
        folder: Where engines, sidecars and scenes are.
        result: The file to write.
    """
    dot_product = "asimddp" in (cpu_features() or ())
    print(f"{machine()}, dot product: {dot_product}, bf16: {has_bf16()}, 8-bit weights exact: {exact_8_bits()}")
    print(f"Python {sys.version.split()[0]}, numpy {np.__version__}, onnxruntime {ort.__version__}", flush=True)
    scenes, labels = np.load(folder / "scenes.npy"), {}
    for level, options in (("all", _OPTIONS), ("extended", _Extended)):
        ort.SessionOptions = options  # the runtime has no such option, and users have no use for one
        for engine in sorted(folder.glob("*.onnx")):
            labels[f"{engine.stem} {level}"] = _labels(engine, scenes)
    try:
        labels["fp32 fast_math"] = _labels(folder / "fp32.onnx", scenes, fast_math=True)
    except DependencyError as error:
        print(error)
    np.savez(result, **labels)


def _labels(engine: Path, scenes: NDArray[np.uint8], *, fast_math: bool = False) -> NDArray[np.integer[Any]]:
    with Segmenter(engine, threads=1, fast_math=fast_math) as segmenter:
        return np.stack([segmenter(scene) for scene in scenes])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
