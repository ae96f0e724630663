"""`report`: the page of a deployment, from its folder alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fcn_deploy as fd
from fcn_deploy.errors import ArtifactError, DependencyError, InputError, UsageError
from fcn_deploy.files import dumps_json
from fcn_deploy.workflows.reporting import check_report_files, remove_report, report
from tests.support.blocked import BLOCK
from tests.support.deployments import missed, summary, write_deployment

GOLDEN = sorted((Path(__file__).parents[1] / "artifacts" / "golden").glob("summary*.json"))
VALUES = [None, -1, 1e400, 10**400, "text", [None], {}, True]


@pytest.fixture
def folder(tmp_path):
    write_deployment(tmp_path / "out", summary())
    return tmp_path / "out"


def changed(folder, **values):
    """Writes the summary with other values at its top."""
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_folder_or_its_summary_give_the_same_report(folder, tmp_path):
    assert report(str(folder)) == folder / "report.html"
    other = fd.report(folder / "summary.json", output=tmp_path / "other.html")
    assert other.read_bytes() == (folder / "report.html").read_bytes()
    text = other.read_text()
    assert text.startswith("<!doctype html>")
    for part in ("Ship fcn8s.int8.onnx", "data:image/png;base64,", 'id="ranges"', 'id="sensitivity"'):
        assert part in text
    assert str(tmp_path) not in text


def test_the_command_says_what_it_wrote(folder, call, tmp_path):
    assert call("report", folder).out == f"wrote {folder / 'report.html'}\n"
    page = tmp_path / "page.html"
    assert json.loads(call("report", folder / "summary.json", "-o", page, "--json").out) == {"report": str(page)}
    assert page.is_file()


def test_neither_torch_nor_an_inference_library_is_needed(folder):
    code = BLOCK + "import fcn_deploy; print(fcn_deploy.report(sys.argv[2]))"
    command = [sys.executable, "-c", code, "torch onnxruntime openvino tensorrt onnxscript onnxsim", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder / 'report.html'}\n"


def test_a_summary_alone_is_enough(folder, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "summary.json").write_bytes((folder / "summary.json").read_bytes())
    text = report(alone).read_text()
    assert "15 of the pictures that the summary names are not in the folder report" in text
    assert "<img" not in text
    assert 'id="ranges"' not in text


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_summaries_of_every_version_have_a_report(golden, tmp_path):
    text = report(golden, output=tmp_path / "page.html").read_text()
    assert "fcn16s.int8.onnx" in text


def test_pictures_that_are_something_else_are_not_shown(folder, tmp_path):
    (folder / "report" / "00_image.jpg").write_text("<svg onload=alert(1)>")
    secret = tmp_path / "secret.txt"
    secret.write_text("a key")
    (folder / "report" / "00_truth.png").unlink()
    (folder / "report" / "00_truth.png").symlink_to(secret)
    text = report(folder).read_text()
    assert "2 files in the folder report are not pictures of a deployment" in text
    assert "onload" not in text


def test_ranges_of_another_deployment_are_not_shown(folder):
    data = json.loads((folder / "summary.json").read_text())
    data["origin"]["source"]["ranges_sha256"] = "0" * 64
    changed(folder, origin=data["origin"])
    text = report(folder).read_text()
    assert "fcn8s.ranges.json is not the file that this deployment wrote" in text
    assert 'id="ranges"' not in text


@pytest.mark.parametrize("variant", ["../out/fcn8s", "x" * 5000, "/etc/passwd", "a\0b", "..", ""])
def test_the_name_of_the_net_leads_to_no_other_folder(folder, variant):
    changed(folder, variant=variant)
    assert 'id="ranges"' not in report(folder).read_text()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("", InputError),
        ("[]", InputError),
        ("{}", InputError),
        ('{"format": 2}', InputError),
        ('{"format": 1, "requires": ["magic"]}', ArtifactError),
        ("[" * 100_000, InputError),
        ("\xff", InputError),
    ],
)
def test_what_is_no_summary_is_an_error_that_names_the_file(tmp_path, content, kind):
    path = tmp_path / "summary.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(kind, match=r"summary\.json"):
        report(tmp_path)


def test_bad_files_beside_the_summary_are_input_errors(folder, call):
    for name in ("fcn8s.ranges.json", "fcn8s.sensitivity.json"):
        kept = (folder / name).read_bytes()
        (folder / name).write_text('{"format": 1, "target": 3}')
        assert "malformed" in call("report", folder, code=6).err or "sensitivity" in call("report", folder, code=6).err
        (folder / name).write_bytes(kept)


def paths(data, before=()):
    """Every place of a document at which a value stands."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*before, key)
        yield from paths(value, (*before, key))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:9])
