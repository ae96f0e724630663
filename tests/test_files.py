import hashlib
import json
import math
import os
import re
import stat
import subprocess
import sys
import tempfile

import pytest

from fcn_deploy import files
from fcn_deploy.errors import InputError, UsageError
from fcn_deploy.files import (
    as_path,
    check_file,
    check_writable,
    dumps_json,
    exists,
    is_file,
    is_folder,
    make_folder,
    only_writer,
    output_folder,
    read_bytes,
    read_json,
    reading,
    real_path,
    sha256_bytes,
    sha256_file,
    temporary_folder,
    write_bytes,
    write_json,
)

needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


class Killed(BaseException):
    """What a killed command raises: no Exception."""


@pytest.fixture
def old(tmp_path):
    """A file whose content must not be lost."""
    path = tmp_path / "engine.onnx"
    path.write_bytes(b"old")
    return path


def entries(folder):
    return [path.name for path in folder.iterdir()]


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


# Hashes and reading


def test_a_file_and_its_bytes_have_the_same_hash(tmp_path):
    for size in (0, 1, (1 << 20) - 1, 1 << 20, (2 << 20) + 5):
        data = bytes(index % 251 for index in range(257)) * (size // 257 + 1)
        data = data[:size]
        (tmp_path / "f").write_bytes(data)
        assert sha256_file(tmp_path / "f") == sha256_bytes(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("read", [sha256_file, read_bytes, read_json])
def test_a_path_that_cannot_be_read_is_an_input_error(read, tmp_path):
    with pytest.raises(InputError, match=re.escape(f"cannot read {tmp_path / 'none'}; got No such file")) as caught:
        read(tmp_path / "none")
    assert caught.value.exit_code == 6
    with pytest.raises(InputError, match="Is a directory"):
        read(tmp_path)


def test_reading_turns_only_os_errors_into_input_errors(tmp_path):
    with pytest.raises(KeyError), reading(tmp_path):
        raise KeyError("mine")


@pytest.mark.parametrize("content", [b"", b"{", b"{'a': 1}", b"\xff\xfe\x00", b'{"a": 1} x'])
def test_a_file_that_is_not_json_is_an_input_error(tmp_path, content):
    path = tmp_path / "f.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{path} is not JSON; got ")):
        read_json(path)


def test_json_nested_too_deep_is_an_input_error(tmp_path):
    path = tmp_path / "f.json"
    path.write_text("[" * 200_000)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_json(path)


# Writing


def test_a_file_is_written_and_replaced(tmp_path):
    path = tmp_path / "f"
    write_bytes(path, b"first")
    assert path.read_bytes() == b"first"
    write_bytes(path, b"second, longer")
    write_bytes(path, b"")
    assert path.read_bytes() == b""
    assert entries(tmp_path) == ["f"]


@pytest.mark.parametrize("step", ["os.fsync", "tempfile.mkstemp", "os.fdopen"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(old, monkeypatch, step):
    monkeypatch.setattr(f"fcn_deploy.files.{step}", failing(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=re.escape(f"cannot write {old}; got No space left on device")) as caught:
        write_bytes(old, b"new")
    assert caught.value.exit_code == 6
    assert old.read_bytes() == b"old"
    assert entries(old.parent) == [old.name]


@pytest.mark.parametrize("method", ["replace", "chmod"])
def test_a_rename_that_fails_leaves_the_old_file_and_nothing_else(old, monkeypatch, method):
    monkeypatch.setattr(type(old), method, failing(PermissionError(1, "Operation not permitted")))
    with pytest.raises(InputError, match="Operation not permitted"):
        write_bytes(old, b"new")
    assert old.read_bytes() == b"old"
    assert entries(old.parent) == [old.name]


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
def test_a_killed_write_leaves_the_old_file_and_nothing_else(old, monkeypatch, error):
    monkeypatch.setattr("fcn_deploy.files.os.fsync", failing(error()))
    with pytest.raises(error):
        write_bytes(old, b"new")
    assert old.read_bytes() == b"old"
    assert entries(old.parent) == [old.name]


def test_the_content_is_on_the_disk_before_the_name_points_to_it(old, monkeypatch):
    events = []
    fsync, replace = os.fsync, type(old).replace

    def recording_fsync(descriptor):
        events.append(("fsync", os.fstat(descriptor).st_size, old.read_bytes()))
        fsync(descriptor)

    def recording_replace(self, target):
        events.append(("replace", self.parent == old.parent, self.read_bytes()))
        return replace(self, target)

    monkeypatch.setattr("fcn_deploy.files.os.fsync", recording_fsync)
    monkeypatch.setattr(type(old), "replace", recording_replace)
    write_bytes(old, b"new content")
    assert events[:2] == [("fsync", 11, b"old"), ("replace", True, b"new content")]
    assert old.read_bytes() == b"new content"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0, 0o666)])
