"""`bundle.json` key for key, and what it may not say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fcn_deploy.bundle.manifest import Bundle, FileEntry
from fcn_deploy.errors import ArtifactError, FcnDeployError, InputError
from fcn_deploy.files import dumps_json
from tests.support.bundles import graph, manifest

# As version 0.1.0 writes it.
GOLDEN = Path(__file__).parents[1] / "artifacts" / "golden" / "bundle.json"
FILES = {"expected.npz": FileEntry(100, "0f" * 32), "fp16.onnx": FileEntry(18, "1e" * 32)}
MANIFEST = manifest(
    graphs={"fp16": graph("fp16"), "int8": graph("int8", "agreement>=98%")},
    files=FILES,
    ignore_index=255,
    made_with={"torch": "2.13.0"},
    version="0.1.0",
)


def golden():
    return json.loads(GOLDEN.read_text())


def test_a_manifest_is_written_as_the_golden_file_key_for_key():
    assert dumps_json(MANIFEST.to_json()) + "\n" == GOLDEN.read_text()


def test_the_golden_file_is_read():
    found = Bundle.from_json(golden())
    assert found.to_json() == MANIFEST.to_json()
    assert found.graphs["int8"].criteria == ("agreement>=98%",)
    assert found.files == FILES
    assert repr(found) == "Bundle(RedOrBlue, fp16 and int8 for tensorrt, 3 images)"


def test_fp16_comes_first_however_it_is_written():
    data = golden()
    data["graphs"] = dict(reversed(data["graphs"].items()))
    assert [*Bundle.from_json(data).graphs] == ["fp16", "int8"]


def test_keys_of_a_later_version_are_no_error_unless_they_are_required():
    assert Bundle.from_json({**golden(), "weather": "fine"}).to_json() == MANIFEST.to_json()
    with pytest.raises(ArtifactError, match="would misunderstand"):
        Bundle.from_json({**golden(), "requires": ["weather"]})


@pytest.mark.parametrize("key", [key for key in golden() if key != "format"])
def test_every_key_is_needed_and_checked(key):
    data = golden()
    del data[key]
    with pytest.raises(InputError):
        Bundle.from_json(data)
    if key not in ("model", "fcn_deploy"):  # any text will do
        with pytest.raises(FcnDeployError):
            Bundle.from_json({**golden(), key: "bad"})


@pytest.mark.parametrize("name", ["fp32", "bf16", "../int8"])
def test_a_graph_of_another_precision_is_refused(name):
    with pytest.raises(InputError, match="graph of a bundle"):
        manifest(graphs={name: graph("int8")})


def test_a_criterion_that_is_none_is_refused():
    with pytest.raises(FcnDeployError, match="not a criterion"):
        replace(graph("int8"), criteria=("be good",))
