"""Paths as no command wants them: each ends in one line and exit 6, for every path of every command."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from fcn_deploy.cli.app import run
from fcn_deploy.errors import InputError, UsageError

LONG = "n" * 300

# A command that would succeed, but for the path that stands in the place of BAD. {name} is a good one.
READ = {
    "simplify": "simplify BAD -o {out}.onnx",
    "calibrate": "calibrate BAD --calib-data {photos} -o {out}.json",
    "calibrate images": "calibrate {model} --calib-data BAD -o {out}.json",
    "build-engine": "build-engine BAD -o {out}.onnx",
    "build-engine images": "build-engine {model} --int8 --calib-data BAD -o {out}.onnx",
    "build-engine ranges": "build-engine {model} --int8 --ranges BAD -o {out}.onnx",
    "build-engine spec": "build-engine {model} --spec-from BAD -o {out}.onnx",
    "build-engine map": "build-engine {model} --int8 --ranges {ranges} --precision-map BAD -o {out}.onnx",
    "build-engine data": "build-engine {model} --int8 --ranges {ranges} --calib-method auto --data BAD -o {out}.onnx",
    "verify": "verify BAD --reference {model} --data {photos}",
    "verify reference": "verify {engine} --reference BAD --data {photos}",
    "verify checkpoint": "verify {engine} --reference pytorch:BAD --data {photos}",
    "verify weights": "verify {engine} --weights BAD --data {photos}",
    "verify data": "verify {engine} --reference {model} --data BAD",
    "evaluate": "evaluate BAD --data {photos} --labels {labels}",
    "evaluate data": "evaluate {engine} --data BAD --labels {labels}",
    "evaluate labels": "evaluate {engine} --data {photos} --labels BAD",
    "evaluate reference": "evaluate {engine} --data {photos} --labels {labels} --reference BAD",
    "benchmark": "benchmark BAD --shape 8x8",
    "benchmark vs": "benchmark {engine} --shape 8x8 --vs BAD",
    "predict": "predict BAD {photo} -o {out}",
    "predict input": "predict {engine} BAD -o {out}",
    "sensitivity": "sensitivity BAD --ranges {ranges} --data {photos}",
    "sensitivity ranges": "sensitivity {model} --ranges BAD --data {photos}",
    "sensitivity data": "sensitivity {model} --ranges {ranges} --data BAD",
    "inspect": "inspect BAD",
    "export": "export --weights BAD -o {out}.onnx",
    "export classes": "export --weights {checkpoint} --class-names BAD -o {out}.onnx",
    "deploy": "deploy --weights BAD --calib-data {photos} -o {out}",
    "deploy images": "deploy --weights {checkpoint} --calib-data BAD -o {out}",
    "deploy data": "deploy --weights {checkpoint} --calib-data {photos} --data BAD -o {out}",
    "deploy classes": "deploy --weights {checkpoint} --calib-data {photos} --class-names BAD -o {out}",
}
WRITE = {
    "simplify": ("simplify {model} -o BAD", ".onnx"),
    "calibrate": ("calibrate {model} --calib-data {photos} -o BAD", ".json"),
    "build-engine": ("build-engine {model} -o BAD", ".onnx"),
    "build-engine log": ("build-engine {model} --backend tensorrt-rtx -o {out}.engine --log BAD", ".txt"),
    "build-engine cache": ("build-engine {model} --backend tensorrt -o {out}.engine --timing-cache BAD", ".cache"),
    "sensitivity": ("sensitivity {model} --ranges {ranges} --data {photos} -o BAD", ".json"),
    "sensitivity plot": ("sensitivity {model} --ranges {ranges} --data {photos} --plot BAD", ".svg"),
    "export": ("export --weights {checkpoint} -o BAD", ".onnx"),
}
WRITE_FOLDER = {
    "predict": "predict {engine} {photo} -o BAD",
    "deploy": "deploy --weights {checkpoint} --calib-data {photos} -o BAD",
}


@pytest.fixture(scope="module")
def good(exported, ranges_file, photo_folder, checkpoint_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    engine = folder / "engine.onnx"
    assert run(["build-engine", str(exported("fcn8s")), "--io", "tensor", "-o", str(engine)]) == 0
    labels = folder / "labels"
    labels.mkdir()
    for photo in photo_folder.iterdir():
        with Image.open(photo) as image:
            Image.new("L", image.size).save(labels / photo.name)
    return {
        "labels": labels,
        "model": exported("fcn8s"),
        "ranges": ranges_file("fcn8s"),
        "engine": engine,
        "photos": photo_folder,
        "photo": photo_folder / "photo_00.png",
        "checkpoint": checkpoint_file("fcn8s"),
    }


@pytest.fixture
def fails(good, tmp_path, capsys, monkeypatch):
    """Runs a command with a bad path, which has to fail in one line, without work and without writing anything."""

    def fails(line, bad, code=6):
        out = tmp_path / "outputs"
        out.mkdir(exist_ok=True)
        words = line.format(**good, out=out / "out").replace("BAD", "\0").split(" ")
        before = sorted(tmp_path.rglob("*"))
        found = run([word.replace("\0", str(bad)) for word in words])
        said = capsys.readouterr()
        assert found == code, said.err
        lines = said.err.splitlines()
        assert sum(line.startswith("error: ") for line in lines) == 1, said.err
        assert lines[-1].startswith("error: ")
        assert "Errno" not in said.err
        assert said.out == ""
        assert sorted(tmp_path.rglob("*")) == before
        return lines[-1]

    return fails


def _bad_paths(folder, suffix=""):
    """Makes paths that cannot be read, by what is wrong with them."""
    (folder / "file").write_text("x")
    loop, dangling = folder / f"loop{suffix}", folder / f"dangling{suffix}"
    loop.symlink_to(loop.name)
    dangling.symlink_to(f"gone{suffix}")
    return {
        "missing": folder / f"none{suffix}",
        "long": folder / f"{LONG}{suffix}",
        "long folder": folder / LONG / f"x{suffix}",
        "loop": loop,
        "through a loop": loop / f"x{suffix}",
        "dangling": dangling,
        "through a file": folder / "file" / f"x{suffix}",
        "not UTF-8": os.fsdecode(os.fsencode(folder) + b"/\xff\xfe" + suffix.encode()),
        "controls": folder / f"a\nb\x1b[31m{suffix}",
    }


@pytest.mark.parametrize("name", READ)
def test_what_cannot_be_read(name, fails, tmp_path):
    suffix = ".onnx" if "reference" in name or name in ("verify", "evaluate", "benchmark", "predict", "inspect") else ""
    for bad in _bad_paths(tmp_path, suffix).values():
        fails(READ[name], bad)


@pytest.mark.parametrize("name", [name for name in READ if not name.endswith(("images", "data", "labels", "input"))])
def test_a_folder_in_the_place_of_a_file(name, fails, tmp_path):
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    assert "a folder" in fails(READ[name], folder)


@pytest.mark.parametrize("name", [name for name in READ if name.endswith(("images", "data", "labels"))])
def test_a_file_in_the_place_of_a_folder(name, fails, good):
    assert "is not a folder" in fails(READ[name], good["photo"])


@pytest.mark.parametrize("name", WRITE)
def test_what_cannot_be_written(name, fails, tmp_path):
    line, suffix = WRITE[name]
    bad = _bad_paths(tmp_path, suffix)
    for kind in ("long", "long folder", "loop", "through a loop", "through a file"):
        fails(line, bad[kind])
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert "a folder" in fails(line, folder)
    fails(line, tmp_path / "none" / f"x{suffix}")


@pytest.mark.parametrize("name", WRITE_FOLDER)
def test_folders_that_cannot_be_made(name, fails, tmp_path):
    bad = _bad_paths(tmp_path)
    for kind in ("long", "long folder", "loop", "through a loop", "through a file", "dangling"):
        fails(WRITE_FOLDER[name], bad[kind])
    fails(WRITE_FOLDER[name], tmp_path / "file")


@pytest.mark.parametrize("name", [*READ, *WRITE, *WRITE_FOLDER])
def test_an_empty_path_is_a_usage_error(name, good, tmp_path, capsys):
    lines = {**READ, **{key: line for key, (line, _) in WRITE.items()}, **WRITE_FOLDER}
    line = lines[name].format(**good, out=tmp_path / "out").replace("BAD", "\0")
    assert run([word.replace("\0", "") for word in line.split(" ")]) == 2
    assert "empty" in capsys.readouterr().err


# Permissions do not hold for root, so a child gives up root's right to ignore them.
AS_ANY_USER = """
    import ctypes, os, sys
    if os.geteuid() == 0 and "given up" not in sys.argv:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP, for what is executed from now on
                sys.exit(77)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], "given up"])
    from fcn_deploy.cli.app import run
    codes = {run(line.split(" ")) for line in sys.argv[1:] if line != "given up"}
    sys.exit(codes.pop() if len(codes) == 1 else 1)