def test_a_value_of_another_type_never_is_an_unexpected_error(tmp_path, value):
    """Each value of the summary in turn: either it has a meaning, or the error is of those with a code of their own."""
    data = json.loads(dumps_json(write_deployment(tmp_path / "out", summary(), count=1).to_json()))
    for path in paths(data):
        broken = json.loads(json.dumps(data))
        place = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (tmp_path / "summary.json").write_text(json.dumps(broken))
        try:
            report(tmp_path)
        except (ArtifactError, InputError):  # exit codes 5 and 6
            continue
        except Exception as error:
            pytest.fail(f"{path} = {str(value)[:9]}: {type(error).__name__}: {error}")


def test_the_output_is_a_page_and_not_the_summary(folder, tmp_path):
    with pytest.raises(UsageError, match="suffix"):
        report(folder, output=tmp_path / "page.txt")
    with pytest.raises(InputError, match="no folder"):
        report(folder, output=tmp_path / "none" / "page.html")
    with pytest.raises(InputError, match=r"cannot read .*none"):
        report(tmp_path / "none")
    with pytest.raises(InputError, match=r"cannot read .*summary\.json; got no such file"):
        report(tmp_path)


def test_without_jinja2_the_error_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(DependencyError, match="a report needs Jinja2") as caught:
        report(folder)
    assert caught.value.exit_code == 7


def test_the_report_of_an_earlier_deployment_is_removed_and_nothing_else(folder):
    report(folder)
    (folder / "report" / "mine.png").write_text("mine")
    assert remove_report(folder) == [folder / "report.html"]
    assert [path.name for path in (folder / "report").iterdir()] == ["mine.png"]
    (folder / "report" / "mine.png").unlink()
    assert remove_report(folder) == []
    write_deployment(folder, missed())
    assert remove_report(folder) == [folder / "report"]
    assert {path.name for path in folder.iterdir()} == {"summary.json", "fcn8s.ranges.json", "fcn8s.sensitivity.json"}


def test_a_folder_of_pictures_may_be_a_link(folder, tmp_path):
    (folder / "report").rename(tmp_path / "elsewhere")
    (folder / "report").symlink_to(tmp_path / "elsewhere")
    check_report_files(folder)
    assert remove_report(folder) == []
    assert (folder / "report").is_symlink()
    assert not any((tmp_path / "elsewhere").iterdir())


def a_picture_that_is_a_folder(place):
    (place / "00_image.jpg").mkdir(parents=True)


@pytest.mark.parametrize(
    "put",
    [Path.touch, lambda place: place.symlink_to("nowhere"), a_picture_that_is_a_folder, lambda place: os.mkfifo(place)],
    ids=["file", "broken link", "folder inside", "pipe"],
)
def test_what_is_in_the_way_of_pictures_is_found_before_work_starts(tmp_path, put):
    put(tmp_path / "report")
    with pytest.raises(InputError, match=r"cannot write .*report"):
        check_report_files(tmp_path)


def test_a_summary_holds_no_number_that_json_does_not_have(folder):
    json.loads((folder / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert dumps_json(summary().to_json())
