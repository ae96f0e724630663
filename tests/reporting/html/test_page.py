"""The page: well-formed, self-contained, and with everything that the summary says."""

import itertools
import re
from dataclasses import replace

import pytest
import tinyhtml5

from fcn_deploy.artifacts.measures import Drop, Parity, Ratio
from fcn_deploy.artifacts.recommendation import Recommendation
from fcn_deploy.artifacts.sensitivity import Sensitivity
from fcn_deploy.reporting.html.evidence import Evidence
from fcn_deploy.reporting.html.page import render_page
from tests.support.deployments import CLASSES, engine, missed, ranges, sensitivity_json, spec, summary, write_deployment

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>alert(2)</script>",
    "' onmouseover='alert(3)",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(4)",
    "\u202egnp.exe",
    "\x1b[2J\x00\udcff",
    "日本語 ﷽ 🛣️",
    "x" * 5000,
)


def pictures_of(folder):
    return {path.name: path.read_bytes() for path in (folder / "report").iterdir()}


@pytest.fixture
def evidence(tmp_path):
    found = write_deployment(tmp_path, summary())
    return Evidence(found, pictures_of(tmp_path), ranges(), Sensitivity.from_json(sensitivity_json()))


def parsed(text):
    return tinyhtml5.parse(text, namespace_html_elements=False)


def words(element):
    return " ".join(" ".join(element.itertext()).split())


def section(page, name):
    return next(each for each in page.iter("section") if each.get("id") == name)


def cells(page, name):
    """The table of a section, by the texts of its row headers."""
    rows = section(page, name).iter("tr")
    return {words(row[0]): [words(cell) for cell in row[1:]] for row in rows}


