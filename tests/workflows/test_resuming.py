"""Finished stages of a deployment that failed are taken over on demand, and only if the same went into them."""

import json

import numpy as np
import pytest
from PIL import Image

from fcn_deploy.errors import GateError, InputError
from fcn_deploy.files import only_writer
from fcn_deploy.workflows import deploying, resuming
from fcn_deploy.workflows.deploying import deploy
from fcn_deploy.workflows.fingerprints import code_hash, label_map_input
from fcn_deploy.workflows.resuming import FOLDER, Kind, Stages

TEXT = Kind(
    lambda text, folder: (folder / "text").write_text(text) and None, lambda folder: (folder / "text").read_text()
)


class Listener:
    def __init__(self):
        self.said = []

    def stage(self, text):
        self.said.append(text)


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def run(tmp_path, listener):
    """Runs stages `first` and `second`; the body of the context then raises, unless the error is None."""

    def run(*, resume, error=None, first=1, second=1):
        made = []

        def make(text):
            made.append(text)
            return text

        try:
            with Stages(tmp_path, resume=resume, progress=listener) as stages:
                assert stages.run("first", {"weights": first}, TEXT, lambda: make(f"first {first}")) == f"first {first}"
                assert stages.run("second", {"second": second}, TEXT, lambda: make("second")) == "second"
                if error is not None:
                    raise error
        except (InputError, KeyboardInterrupt) as raised:
            return made, stages.taken, raised
        return made, stages.taken, None

    return run


def test_a_deployment_that_ends_well_keeps_nothing(run, tmp_path):
    assert run(resume=False)[0] == ["first 1", "second"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_finished_is_taken_over(run, tmp_path, listener):
    _, _, error = run(resume=False, error=InputError("full", fix="make room"))
    assert str(error) == ("full; fix: make room; to take over what is finished (first, second), add `resume=True`")
    made, taken, _ = run(resume=True)
    assert (made, taken) == ([], ["first", "second"])
    assert listener.said == ["first: taken over from the earlier run", "second: taken over from the earlier run"]
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_says_where_it_is_kept(run, tmp_path, listener):
    run(resume=False, error=KeyboardInterrupt())
    assert listener.said == [
        f"kept what is finished (first, second) in {tmp_path / FOLDER}: `resume=True` takes it over"
    ]
    # Those that were taken over stay for a third run.
    run(resume=True, error=KeyboardInterrupt())
    assert run(resume=True)[0] == []


def test_what_has_changed_is_done_anew_and_said(run, listener):
    run(resume=False, error=KeyboardInterrupt())
    listener.said.clear()
    made, taken, _ = run(resume=True, first=2)
    assert (made, taken) == (["first 2"], ["second"])
    assert listener.said[0] == "first: done anew, because of another `weights`"


def test_another_version_is_no_earlier_run(run, listener, monkeypatch):
    run(resume=False, error=KeyboardInterrupt())
    monkeypatch.setattr(resuming, "_versions", lambda: {"version of fcn_deploy": "9"})
    made, taken, _ = run(resume=True)
    assert (len(made), taken) == (2, [])
    assert any("another version of fcn_deploy" in said for said in listener.said)


@pytest.mark.parametrize("file", ["text", "stage.json"])
@pytest.mark.parametrize("damage", [lambda path: path.write_text("{}"), lambda path: path.write_text("no JSON")])
def test_a_damaged_stage_is_noticed(run, tmp_path, listener, file, damage):
    run(resume=False, error=KeyboardInterrupt())
    damage(tmp_path / FOLDER / "first" / file)
    made, taken, _ = run(resume=True)
    assert (made, taken) == (["first 1"], ["second"])
    assert f"first: done anew, because {file} of the earlier run is damaged" in listener.said


def test_numbers_of_numpy_are_inputs_too(run):
    run(resume=False, error=KeyboardInterrupt(), second=(np.float32(0.5), np.int64(2)))
    assert run(resume=True, second=(np.float32(0.5), np.int64(2)))[1] == ["first", "second"]


def test_a_stage_without_its_record_was_not_finished(run, tmp_path):
    run(resume=False, error=KeyboardInterrupt())
    (tmp_path / FOLDER / "first" / "stage.json").unlink()
    assert run(resume=True)[0] == ["first 1"]


def test_without_resume_an_earlier_run_is_removed_and_that_is_said(run, tmp_path, listener):
    run(resume=False, error=KeyboardInterrupt())
    made, taken, _ = run(resume=False)
    assert (len(made), taken) == (2, [])
    assert f"removed the stages that an earlier run kept in {tmp_path / FOLDER}" in listener.said


def test_resume_without_an_earlier_run_says_so(run, listener):
    assert len(run(resume=True)[0]) == 2
    assert listener.said[0].startswith("nothing to take over")


def test_a_stage_that_cannot_be_kept_leaves_nothing(tmp_path, listener):
    def full(text, folder):
        (folder / "half").write_text(text)
        raise InputError("cannot write", got="No space left on device")

    with pytest.raises(InputError, match="No space left"), Stages(tmp_path, resume=False, progress=listener) as stages:
        stages.run("first", {}, Kind(full, lambda folder: ""), lambda: "text")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path, listener):
    (tmp_path / FOLDER).write_text("mine")
    with pytest.raises(InputError, match="cannot keep stages"), Stages(tmp_path, resume=False, progress=listener):
        pytest.fail("it began")
    assert (tmp_path / FOLDER).read_text() == "mine"