"""


def as_any_user(*lines):
    """Runs command lines without root's rights; returns the errors."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(AS_ANY_USER), *lines], capture_output=True, text=True, check=False
    )
    if result.returncode == 77:
        pytest.skip("root cannot give up its rights here")
    assert result.returncode == 6, result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_what_may_not_be_read_or_written(good, tmp_path):
    closed, unreadable, images = tmp_path / "closed", tmp_path / "unreadable.onnx", tmp_path / "images"
    for folder in (closed, images):
        folder.mkdir()
    shutil.copy(good["photo"], images / "a.png")
    (images / "a.png").chmod(0)
    shutil.copy(good["model"], closed / "x.onnx")
    shutil.copy(good["model"], unreadable)
    unreadable.chmod(0)
    closed.chmod(0o600)
    readonly = tmp_path / "readonly"
    readonly.mkdir(mode=0o555)
    reads = ("inspect BAD", "build-engine BAD -o /tmp/x.onnx", "predict BAD {photo} -o /tmp/x")
    lines = [line.replace("BAD", str(bad)) for line in reads for bad in (closed / "x.onnx", unreadable)]
    lines += [
        f"predict {{engine}} {closed} -o /tmp/x",
        f"predict {{engine}} {closed / 'x.png'} -o /tmp/x",
        f"predict {{engine}} {images} -o /tmp/x",
        f"calibrate {{model}} --calib-data {closed} -o /tmp/x.json",
        f"calibrate {{model}} --calib-data {images} -o /tmp/x.json",
        f"calibrate {{model}} --calib-data {{photos}} -o {closed / 'x.json'}",
        f"calibrate {{model}} --calib-data {{photos}} -o {readonly / 'x.json'}",
        f"build-engine {{model}} -o {readonly / 'x.onnx'}",
        f"predict {{engine}} {{photo}} -o {closed / 'x'}",
        f"predict {{engine}} {{photo}} -o {readonly / 'x'}",
        f"predict {{engine}} {{photo}} -o {readonly}",
    ]
    said = as_any_user(*(line.format(**good) for line in lines))
    assert len(said) == len(lines), "\n".join(said)
    assert all("ermission" in line for line in said), "\n".join(said)


