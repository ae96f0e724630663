"""A bundle is checked to the last byte before anything in it is used; what is changed, missing or added is refused."""

import json
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_deploy.bundle import folder as module
from fcn_deploy.bundle.folder import check_bundle, check_replaceable, remove_bundle, write_bundle
from fcn_deploy.errors import ArtifactError, InputError
from fcn_deploy.files import sha256_bytes
from tests.support.bundles import make_bundle, manifest

FILES = ("bundle.json", "bundle.json.sha256", "expected.npz", "fp16.onnx", "int8.onnx", "ranges.json")


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle").folder


@pytest.fixture(scope="module")
def pristine():
    with tempfile.TemporaryDirectory() as folder:
        made = make_bundle(Path(folder, "bundle")).folder
        yield {path.name: path.read_bytes() for path in made.iterdir()}


def forge(folder, **changes):
    """Changes bundle.json, and its hash so that it fits: what somebody can do who means harm."""
    data = json.loads((folder / "bundle.json").read_text())
    for key, value in changes.items():
        data[key] = value(data[key]) if callable(value) else value
    text = json.dumps(data).encode()
    (folder / "bundle.json").write_bytes(text)
    (folder / "bundle.json.sha256").write_text(f"{sha256_bytes(text)}  bundle.json\n")


def test_a_bundle_comes_back_as_it_was_written(bundle):
    checked = check_bundle(bundle)
    assert {path.name for path in bundle.iterdir()} == set(FILES)
    assert checked.manifest == make_bundle(bundle.parent / "again").manifest
    assert set(checked.manifest.files) == set(FILES) - {"bundle.json", "bundle.json.sha256"}
    assert checked.read("fp16.onnx") == b"a graph, fp16-fp16"


def test_sha256sum_reads_the_hash_of_the_manifest(bundle):
    line = (bundle / "bundle.json.sha256").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}  bundle\.json\n", line)


def test_nobody_but_the_user_decides_who_may_read_it(bundle):
    """As with any other new folder: the one that it was written in first is private."""
    other = bundle.with_name("other")
    other.mkdir()
    assert bundle.stat().st_mode == other.stat().st_mode


@given(data=st.data())
def test_one_changed_byte_anywhere_is_refused(pristine, data):
    name = data.draw(st.sampled_from(sorted(pristine)))
    content = bytearray(pristine[name])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    _refused(pristine, {name: bytes(content)})


@given(data=st.data())
def test_a_file_that_is_shorter_or_longer_is_refused(pristine, data):
    name = data.draw(st.sampled_from(sorted(pristine)))
    content = pristine[name]
    cut = data.draw(st.integers(0, len(content) - 1))
    added = data.draw(st.binary(min_size=1, max_size=4))
    _refused(pristine, {name: data.draw(st.sampled_from((content[:cut], content + added)))})


@given(name=st.sampled_from(FILES))
def test_a_missing_file_is_refused(pristine, name):
    _refused({key: content for key, content in pristine.items() if key != name}, {})


@given(name=st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20))
def test_a_file_more_is_refused(pristine, name):
    if name not in (*FILES, ".", "..") and len(name.encode()) < 200:
        _refused(pristine, {name: b""})


def _refused(files, changed):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in {**files, **changed}.items():
            (folder / file).write_bytes(content)
        with pytest.raises((ArtifactError, InputError)) as refused:
            check_bundle(folder)
        no_bundle = "bundle.json" not in {**files, **changed}
        assert refused.type is (InputError if no_bundle else ArtifactError)


def test_nothing_is_parsed_before_its_hash_is_right(bundle, monkeypatch):
    (bundle / "bundle.json").write_bytes(b"[" * 10**5)
    monkeypatch.setattr(module.json, "loads", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(ArtifactError, match=r"is not the file that bundle\.json\.sha256 describes"):
        check_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_link_or_a_folder_in_the_place_of_a_file_is_refused(bundle, name):
    other = bundle.with_name("other")
    (bundle / name).rename(other)
    (bundle / name).symlink_to(other)
    with pytest.raises(ArtifactError, match="is not a plain file"):
        check_bundle(bundle)
    (bundle / name).unlink()
    (bundle / name).mkdir()
    with pytest.raises(ArtifactError, match="is not a plain file"):
        check_bundle(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, 'has an unknown format; got "format": 2'),
        ({"requires": ["signature"]}, "would misunderstand bundle.json; got it requires 'signature'"),
        ({"files": lambda files: {**files, "../up.onnx": files["fp16.onnx"]}}, "lists other files than a bundle has"),
        ({"files": lambda files: {**files, "/etc/passwd": files["fp16.onnx"]}}, "lists other files"),
        ({"files": {}}, "lists other files than a bundle has; got none"),
        ({"files": "none"}, "bundle.json is malformed"),
        ({"graphs": {}}, "graphs of a bundle"),
        ({"backend": "onnxruntime"}, "backend of a bundle"),
        ({"profiles": []}, "profiles of a bundle"),
        ({"profiles": [{"min": [0, 1, 1], "opt": [1, 1, 1], "max": [1, 1, 1]}]}, "sidecar profiles"),
        ({"profiles": [{"min": [1, 9, 9], "opt": [1, 8, 8], "max": [1, 9, 9]}]}, "min <= opt <= max"),
        ({"profiles": [{"min": [1, 9, 9], "opt": [1, 9, 9], "max": [1, 9, 2**31]}]}, "profile of a bundle"),
        ({"images": 0}, "images of a bundle"),
        ({"images": 2**70}, "integer|images|bundle"),
        ({"io": "video"}, "image or tensor"),
        ({"spec": {}}, "unknown format"),
    ],
)
def test_a_manifest_that_was_forged_with_its_hash_is_refused(bundle, changes, message):
    forge(bundle, **changes)
    if changes == {"images": 2**70}:  # said when the images are read
        assert check_bundle(bundle).manifest.images == 2**70
        return
    with pytest.raises(ArtifactError, match=message):
        check_bundle(bundle)


