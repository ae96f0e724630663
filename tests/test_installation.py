import json
from importlib.metadata import Distribution

from fcn_deploy.installation import command_elsewhere, install_command, packages_of
from tests.support.extras import PROJECT

REQUIRES = ["numpy>=1.26", 'onnxruntime>=1.22; extra == "cpu"', "torch>=2.9 ; extra == 'host'", 'onnx; extra == "host"']


class Installed(Distribution):
    def __init__(self, url=None, **direct_url):
        self._direct_url = json.dumps({"url": url, **direct_url}) if url else None

    @property
    def requires(self):
        return REQUIRES

    def read_text(self, filename):
        return self._direct_url if filename == "direct_url.json" else None

    def locate_file(self, path):
        raise NotImplementedError


def test_an_extra_is_the_packages_that_it_adds():
    assert packages_of("host", REQUIRES) == ["torch>=2.9", "onnx"]
    assert packages_of("none", REQUIRES) == []


def test_a_copy_from_a_wheel_or_an_index_lists_the_packages_themselves():
    assert install_command("cpu", Installed()) == "pip install 'onnxruntime>=1.22'"
    wheel = Installed("file:///tmp/fcn_deploy.whl", archive_info={})
    assert install_command("host", wheel) == "pip install 'torch>=2.9' 'onnx'"


def test_a_checkout_is_installed_again_with_the_extra(tmp_path):
    folder = tmp_path / "my checkout"
    folder.mkdir()
    checkout = Installed(folder.as_uri(), dir_info={"editable": True})
    assert install_command("host", checkout) == f"pip install --editable '{folder}[host]'"


def test_another_machine_has_no_checkout(tmp_path):
    checkout = Installed(tmp_path.as_uri(), dir_info={"editable": True})
    assert command_elsewhere("host", "cpu", dist=checkout) == "pip install 'torch>=2.9' 'onnx' 'onnxruntime>=1.22'"
    assert command_elsewhere("cpu", dist=checkout) == "pip install 'onnxruntime>=1.22'"
    assert command_elsewhere("none", dist=checkout) == "install the packages of the extra 'none' in pyproject.toml"


def test_this_copy_has_a_command_for_each_extra():
    assert set(PROJECT["optional-dependencies"]) > {"cli", "host", "cpu"}
    for extra in PROJECT["optional-dependencies"]:
        assert "pip install '" in install_command(extra) or "pip install --editable '" in install_command(extra)
