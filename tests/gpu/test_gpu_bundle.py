"""From a checkpoint to a bundle to verified engines, with the real libraries on a real GPU."""

import pytest

from fcn_deploy.demo import CALIBRATION_SEEDS, checkpoint_path, write_scenes
from fcn_deploy.errors import ArtifactError, DependencyError
from fcn_deploy.runtime import Segmenter
from fcn_deploy.runtime.tensorrt.flavor import BUILDERS
from fcn_deploy.workflows.deploying import deploy
from fcn_deploy.workflows.device import Target
from fcn_deploy.workflows.finishing import finish

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("flavor", BUILDERS, ids=lambda flavor: flavor.name)
def test_the_demo_is_deployed_here_and_its_bundle_is_finished(flavor, tmp_path):
    try:
        Target.find(flavor)
    except (ArtifactError, DependencyError) as error:
        pytest.skip(str(error))
    write_scenes(tmp_path / "scenes", CALIBRATION_SEEDS[:10], (96, 128))
    quick = {"warmup": 50, "duration": 0, "iterations": 10}
    options = {"int8": True, "backend": flavor.name, "bundle": True}
    here = deploy(checkpoint_path(), tmp_path / "scenes" / "images", tmp_path / "out", **options, **quick)
    there = finish(tmp_path / "out" / "bundle", **quick)
    for summary, folder in ((here, tmp_path / "out"), (there, tmp_path / "out" / "finished")):
        assert summary.passed
        assert [engine.precision for engine in summary.engines] == ["fp16", "int8"]
        for engine in summary.engines:
            with Segmenter(folder / engine.file) as segmenter:
                assert segmenter.sidecar.gate.passed