@pytest.mark.parametrize("entry", [{"bytes": 2**40}, {"bytes": -1}, {"bytes": "18"}, {"bytes": True}, {"sha256": "x"}])
def test_absurd_sizes_and_hashes_are_refused_before_a_file_is_read(bundle, entry, monkeypatch):
    forge(bundle, files=lambda files: {**files, "fp16.onnx": {**files["fp16.onnx"], **entry}})
    monkeypatch.setattr(module, "sha256_file", lambda path: pytest.fail("it was read"))
    with pytest.raises(ArtifactError):
        check_bundle(bundle)


def test_a_graph_under_the_name_of_another_is_refused(bundle):
    forge(bundle, graphs=lambda graphs: {**graphs, "fp16": {**graphs["fp16"], "file": "int8.onnx"}})
    with pytest.raises(ArtifactError, match=r"file of a graph; got 'int8\.onnx'; expected fp16\.onnx"):
        check_bundle(bundle)


def test_a_manifest_that_is_too_large_is_not_read(bundle, monkeypatch):
    os.truncate(bundle / "bundle.json", 17 << 20)
    monkeypatch.setattr(module, "read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(ArtifactError, match="is too large"):
        check_bundle(bundle)


@pytest.mark.parametrize(("kind", "got"), [("none", "no such file"), ("file", "a file"), ("empty", "no bundle.json")])
def test_what_is_no_bundle_is_an_input_error(tmp_path, kind, got):
    path = tmp_path / kind
    if kind == "file":
        path.write_text("")
    if kind == "empty":
        path.mkdir()
    with pytest.raises(InputError, match=f"is not a bundle; got {re.escape(got)}"):
        check_bundle(path)


def test_writing_replaces_a_bundle_and_nothing_else(bundle, tmp_path):
    make_bundle(bundle, images=2)
    assert check_bundle(bundle).manifest.images == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_text("")
    (tmp_path / "mine" / "bundle.json").write_text("of another tool")
    (tmp_path / "link").symlink_to(bundle)
    (tmp_path / "file").write_text("")
    for name in ("mine", "link", "file"):
        with pytest.raises(InputError, match="cannot write the bundle"):
            check_replaceable(tmp_path / name)
        with pytest.raises(InputError, match="cannot write the bundle"):
            make_bundle(tmp_path / name)
        assert not remove_bundle(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "mine", "link", "file"}
    assert remove_bundle(bundle)
    assert not bundle.exists()


def test_a_write_that_fails_leaves_the_old_bundle_and_nothing_else(bundle, tmp_path, monkeypatch):
    def full(path, data):
        raise InputError("cannot write", got="no space left on device")

    monkeypatch.setattr(module, "write_bytes", full)
    with pytest.raises(InputError, match="no space left"):
        make_bundle(bundle, images=2)
    assert check_bundle(bundle).manifest.images == 3
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_file_that_no_parser_could_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST_FILE", 10)
    with pytest.raises(InputError, match="too large for a bundle"):
        write_bundle(tmp_path / "b", manifest(), dict.fromkeys(FILES[2:], b"0123456789"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("failing", ["rename", "fsync", "rmdir", "unlink"])
def test_a_bundle_is_the_old_one_or_the_new_one_wherever_writing_it_ends(tmp_path, monkeypatch, failing, error):
    folder, real = tmp_path / "bundle", getattr(os, failing)
    make_bundle(folder, backend="tensorrt")
    for end in range(9):
        calls = iter(range(100))

        def ends(*arguments, calls=calls, end=end, **options):
            if next(calls) == end:
                raise error
            return real(*arguments, **options)

        with monkeypatch.context() as patched, suppress(KeyboardInterrupt, InputError, OSError):
            patched.setattr(os, failing, ends)
            make_bundle(folder, backend="tensorrt-rtx")
        assert check_bundle(folder).manifest.backend in ("tensorrt", "tensorrt-rtx")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["bundle"]