def test_the_code_of_a_net_counts_and_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text("raise SystemExit")
    first = code_hash("my_nets:make")
    (tmp_path / "my_layers.py").write_text("changed = True")  # my_nets may import it
    second = code_hash("my_nets:make")
    assert len({first, second, code_hash("no_such_module:make")}) == 3
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("raise SystemExit")
    third = code_hash("my_package.nets:make")
    (tmp_path / "my_package" / "nets.py").write_text("")
    assert third != code_hash("my_package.nets:make")


def test_code_that_a_package_imports_from_elsewhere_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("import os, no_such_module\nfrom my_blocks import Block")
    (tmp_path / "my_package" / "broken.py").write_text("this is no Python")
    (tmp_path / "my_blocks.py").write_text("from more.parts import Part")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "parts.py").write_text("Part = 1")
    hashes = [code_hash("my_package.nets:make")]
    (tmp_path / "more" / "parts.py").write_text("Part = 2")
    hashes.append(code_hash("my_package.nets:make"))
    (tmp_path / "my_blocks.py").write_text("Block = 1")
    hashes.append(code_hash("my_package.nets:make"))
    assert len(set(hashes)) == 3


def test_of_installed_code_only_what_makes_the_net_counts(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages"
    for package, code in (("their_nets", "import their_parts"), ("their_parts", "")):
        (installed / package).mkdir(parents=True)
        (installed / package / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(installed)
    before = code_hash("their_nets:make")
    (installed / "their_parts" / "__init__.py").write_text("changed = True")
    assert code_hash("their_nets:make") == before
    (installed / "their_nets" / "__init__.py").write_text("changed = True")
    assert code_hash("their_nets:make") != before


def test_a_label_map_longer_than_a_name_can_be_is_an_input(tmp_path):
    (tmp_path / "map.txt").write_text("255=1")
    pairs = ",".join(f"{value}=ignore" for value in range(3, 100))
    given = (pairs, "255=1", {255: 1}, tmp_path / "map.txt", str(tmp_path / "map.txt"), None)
    *found, of_path, of_text, nothing = map(label_map_input, given)
    assert found == [pairs, "255=1", [["255", "1"]]]
    assert of_path == of_text
    assert nothing is None
    (tmp_path / "map.txt").write_text("255=0")
    assert label_map_input(tmp_path / "map.txt") != of_path


QUICK = {"int8": True, "warmup": 0, "duration": 0, "iterations": 5}
TOO_MUCH = "agreement>=100%"


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    from fcn_deploy.demo import CALIBRATION_SEEDS, checkpoint_path, write_scenes

    folder = tmp_path_factory.mktemp("field")
    write_scenes(folder, CALIBRATION_SEEDS[:10], (48, 64))
    return checkpoint_path(), folder / "images"


@pytest.fixture(scope="module")
def missed(field, tmp_path_factory):
    """The folder of a deployment whose INT8 engine missed its gate, and its error."""
    output = tmp_path_factory.mktemp("missed") / "out"
    with pytest.raises(GateError) as caught:
        deploy(*field, output, gate=TOO_MUCH, **QUICK)
    return output, caught.value


@pytest.fixture
def again(missed, tmp_path):
    import shutil

    return shutil.copytree(missed[0], tmp_path / "out")


def test_after_a_missed_gate_another_gate_costs_no_work(missed, again, field, monkeypatch):
    assert "add `resume=True`" in missed[1].fix
    assert not list(missed[0].glob("*.int8.onnx"))
    for name in ("export", "calibrate", "build_engine", "compare", "time_engines"):
        monkeypatch.setattr(deploying, name, lambda *a, **k: pytest.fail("the work was done again"))
    listener = _Everything()
    summary = deploy(*field, again, gate="agreement>=10%", resume=True, progress=listener, **QUICK)
    assert summary.passed
    assert summary.resumed == ("export", "ranges", "fp32", "int8", "measures")
    names = {path.name for path in again.iterdir()}
    assert {"fcn8s.int8.onnx", "fcn8s.int8.onnx.json", "summary.json"} <= names
    assert FOLDER not in names
    before = missed[1].report
    assert [engine.parity for engine in summary.engines] == [engine.parity for engine in before.engines]
    assert [engine.vs_pytorch for engine in summary.engines] == [engine.vs_pytorch for engine in before.engines]
    assert json.loads((again / "summary.json").read_text())["resumed"] == list(summary.resumed)
    from fcn_deploy.runtime import Segmenter

    with Segmenter(again / "fcn8s.int8.onnx") as segmenter:
        assert segmenter.sidecar.gate.criteria == ("agreement>=10%",)


def test_two_deployments_do_not_write_into_one_folder(again, field):
    before = sorted(path.name for path in again.rglob("*"))
    with only_writer(again), pytest.raises(InputError, match="another process is writing into"):
        deploy(*field, again, **QUICK)
    assert sorted(path.name for path in again.rglob("*")) == before


def test_other_images_are_observed_anew(again, field, tmp_path, monkeypatch):
    import shutil

    weights, images = field
    other = shutil.copytree(images, tmp_path / "other")
    first = min(other.iterdir())
    Image.open(first).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(first)
    monkeypatch.setattr(deploying, "export", lambda *a, **k: pytest.fail("it was exported again"))
    listener = _Everything()
    summary = deploy(weights, other, again, gate="agreement>=10%", resume=True, progress=listener, **QUICK)
    assert summary.resumed == ("export", "fp32")
    assert "ranges: done anew, because of another `calib_data`" in listener.said


def test_ctrl_c_while_measuring_costs_the_measures_only(field, tmp_path, monkeypatch, capsys):
    from fcn_deploy.cli.app import run

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    real = deploying.compare
    monkeypatch.setattr(deploying, "compare", interrupt)
    weights, images = field
    command = ["deploy", "--weights", weights, "--calib-data", images, "--int8", "-o", tmp_path / "out"]
    command += ["--warmup", 0, "--duration", 0, "--iterations", 5, "--gate", "agreement>=10%"]
    assert run([str(each) for each in command]) == 130
    kept = f"kept what is finished (export, ranges, fp32, int8) in {tmp_path / 'out' / FOLDER}: --resume takes it over"
    assert kept in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [FOLDER]
    monkeypatch.setattr(deploying, "compare", real)
    assert run([*map(str, command), "--resume"]) == 0
    said = capsys.readouterr()
    assert "taken over from an earlier run: export, ranges, fp32, int8" in said.out
    assert "int8: taken over from the earlier run" in said.err


class _Everything(Listener):
    """A listener to all that a deployment reports, which keeps the stages alone."""

    def __getattr__(self, name):
        from fcn_deploy.progress import Silent

        return getattr(Silent(), name)
