"""Commands and code in README and docs run as they stand there."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from fcn_deploy.cli.app import cli, run
from fcn_deploy.data.images import read_image
from fcn_deploy.demo import CLASSES, EVALUATION_SEEDS, checkpoint_path, write_scenes
from fcn_deploy.models import read_checkpoint
from tests.support.videos import make_video

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "calibration/README.md"]
RUN = ("README.md", "runtime.md", "models.md", "quantization.md", "python.md", "video.md")
# What a page says of the reader's hardware, and what stands in for it here.
STAND_INS = {"cv2.VideoCapture(0)": 'cv2.VideoCapture("frames/scene_1000%02d.png")'}


def _blocks(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.M | re.S)


def _lines(body: str) -> list[list[str]]:
    lines = (shlex.split(line, comments=True) for line in body.replace("\\\n", " ").splitlines())
    return [line for line in lines if line]


def _commands(page: Path) -> list[list[str]]:
    return [command for language, body in _blocks(page) if language == "sh" for command in _lines(body)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the reader of the README is taken to have."""
    folder = tmp_path_factory.mktemp("reader")
    sample = ROOT / "calibration" / "sample" / "images"
    shutil.copytree(sample, folder / "frames")
    shutil.copy(min(sample.iterdir()), folder / "frame.png")
    write_scenes(folder / "street", EVALUATION_SEEDS[:5], (96, 128))
    scenes = [read_image(path) for path in sorted((folder / "street" / "images").iterdir())]
    make_video(folder / "clip.mp4", scenes)
    (folder / "classes.csv").write_text("\n".join(CLASSES))
    torch.save(dict(read_checkpoint(checkpoint_path()).state), folder / "fcn8s.pth")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_every_command_and_every_piece_of_code_runs(name, workplace, monkeypatch, capsys):
    page = next(page for page in PAGES if page.name == name)
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(workplace)
    if name != "README.md":
        assert (workplace / "fcn8s.int8.onnx").is_file(), "the README's test makes what this page runs"
    names: dict[str, object] = {}  # a reader types the pieces of a page one after the other
    for language, body in _blocks(page):
        script = re.match(r"# (\w+\.py)\n", body)
        if script:
            (workplace / script[1]).write_text(body)
        elif language == "python":
            for real, here in STAND_INS.items():
                body = body.replace(real, here)
            exec(compile(body, name, "exec"), names)
        for command in _lines(body) if language == "sh" else ():
            if command[0] == "python":
                runpy.run_path(command[1], run_name="__main__")
            if command[0] == "fcn-deploy" and "--demo" not in command:
                assert run(command[1:]) == 0, (command, capsys.readouterr().err)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists_with_its_options(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, re.M))
    variables = set(re.findall(r"^(\w+) \?=", makefile, re.M))
    extras = set(re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))
    for command in _commands(page):
        program, *arguments = command
        if program == "make":
            assert {word for word in arguments if "=" not in word} <= targets, command
            assert {word.split("=")[0] for word in arguments if "=" in word} <= variables, command
        elif program == "pip":
            named = re.search(r"^\.\[(.*)\]$", command[-1])
            assert named, command
            assert set(named[1].split(",")) <= extras, command
        elif program == "fcn-deploy":
            subcommand = cli.get_command(None, arguments[0])
            assert subcommand, command
            subcommand.make_context(arguments[0], list(arguments[1:]))
        else:
            assert program == "python", command
            shown = any(body.startswith(f"# {arguments[0]}\n") for _, body in _blocks(page))
            assert shown or (ROOT / arguments[0]).is_file(), command


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_demo_gives_the_figures_of_the_readme(tmp_path, capsys):
    stated = re.search(r"mIoU of\s+([\d.]+)\s.*?and\s+([\d.]+)\s+in\s+INT8", (ROOT / "README.md").read_text(), re.S)
    assert stated
    assert run(["deploy", "--demo", "-o", str(tmp_path / "demo"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["calibration"]["judged"] == 100
    assert summary["pytorch"]["miou"] == pytest.approx(float(stated[1]), abs=0.1)
    assert summary["engines"][1]["miou"] == pytest.approx(float(stated[2]), abs=0.1)
