"""Fixtures that several tests share: small random nets, exported once a session, and images."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# A machine that does other work as well is no reason to fail.
settings.register_profile("busy", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
WIDTH = 0.0625
CLASSES = 5

COLLECTED = pytest.StashKey[set[Path]]()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> None:
    """Keeps which files pytest collects, before any is deselected."""
    parent.config.stash.setdefault(COLLECTED, set()).add(module_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escapes what a test with odd names has logged: pytest-xdist ends the run at a report that is not UTF-8."""
    report = yield
    report.sections = [(name, said.encode(errors="backslashreplace").decode()) for name, said in report.sections]
    return report


@pytest.fixture(scope="session")
def collected_files(pytestconfig) -> set[Path]:  # type: ignore[no-untyped-def]
    """The test files that pytest collected."""
    return pytestconfig.stash[COLLECTED]


@pytest.fixture(scope="session")
def camvid() -> Path:
    """The folder of real images and the checkpoint trained on them; not part of this repository."""
    if not (SHARED / "fcn8s_camvid.pth").is_file():
        pytest.skip("no ../shared/data: the CamVid frames and checkpoint are not distributed with the project")
    return SHARED


@pytest.fixture(scope="session")
def make_net() -> Callable[..., object]:
    """Builds an FCN with random weights, its skips and biases not zero, so that every layer shows in the output."""
    import torch

    from fcn_deploy.models import FCN

    def make(stride: int, classes: int = CLASSES, width: float = WIDTH, seed: int = 0) -> FCN:
        torch.manual_seed(seed)
        net = FCN(stride, classes, width)  # type: ignore[arg-type]
        for parameter in net.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
        return net.eval()

    return make


@pytest.fixture(scope="session")
def checkpoint_file(make_net, tmp_path_factory) -> Callable[[str], Path]:  # type: ignore[no-untyped-def]
    """Writes the state_dict of a random net of a variant, once a session."""
    import torch

    from fcn_deploy.models.fcn import VARIANTS

    folder = tmp_path_factory.mktemp("checkpoints")

    def write(variant: str) -> Path:
        path = folder / f"{variant}.pth"
        if not path.exists():
            torch.save(make_net(VARIANTS[variant]).state_dict(), path)
        return path

    return write


@pytest.fixture(scope="session")
def exported(request, tmp_path_factory) -> Callable[[str], Path]:  # type: ignore[no-untyped-def]
    """Exports the random net of a variant, once a session.

    The folder FCN_DEPLOY_TEST_EXPORTED keeps the exported nets. A net that is there is used, and needs no PyTorch.
    """
    from fcn_deploy.workflows.exporting import export

    given = os.environ.get("FCN_DEPLOY_TEST_EXPORTED")
    folder = Path(given) if given else tmp_path_factory.mktemp("exported")

    def path_of(variant: str) -> Path:
        path = folder / f"{variant}.onnx"
        if not path.exists():
            export(request.getfixturevalue("checkpoint_file")(variant), output=path)
        return path

    return path_of


@pytest.fixture(scope="session")
def photos() -> list[np.ndarray]:
    """Ten images of several odd sizes, uint8 [H, W, 3], smooth and noisy parts in each."""
    random = np.random.default_rng(7)
    images = []
    for index in range(10):
        height, width = 40 + 7 * (index % 3), 56 + 5 * (index % 4)
        coarse = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height))
        images.append((0.8 * np.asarray(coarse) + 0.2 * random.integers(0, 256, (height, width, 3))).astype(np.uint8))
    return images


@pytest.fixture(scope="session")
def photo_folder(photos, tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    """The photos as PNG files."""
    folder = tmp_path_factory.mktemp("photos")
    for index, image in enumerate(photos):
        Image.fromarray(image).save(folder / f"photo_{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def ranges_file(exported, photo_folder, tmp_path_factory) -> Callable[[str], Path]:  # type: ignore[no-untyped-def]
    """Calibrates the exported net of a variant on the photos, once a session."""
    from fcn_deploy.workflows.calibrating import calibrate

    folder = tmp_path_factory.mktemp("ranges")

    def path_of(variant: str) -> Path:
        path = folder / f"{variant}.json"
        if not path.exists():
            calibrate(exported(variant), photo_folder, output=path)
        return path

    return path_of


@pytest.fixture
def call(capsys):  # type: ignore[no-untyped-def]
    """Runs a command line in process, checks its exit code, and returns what it said."""
    from fcn_deploy.cli.app import run

    def call(*arguments, code=0):  # type: ignore[no-untyped-def]
        assert run([str(argument) for argument in arguments]) == code, capsys.readouterr().err
        return capsys.readouterr()

    return call


@pytest.fixture(scope="session")
def quantized(exported, photos, tmp_path_factory) -> Callable[[str], Path]:  # type: ignore[no-untyped-def]
    """Quantises the exported FCN-8s by ONNX Runtime's quantiser, in a scheme of quantized_nets, once a session."""
    from tests.support import quantized_nets

    folder = tmp_path_factory.mktemp("quantized")

    def quantize(scheme: str) -> Path:
        path = folder / f"{scheme}.onnx"
        return path if path.exists() else quantized_nets.quantize(exported("fcn8s"), path, photos[:3], scheme)

    return quantize


@pytest.fixture(scope="session")
def distributions(tmp_path_factory) -> tuple[Path, Path]:  # type: ignore[no-untyped-def]
    """The sdist of this checkout, and the wheel built from it."""
    from tests.support.environments import build_distributions

    return build_distributions(tmp_path_factory.mktemp("distributions"))