def test_the_permissions_are_those_of_any_new_file(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_bytes(tmp_path / "f", b"")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode


def test_a_missing_folder_is_an_input_error_that_says_how_to_make_it(tmp_path):
    path = tmp_path / "none" / "f"
    for write in (check_writable, lambda path: write_bytes(path, b""), lambda path: write_json(path, {})):
        with pytest.raises(InputError, match=re.escape(f"got no folder {path.parent}; fix: create it: mkdir -p")):
            write(path)
    assert not path.parent.exists()


def test_a_folder_is_not_overwritten(tmp_path):
    (tmp_path / "f").mkdir()
    with pytest.raises(InputError, match="got a folder; expected a file name"):
        write_bytes(tmp_path / "f", b"")


def test_a_file_in_the_place_of_the_folder_is_an_input_error(old):
    with pytest.raises(InputError, match=re.escape(f"cannot write {old / 'f'}; got Not a directory")):
        write_bytes(old / "f", b"")


@needs_permissions
def test_a_folder_that_may_not_be_written_is_an_input_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        check_writable(tmp_path / "f")


def test_checking_writes_nothing(tmp_path, old):
    check_writable(tmp_path / "f")
    check_writable(old)
    assert entries(tmp_path) == [old.name]
    assert old.read_bytes() == b"old"


def test_a_relative_name_is_written_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bytes(files.Path("f"), b"x")
    assert (tmp_path / "f").read_bytes() == b"x"


def test_folders_are_made_with_their_parents_and_may_exist(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_in_the_place_of_a_file_is_an_input_error(old):
    for path in (old, old / "a"):
        with pytest.raises(InputError, match=re.escape(f"cannot make the folder {path}")):
            make_folder(path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_folders_made_for_work_that_failed_are_removed_if_they_are_empty(tmp_path, error):
    def fail(folder, *files):
        with output_folder(folder):
            for file in files:
                file.touch()
            raise error("no")

    (tmp_path / "there").mkdir()
    for name in ("there/a/b", "there", "new"):
        with pytest.raises(error):
            fail(tmp_path / name)
        assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with pytest.raises(error):
        fail(tmp_path / "half" / "done", tmp_path / "half" / "file")
    assert [path.name for path in (tmp_path / "half").iterdir()] == ["file"]


def test_folders_made_for_work_that_succeeded_stay(tmp_path):
    with output_folder(tmp_path / "a" / "b"):
        pass
    assert (tmp_path / "a" / "b").is_dir()


def test_a_temporary_folder_is_gone_after_the_work_even_if_that_failed():
    def work(made):
        with temporary_folder() as folder:
            made.append(folder)
            (folder / "file").write_text("x")
            raise KeyboardInterrupt

    folders = []
    with pytest.raises(KeyboardInterrupt):
        work(folders)
    assert not folders[0].exists()


def test_no_place_for_temporary_files_is_an_input_error_that_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(InputError, match=r"cannot make a folder for temporary files.*TMPDIR"), temporary_folder():
        pytest.fail("the work began")


def test_an_output_folder_in_the_place_of_a_file_is_an_input_error(old):
    with pytest.raises(InputError, match="cannot make the folder"), output_folder(old / "a"):
        pytest.fail("the work began")
    assert old.read_bytes() == b"old"


def test_of_folders_of_which_one_cannot_be_made_none_stays(tmp_path):
    with pytest.raises(InputError, match="cannot make the folder"), output_folder(tmp_path / "a" / ("b" * 300) / "c"):
        pytest.fail("the work began")
    assert list(tmp_path.iterdir()) == []


# JSON


def test_json_is_read_back_unchanged(tmp_path):
    data = {"format": 1, "list": [1, 2.5, None, True], "nested": {"täglich": "→"}}
    write_json(tmp_path / "f.json", data)
    assert read_json(tmp_path / "f.json") == data
    assert (tmp_path / "f.json").read_bytes().endswith(b"}\n")


def test_numbers_that_json_lacks_become_null():
    data = {"a": math.nan, "b": [1.5, math.inf, (-math.inf, {"c": math.nan})], "d": 0.0}
    assert json.loads(dumps_json(data)) == {"a": None, "b": [1.5, None, [None, {"c": None}]], "d": 0.0}


def test_floats_keep_every_bit():
    values = [0.1, 1 / 3, 1e-300, 5e-324, 1.7976931348623157e308]
    assert json.loads(dumps_json(values)) == values


def test_json_can_be_one_line():
    assert dumps_json({"a": [1, 2]}, indent=None) == '{"a": [1, 2]}'


def test_data_that_json_cannot_hold_is_not_written(old):
    with pytest.raises(TypeError):
        write_json(old, {"a": object()})
    assert old.read_bytes() == b"old"


# Paths


def test_a_path_that_a_caller_names_is_not_changed():
    assert as_path("a/../b") == files.Path("a/../b")
    assert as_path(files.Path("a")) == files.Path("a")


@pytest.mark.parametrize("path", ["", b"bytes", 3, None])
def test_what_is_no_path_is_a_usage_error(path):
    with pytest.raises(UsageError, match="output"):
        as_path(path, "output")


def test_a_path_with_a_nul_character_is_an_input_error():
    with pytest.raises(InputError, match=re.escape(r"got 'a\x00b'")):
        as_path("a\0b")


def test_what_is_at_a_path_is_told(tmp_path, old):
    assert (is_file(old), is_folder(old), exists(old)) == (True, False, True)
    assert (is_file(tmp_path), is_folder(tmp_path), exists(tmp_path)) == (False, True, True)
    assert not any(ask(tmp_path / "none") for ask in (is_file, is_folder, exists))


@pytest.mark.parametrize("ask", [is_file, is_folder, exists, check_file])
def test_what_cannot_be_told_is_an_input_error(ask, tmp_path, old):
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for path, reason in (
        (tmp_path / ("n" * 300), "File name too long"),
        (loop, "Too many levels of symbolic links"),
        (old / "x", "Not a directory"),
    ):
        with pytest.raises(InputError, match=re.escape(f"cannot read {path}; got {reason}")):
            ask(path)


def test_a_file_to_read_is_checked(tmp_path, old):
    check_file(old)
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to("gone")
    os.mkfifo(pipe)
    check_file(pipe)
    for path, reason in ((link, "a broken symbolic link, to gone"), (tmp_path, "a folder"), (pipe, "a device or pipe")):
        with pytest.raises(InputError, match=re.escape(f"cannot read {path}; got {reason}")):
            check_file(path, pipe=False)
    with pytest.raises(InputError, match="no such file"):
        check_file(tmp_path / "none")


def test_links_are_followed_as_far_as_they_go(tmp_path, old):
    link, loop = tmp_path / "link", tmp_path / "loop"
    link.symlink_to(old.name)
    loop.symlink_to("loop")
    assert real_path(link) == real_path(old)
    assert real_path(loop / "x").name == "x"


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    with only_writer(tmp_path):
        with pytest.raises(InputError, match="another process is writing into"), only_writer(tmp_path):
            pytest.fail("both write")
        with only_writer(make(tmp_path / "inside")):
            pass
    with only_writer(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def make(folder):
    folder.mkdir()
    return folder


def test_a_writer_that_is_killed_keeps_nobody_out(tmp_path):
    code = "from fcn_deploy.files import only_writer; from pathlib import Path; import os\n"
    code += f"with only_writer(Path({str(tmp_path)!r})): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with only_writer(tmp_path):
        pass