def test_names_that_are_not_utf_8_work(good, tmp_path, call):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xfe")
    Path(folder).mkdir()
    names = {name: f"{folder}/{name}\udcff{good[name].suffix}" for name in ("model", "engine", "checkpoint")}
    for name, path in names.items():
        shutil.copy(good[name], path)
    shutil.copy(f"{good['engine']}.json", f"{names['engine']}.json")
    (Path(folder) / "images").mkdir()
    images, image, out = f"{folder}/images", f"{folder}/images/\udcff.png", f"{folder}/out"
    shutil.copy(good["photo"], image)
    assert r"\xfe/out" in call("predict", names["engine"], image, "-o", out).out
    assert sorted(path.name for path in Path(out).iterdir()) == ["\udcff.labels.png", "\udcff.overlay.png"]
    call("verify", names["engine"], "--reference", names["model"], "--data", images)
    call("verify", names["engine"], "--weights", names["checkpoint"], "--data", images)
    call("calibrate", names["model"], "--calib-data", images, "-o", f"{folder}/\udcff.json")
    call("build-engine", names["model"], "-o", f"{folder}/\udcfe.onnx")
    call("inspect", names["engine"])
    call("inspect", names["checkpoint"])


def test_a_name_as_long_as_a_name_can_be_is_written(good, tmp_path, call):
    output = tmp_path / ("n" * 250 + ".json")
    call("calibrate", good["model"], "--calib-data", good["photos"], "-o", output)
    assert output.is_file()


