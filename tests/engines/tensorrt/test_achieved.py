"""What an engine runs in becomes a sidecar, exit code 4, or a sentence; tests/gpu asks real inspectors."""

import json
import sys

import pytest

from fcn_deploy.artifacts.precision import Precision
from fcn_deploy.artifacts.sidecar import load_sidecar
from fcn_deploy.engines.config import BuildConfig
from fcn_deploy.engines.tensorrt.achieved import Inspection, find_achieved, missed_layers
from fcn_deploy.engines.tensorrt.builder import build_tensorrt
from fcn_deploy.errors import DependencyError, PrecisionError
from fcn_deploy.progress import Silent
from fcn_deploy.runtime.tensorrt.driver import Gpu
from fcn_deploy.runtime.tensorrt.flavor import FLAVORS
from fcn_deploy.runtime.tensorrt.log import library_log
from tests.support.fake_builder import fake_tensorrt
from tests.support.layer_tables import rtx_layer, table

TYPES = {"int8": "Int8", "fp16": "Half", "fp32": "Float"}
ASKED = {"conv1_1": "fp16", "conv1_2": "int8", "conv2_1": "int8"}
RTX = next(flavor for flavor in FLAVORS.values() if flavor.runtime_config)
TENSORRT = next(flavor for flavor in FLAVORS.values() if flavor.builds and not flavor.runtime_config)


class Listener(Silent):
    def __init__(self):
        self.lines = []

    def stage(self, text):
        self.lines.append(text)


def said_of(layers):
    """What an inspector says of an engine in which layers run in these precisions."""
    described = [
        {
            "Name": f"{name} + {name}/Relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "in", "Dimensions": [1, 8, 4, 4], "Format/Datatype": TYPES[kind]}],
            "Outputs": [{"Name": "out", "Dimensions": [1, 8, 4, 4], "Format/Datatype": "Half"}],
            "Weights": {"Type": TYPES[kind], "Count": 9},
        }
        for name, kind in layers.items()
    ]
    return json.dumps({"Layers": described, "Bindings": ["image", "labels"]})


def gpus():
    return (Gpu(0, "a GPU", "8.7", 8 << 30),)


def logged(layers):
    """What a builder logs of a plan in which layers run in these precisions."""
    return table(
        *(
            rtx_layer(f"{name}_myl0_1", "correlation", [f"in {kind} 1,8"], ["out fp16 1,8"], [name])
            for name, kind in layers.items()
        )
    )


def no_gpus():
    raise DependencyError("no NVIDIA driver was found")


def look(inspected, flavor=TENSORRT, method="minmax", gpus=gpus, host_code=False, table=None):
    """Returns the precision that was found, what was told, and what the library was asked."""
    achieved, lines, asked = look_at_all(inspected, flavor, method, gpus, host_code, table)
    return achieved.precision, [line for line in lines if not line.startswith("The plan, by")], asked


def look_at_all(inspected, flavor=TENSORRT, method="minmax", gpus=gpus, host_code=False, table=None):
    """As `look`, with the layers of the plan and what is told of them."""
    library, asked = fake_tensorrt("10.3.0", inspected)
    progress = Listener()
    precision = Precision("int8", "fp16", method, ASKED)
    inspection = Inspection(flavor, library, library_log(library), b"a plan", host_code, gpus, table)
    return find_achieved(inspection, precision, progress), progress.lines, asked


def test_all_as_asked():
    found, lines, asked = look(said_of(ASKED))
    assert (found.achieved, found.achieved_layers, lines) == ("int8", ASKED, [])
    assert asked == [("load", b"a plan"), ("inspect", "JSON")]
    assert Precision.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(("tf32", "missed"), [(True, {}), (None, {"conv1_1": "tf32"})])
def test_tf32_is_fp32_only_where_it_was_permitted(tf32, missed):
    found = {"conv1_1": "tf32", "conv1_2": "fp32"}
    precision = Precision("fp32", "fp32", layers=dict.fromkeys(found, "fp32"), achieved_layers=found, tf32=tf32)
    assert missed_layers(precision) == missed


def test_layers_that_are_not_found_are_listed_and_no_failure():
    found, lines, _ = look(said_of({"conv1_1": "fp16", "conv1_2": "int8"}))
    assert (found.achieved, found.achieved_layers["conv2_1"]) == ("partial", None)
    assert lines == ["The inspector does not tell what these layers run in: conv2_1."]
    assert look(said_of({}))[0].achieved == "unknown"


def test_what_was_asked_and_is_absent_is_exit_4_with_every_layer_named():
    with pytest.raises(PrecisionError) as caught:
        look(said_of({"conv1_1": "fp32", "conv1_2": "fp16", "conv2_1": "int8"}))
    assert caught.value.exit_code == 4
    assert "tensorrt 10.3.0 does not run every layer in the precision asked for" in str(caught.value)
    assert caught.value.got == "conv1_1 in fp32, conv1_2 in fp16"
    assert caught.value.expected == "conv1_1 in fp16, conv1_2 in int8"


def test_a_layer_of_a_prequantized_model_that_is_not_int8_is_told_and_recorded():
    found, lines, _ = look(said_of({**ASKED, "conv1_2": "fp16"}), method="given")
    assert (found.achieved, found.achieved_layers["conv1_2"]) == ("mixed", "fp16")
    assert lines == ["tensorrt does not run all that the graph's Q/DQ ask for: conv1_2 in fp16."]


