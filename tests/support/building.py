"""Engines of exported files, for tests that are not about how the files are named or read."""

from pathlib import Path

from fcn_deploy.artifacts.ranges import Ranges
from fcn_deploy.engines.tensorrt.builder import TensorRTConfig
from fcn_deploy.graph.model import load_exported
from fcn_deploy.progress import Silent
from fcn_deploy.workflows.backends import Job


def build(model, config, ranges=None, *, backend="onnxruntime", options=None, progress=None, log=None, spec=None):
    """Checks and builds one engine, as `build_engine` does once everything has been decided."""
    job = Job(backend, config, options or TensorRTConfig(), log=log)
    job.check()
    observed = Ranges.load(ranges) if isinstance(ranges, Path) else ranges
    return job.build(load_exported(model, spec=spec), observed, progress or Silent())