def test_a_name_whose_sidecar_would_be_too_long_is_refused_before_work(fails, tmp_path):
    assert "too long" in fails("build-engine {model} -o BAD", tmp_path / ("n" * 250 + ".onnx"))


@pytest.mark.parametrize("beside", ["link", "target"])
def test_a_linked_engine_runs_with_the_sidecar_beside_link_or_target(beside, good, tmp_path, call):
    store, links = tmp_path / "store", tmp_path / "links"
    store.mkdir()
    links.mkdir()
    target, link = store / "real.onnx", links / "link.onnx"
    shutil.copy(good["engine"], target)
    link.symlink_to(target)
    sidecar = link.with_name("link.onnx.json") if beside == "link" else store / "real.onnx.json"
    shutil.copy(f"{good['engine']}.json", sidecar)
    call("predict", link, good["photo"], "-o", tmp_path / "out")
    assert "io" in call("inspect", link).out
    sidecar.write_text(sidecar.read_text().replace('"sha256": "', '"sha256": "0', 1))
    call("predict", link, good["photo"], "-o", tmp_path / "out", code=5)
    sidecar.unlink()
    call("verify", link, "--reference", good["model"], "--data", good["photos"], code=5)


def _calls(good):
    """Every path that the Python API takes, as functions of that path."""
    import fcn_deploy as fd
    from fcn_deploy.runtime.open import open_backend

    model, ranges, photos = good["model"], good["ranges"], good["photos"]
    engine = fd.load_engine(good["engine"])
    return {
        "load_exported": fd.load_exported,
        "load_ranges": fd.load_ranges,
        "load_engine": fd.load_engine,
        "Segmenter": fd.Segmenter,
        "open_backend": open_backend,
        "inspect": fd.inspect,
        "ImageFolder": fd.ImageFolder.open,
        "Engine.save": engine.save,
        "Ranges.save": fd.load_ranges(ranges).save,
        "ExportedModel.save": fd.load_exported(model).save,
        "export": lambda path: fd.export(path),
        "export output": lambda path: fd.export(good["checkpoint"], output=path),
        "simplify": lambda path: fd.simplify(path),
        "calibrate": lambda path: fd.calibrate(path, photos),
        "calibrate images": lambda path: fd.calibrate(model, path),
        "calibrate output": lambda path: fd.calibrate(model, photos, output=path),
        "build_engine": lambda path: fd.build_engine(path),
        "build_engine output": lambda path: fd.build_engine(model, output=path),
        "verify": lambda path: fd.verify(path, model, photos),
        "verify reference": lambda path: fd.verify(engine, path, photos),
        "evaluate labels": lambda path: fd.evaluate(engine, photos, path),
        "benchmark": lambda path: fd.benchmark([path], shape="8x8"),
        "predict": lambda path: fd.predict(engine, path, "out"),
        "predict output": lambda path: fd.predict(engine, good["photo"], path),
        "sensitivity plot": lambda path: fd.sensitivity(model, ranges=ranges, data=photos, plot=path),
        "deploy output": lambda path: fd.deploy(good["checkpoint"], photos, path),
    }


@pytest.mark.parametrize(("path", "error"), [("a\0b", InputError), ("", UsageError), (3, UsageError)])
def test_what_is_no_path_is_refused_by_the_python_api(path, error, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, call in _calls(good).items():
        if path == 3 and name in ("Segmenter", "verify", "verify reference", "benchmark", "predict"):
            continue  # they take other objects too
        with pytest.raises(error) as caught:
            call(path)
        assert "\n" not in str(caught.value), name
    assert not list(tmp_path.iterdir())