def test_a_prequantized_model_without_a_layer_in_int8_is_exit_4():
    with pytest.raises(PrecisionError, match=r"tensorrt 10\.3\.0 runs no layer of the graph in INT8") as caught:
        look(said_of(dict.fromkeys(ASKED, "fp16")), method="given")
    assert caught.value.got == "conv1_2 in fp16, conv2_1 in fp16"
    found, _, _ = look(said_of({"conv1_2": "fp16"}), method="given")  # conv2_1 is not known
    assert found.achieved == "mixed"
    found, _, _ = look(said_of(dict.fromkeys(ASKED, "fp16")), RTX, method="given")
    assert found.achieved == "mixed"


def test_a_library_that_decides_at_load_has_its_plan_recorded():
    found, lines, _ = look(said_of({**ASKED, "conv1_2": "fp16"}), RTX)
    assert (found.achieved, found.achieved_layers["conv1_2"]) == ("mixed", "fp16")
    assert lines == [
        "The plan is not all in the precision asked for, which is decided at load: conv1_2 in fp16.",
    ]


def test_a_plan_that_does_not_load_here_is_unknown_with_the_librarys_words():
    found, lines, _ = look(None)
    assert (found.achieved, found.achieved_layers) == ("unknown", None)
    assert lines == [
        "What the INT8 engine runs in is not known: tensorrt cannot load it on this machine (not for this GPU), and "
        "there is no layer table in the log of tensorrt 10.3.0."
    ]


def test_an_answer_that_cannot_be_read_is_unknown_and_said():
    found, lines, _ = look("no JSON")
    assert found.achieved == "unknown"
    assert "inspector's answer cannot be read" in lines[0]


def test_without_a_driver_the_library_is_not_given_the_plan():
    found, lines, asked = look(said_of(ASKED), gpus=no_gpus)
    assert (found.achieved, asked) == ("unknown", [])
    assert lines == [
        "What the INT8 engine runs in is not known: no NVIDIA driver was found, and there is no layer table in the log "
        "of tensorrt 10.3.0."
    ]


def test_without_a_driver_the_log_tells():
    achieved, lines, asked = look_at_all(said_of({}), gpus=no_gpus, table=logged(ASKED))
    assert (achieved.precision.achieved, achieved.precision.achieved_layers, asked) == ("int8", ASKED, [])
    assert achieved.plan.source == "log"
    assert [layer.nodes for layer in achieved.plan.layers] == [(name,) for name in ASKED]
    assert lines == [
        "The plan, by the builder's log: 3 kernels, 0 reformats, 0 tensors written twice; 2 INT8 convolutions, 2 bytes "
        "per element; 1 FP16 convolution, 2 bytes per element."
    ]


def test_what_the_log_says_is_held_to_the_same_rule():
    with pytest.raises(PrecisionError, match="got conv1_2 in fp16"):
        look(None, table=logged({**ASKED, "conv1_2": "fp16"}))
    found, lines, _ = look(None, RTX, table=logged({**ASKED, "conv1_2": "fp16"}))
    assert found.achieved == "mixed"
    assert lines == ["The plan is not all in the precision asked for, which is decided at load: conv1_2 in fp16."]
    found, lines, _ = look(None, RTX, table=logged({"conv1_2": "int8"}))
    assert found.achieved == "partial"
    assert lines == ["The builder's log does not tell what these layers run in: conv1_1, conv2_1."]


def test_the_inspector_counts_and_a_difference_is_told_once():
    achieved, lines, _ = look_at_all(said_of(ASKED), table=logged({**ASKED, "conv2_1": "fp16", "conv1_2": "fp16"}))
    assert (achieved.precision.achieved, achieved.plan.source) == ("int8", "inspector")
    (line,) = [line for line in lines if "differ" in line]
    assert line == (
        "The inspector and the builder's log differ, and the inspector counts: it says conv1_2 in int8, conv2_1 in "
        "int8; the log says conv1_2 in fp16, conv2_1 in fp16."
    )
    _, lines, _ = look_at_all(said_of(ASKED), table=logged(ASKED))
    assert len(lines) == 1  # of the plan


def test_a_log_of_another_form_is_unknown_and_said_in_one_line_with_the_version():
    found, lines, _ = look(None, gpus=no_gpus, table="Layers:\nconv1_1, in half")
    assert (found.achieved, found.achieved_layers) == ("unknown", None)
    assert lines == [
        "What the INT8 engine runs in is not known: no NVIDIA driver was found, and the layer table in the log of "
        "tensorrt 10.3.0 is not understood ('conv1_1, in half')."
    ]


def test_layers_that_cannot_be_recorded_leave_the_precision():
    told = said_of(ASKED).replace("Dimensions", "Sizes")
    achieved, lines, _ = look_at_all(told)
    assert (achieved.precision.achieved, achieved.plan) == ("int8", None)
    assert lines == [
        "The layers of the plan are not recorded: the layers of the plan are not understood (KeyError: 'Dimensions')."
    ]


def test_code_for_the_host_is_not_run_without_permission():
    found, lines, asked = look(said_of(ASKED), host_code=True)
    assert (found.achieved, asked) == ("unknown", [])
    assert "brings code that runs on the host" in lines[0]


@pytest.mark.parametrize("version", ["10.3.0", "11.4.1"])
def test_a_build_records_it_in_the_sidecar(model, monkeypatch, version, tmp_path):
    def build(inspected):
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version, said_of(inspected))[0])
        return build_tensorrt(TENSORRT, model("fcn8s"), BuildConfig("fp16"), gpus=gpus)

    asked = dict(build({}).sidecar.precision.layers)
    build(asked).save(tmp_path / "net.engine")
    sidecar = load_sidecar(tmp_path / "net.engine")
    written = sidecar.precision
    assert (written.achieved, written.achieved_layers) == ("fp16", asked)
    assert [layer.nodes[0] for layer in sidecar.plan.layers] == list(asked)
    with pytest.raises(PrecisionError, match="got conv4_2 in fp32; expected conv4_2 in fp16"):
        build({**asked, "conv4_2": "fp32"})