def check_self_contained(page):
    """Nothing is loaded and nothing can run; every reference inside the page leads somewhere."""
    ids = [each.get("id") for each in page.iter() if each.get("id")]
    assert len(ids) == len(set(ids))
    for each in page.iter():
        assert each.tag not in ("script", "iframe", "object", "embed", "base", "form", "audio", "video")
        for name, value in each.attrib.items():
            assert not str(name).startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")) or value == "data:,"
            if name == "href" and value.startswith("#"):
                assert value[1:] in ids
            if name == "aria-labelledby":
                assert value in ids
            if name == "style":
                assert re.fullmatch(r"--(length: \d+\.\d%|swatch: rgb\(\d+, \d+, \d+\))", value)
    style = next(page.iter("style")).text
    assert "url(" not in style
    assert "@import" not in style
    policy = next(each for each in page.iter("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.get("content").startswith("default-src 'none'; img-src data:;")


def test_the_page_is_one_whole_that_loads_nothing(evidence):
    page = parsed(render_page(evidence))
    check_self_contained(page)
    assert page.get("lang") == "en"
    assert [each.tag for each in page.iter() if each.tag in ("h1", "main", "header", "footer", "nav")].count("h1") == 1
    levels = [int(each.tag[1]) for each in page.iter() if re.fullmatch(r"h[1-6]", str(each.tag))]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_same_evidence_gives_the_same_page(evidence):
    assert render_page(evidence) == render_page(evidence)


def test_the_verdict_comes_first_then_the_warnings(evidence):
    page = parsed(render_page(evidence))
    verdict, warnings, *_ = page.iter("section")
    assert words(verdict) == "✓ Ship fcn8s.int8.onnx INT8 meets its gate and is faster than FP32."
    assert "the normalisation was assumed: RGB" in words(warnings)
    assert "2.0% of the pixels ignored (255)" in words(warnings)
    assert words(next(page.iter("title"))) == "Ship fcn8s.int8.onnx, fcn8s"


def test_a_missed_gate_is_do_not_ship_and_says_why():
    page = parsed(render_page(Evidence(missed())))
    verdict = words(section(page, "verdict"))
    assert "Do not ship" in verdict
    assert "No engine to ship: INT8 missed its gate" in verdict
    assert "fcn8s.int8.onnx: agreement 90.000%, required 97%" in verdict
    assert cells(page, "engines")["gate"][2] == "FAILED agreement>=97%"
    assert "fcn8s.int8.onnx (not written)" in words(section(page, "origin"))


@pytest.mark.parametrize(
    ("ship", "title"), [(None, "Not decided"), (Recommendation(None, "the library has not run"), "Not decided yet")]
)
def test_what_was_not_decided_is_no_ship(ship, title):
    page = parsed(render_page(Evidence(summary(ship=ship))))
    assert words(section(page, "verdict")).startswith(f"? {title}")


def test_every_figure_of_every_engine_is_there(evidence):
    found = cells(parsed(render_page(evidence)), "engines")
    assert found["figure"] == ["PyTorch", "FP32 fcn8s.fp32.onnx", "INT8, to ship fcn8s.int8.onnx"]
    assert found["size"] == ["-", "134 MB", "34.0 MB"]
    assert found["agreement same label as PyTorch"][2] == "98.500% 97.500% to 99.500%"
    assert found["mIoU points"] == ["60.00", "60.00", "59.50"]
    assert found["loss of mIoU points, against PyTorch"][2] == "+0.50 -0.10 to +0.90"
    assert found["median latency image to labels"] == ["100.0 ms", "40.0 ms", "20.0 ms"]
    assert found["p90 latency 90% of the runs are faster"] == ["110.0 ms", "48.0 ms", "24.0 ms"]
    assert found["speed over FP32 bar: times as fast"][2] == "2.0x faster 0.50x the time, 0.45 to 0.56"


def test_each_class_has_its_iou(evidence):
    page = parsed(render_page(evidence))
    found = cells(page, "classes")
    assert found["sky"] == ["90.00", "90.00 +0.00", "90.00 +0.00"]
    assert found["road"][2] == "59.00 -1.00"
    assert found["car"] == ["30.00", "30.00 +0.00", "-"]
    assert "fcn8s.int8.onnx loses the most on road: 1.00 points." in words(
        section(parsed(render_page(evidence)), "classes")
    )


def test_each_picture_is_shown_with_words(evidence):
    page = parsed(render_page(evidence))
    shown = list(section(page, "pictures").iter("img"))
    assert len(shown) == 3 * 5
    assert all(each.get("alt") for each in shown)
    heads = [words(each) for each in section(page, "pictures").iter("h3")][2:]
    assert heads == ["2.png agreement 99.75%, 30x40", "1.png agreement 99.83%, 30x40", "0.png agreement 99.92%, 30x40"]
    assert shown[4].get("alt") == "Where fcn8s.int8.onnx and PyTorch differ on 2.png: 0.25% of the pixels"


def test_pictures_that_are_not_there_leave_the_others(evidence):
    del evidence.pictures["00_image.jpg"]
    page = parsed(render_page(replace(evidence, notes=("one is missing",))))
    assert len(list(page.iter("img"))) == 14
    assert "one is missing" in words(page)
    assert not list(parsed(render_page(replace(evidence, pictures={}))).iter("img"))


def test_layers_have_costs_and_precisions(evidence):
    found = cells(parsed(render_page(evidence)), "layers")
    assert found["conv1"] == ["Conv 1x16x30x40", "448", "518 kMAC", "fp32", "fp32"]
    assert found["conv2"] == ["Conv -", "2.32 k", "-", "fp32", "int8"]


def test_ranges_are_drawn(evidence):
    page = parsed(render_page(evidence))
    assert cells(page, "ranges")["conv1/Relu"][:2] == ["0", "9"]
    curves = [each for each in section(page, "ranges").iter() if str(each.tag).endswith("path")]
    assert len(curves) == 2
    assert all(re.fullmatch(r"M0 1(V\d\.\d\dh1)+V1z", each.get("d")) for each in curves)


def test_what_int8_costs_is_shown_the_most_damaging_first(evidence):
    found = cells(parsed(render_page(evidence)), "sensitivity")
    assert [*found] == ["layer", "conv2", "conv1"]
    assert found["conv2"] == ["0.750%", "0.500%", "1.000%", "1.00"]
    assert found["conv1"][:2] == ["float", "float"]


def test_the_origin_says_how_to_repeat_it(evidence):
    said = words(section(parsed(render_page(evidence)), "origin"))
    assert "fcn-deploy deploy --weights fcn8s.pth --calib-data 'my frames' --int8 -o out" in said
    for sha256 in ("a" * 64, "b" * 64, "f" * 64, "i" * 64):
        assert sha256 in said
    assert "numpy 2.0.0" in said
    assert "(assumed)" in said


def test_a_summary_of_an_earlier_version_has_a_page_without_what_it_lacks():
    old = summary(origin=None, layers=(), pytorch_class_iou=(), pytorch_percentiles_ms={}, truth=None)
    engines = [replace(each, class_iou=(), layers={}, sha256=None) for each in old.engines]
    page = parsed(render_page(Evidence(replace(old, engines=tuple(engines)))))
    check_self_contained(page)
    assert {each.get("id") for each in page.iter("section")} == {"verdict", None, "engines", "origin", "words"}


def test_figures_that_could_not_be_measured_are_said():
    nothing = replace(
        engine("int8", 0.9, 20.0),
        parity=Parity(1, float("nan"), engine_not_finite=1),
        miou_drop=Drop(float("nan"), float("nan"), float("nan")),
        median_ms=None,
        vs_fp32=None,
        percentiles_ms={"90": float("nan")},
    )
    one_label = replace(engine("fp32", 1.0, 40.0), parity=Parity(1, 1.0, only_label=0))
    found = cells(parsed(render_page(Evidence(summary(engines=(one_label, nothing))))), "engines")
    agreement = found["agreement same label as PyTorch"]
    assert agreement[1].startswith("one label")
    assert agreement[2].startswith("NaN or infinite")
    assert found["loss of mIoU points, against PyTorch"][2] == "not measured"
    assert found["median latency image to labels"][2] == "-"


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (Ratio(0.5, 0.4, 0.6), "2.0x faster median 20.0 ms, image to labels"),
        (Ratio(0.9, 0.8, 1.1), "1.1x faster median 20.0 ms, image to labels; within the scatter of the rounds"),
        (
            Ratio(0.5, float("nan"), float("nan")),
            "2.0x faster median 20.0 ms, image to labels; too few rounds to be sure",
        ),
    ],
)
def test_a_speed_that_may_be_chance_is_said_to_be(ratio, said):
    found = summary(engines=(engine("fp32", 1.0, 40.0), replace(engine("int8", 0.98, 20.0), vs_fp32=ratio)))
    tile = next(each for each in parsed(render_page(Evidence(found))).iter("dl") if each.get("class") == "tiles")[0]
    assert words(tile) == f"compared with FP32 {said}"


def test_a_small_net_has_a_size(evidence):
    small = replace(evidence.summary, engines=tuple(replace(each, bytes=9_800) for each in evidence.summary.engines))
    assert cells(parsed(render_page(Evidence(small))), "engines")["size"] == ["-", "9.80 kB", "9.80 kB"]


@pytest.mark.parametrize(
    ("parity", "said"),
    [
        (Parity(1, 0.99), "99.00% of the pixels (one image: no interval)"),
        (
            Parity(20, 0.99, agreement_low=0.98, agreement_high=1.0),
            "99.00% of the pixels (95% interval 98.00% to 100.00%)",
        ),
        (Parity(20, float("nan"), engine_not_finite=1), "- of the pixels (it could not be measured)"),
        (
            Parity(20, 1.0, agreement_low=1.0, agreement_high=1.0, only_label=0),
            "- of the pixels (it could not be measured)",
        ),
    ],
)
def test_an_interval_is_stated_only_if_there_is_one(parity, said):
    drop = Drop(0.5, float("nan"), float("nan")) if parity.images == 1 else Drop(0.5, -0.1, 0.9)
    found = summary(engines=(replace(engine("fp32", 1.0, 40.0), parity=parity, miou_drop=drop),), ship=None)
    tiles = next(each for each in parsed(render_page(Evidence(found))).iter("dl") if each.get("class") == "tiles")
    assert said in words(tiles)
    interval = "one image: no interval" if parity.images == 1 else "95% interval -0.10 to +0.90"
    assert f"+0.50 points ({interval})" in words(tiles)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_names_of_strangers_are_text_and_nothing_else(tmp_path, text):
    """In every place that a name can stand in; `check_self_contained` finds what would load or run."""
    found = write_deployment(tmp_path, summary(), names=(text, text, text))
    origin = replace(
        found.origin, spec=spec((text, *CLASSES[1:])), command=(text,), created=text, made_with={text: text}
    )
    layers = (replace(found.layers[0], name=text, op=text),)
    engines = tuple(
        replace(each, file=text, precision=text, failures=(text,), layers={text: text}) for each in found.engines
    )
    ship, gallery = Recommendation(text, text), replace(found.gallery, engine=text)
    hostile = replace(
        found, model=text, variant=text, engines=engines, warnings=(text,), ship=ship, gallery=gallery, origin=origin
    )
    hostile = replace(hostile, layers=layers, version=text, gpu=text, resumed=(text,))
    content = render_page(Evidence(hostile, pictures_of(tmp_path), ranges(), notes=(text,)))
    page = parsed(content)
    check_self_contained(page)
    assert len(list(page.iter("img"))) == 15
    content.encode()  # no half of a pair, which cannot be written
    assert "\u202e" not in content
    assert "\x1b" not in content
    assert len(content) < 500_000
    if len(text) < 100 and text.isprintable():
        assert " ".join(text.split()) in words(page)
