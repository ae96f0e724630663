import json
import os

import pytest

from fcn_deploy.data.label_map import read_label_map, read_once
from fcn_deploy.errors import InputError, UsageError

CLASSES = ("sky", "road", "void car")


@pytest.mark.parametrize(
    "content",
    ["255=1\n7=ignore\nsky=void car\n", "\ufeff# notes\n255,road\n7;void\n\nsky\t2\n", '{"255": 1, "7": null, "0": 2}'],
)
def test_files_are_read(tmp_path, content):
    path = tmp_path / "map.txt"
    path.write_text(content)
    assert read_label_map(path, CLASSES) == read_label_map(str(path), CLASSES) == {255: 1, 7: None, 0: 2}


def test_text_and_mappings_are_read():
    assert read_label_map("255=1, 7=ignore,sky=void car", CLASSES) == {255: 1, 7: None, 0: 2}
    assert read_label_map({255: "road", 7: None, "sky": 2}, CLASSES) == {255: 1, 7: None, 0: 2}
    assert read_label_map("1..3=0..2,4..5=ignore", CLASSES) == {1: 0, 2: 1, 3: 2, 4: None, 5: None}
    assert read_label_map("7=255", CLASSES, (255,)) == {7: None}
    assert read_label_map(None, CLASSES) == {}


def test_presets_are_those_of_the_data_sets():
    names = [f"c{index}" for index in range(150)]
    cityscapes = read_label_map("cityscapes-trainid", names[:19])
    assert [cityscapes[value] for value in (7, 8, 11, 26, 33)] == [0, 1, 2, 13, 18]
    assert sorted(label for label in cityscapes.values() if label is not None) == list(range(19))
    assert cityscapes[0] is cityscapes[29] is cityscapes[255] is None
    assert read_label_map("ade20k", names) == {0: None, **{index + 1: index for index in range(150)}}
    with pytest.raises(InputError, match="there is no such class"):
        read_label_map("ade20k", names[:149])


@pytest.mark.parametrize(
    ("label_map", "error", "message"),
    [
        ("255=3", InputError, r"no such class; got 255=3; expected 0..2"),
        ("255=tree", InputError, "neither a number nor a name of a class; got 'tree'; .*sky, road, void car"),
        ("255=1,255=2", InputError, "255 has two meanings; got 255=1 and 255=2"),
        ("1..3=0..1", InputError, "differ in length"),
        ("3..1=0", InputError, "bad range"),
        ("ignore=1", InputError, "not a value"),
        ("255=", UsageError, "not understood; got '255='"),
        ("=1", UsageError, "not understood"),
        ("cityscapes", UsageError, "neither a file nor a map; got 'cityscapes'; expected cityscapes-trainid or ade20k"),
    ],
)
def test_what_is_no_map_is_refused(label_map, error, message):
    with pytest.raises(error, match=message):
        read_label_map(label_map, CLASSES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("255=1\n7\n", "line 2: not a pair"),
        ("255=1\n7=tree\n", "line 2: neither a number nor a name"),
        ("255=1=2\n", "line 1: not a pair"),
        ("", "empty label map"),
        (json.dumps({"1": 0})[:-1], "not a label map"),
    ],
)
def test_a_line_of_a_file_that_is_no_pair_is_named(tmp_path, content, message):
    path = tmp_path / "map.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_label_map(path, CLASSES)
    assert str(path) in str(caught.value)


def test_text_may_be_longer_than_the_name_of_a_file():
    text = ",".join(f"{value}={value % 3}" for value in range(1000))
    assert read_label_map(text, CLASSES) == {value: value % 3 for value in range(1000)}


@pytest.mark.parametrize("label_map", ["", "  ", [1, 2], 5])
def test_what_cannot_be_a_map_is_a_usage_error(label_map):
    with pytest.raises(UsageError, match="`label_map`"):
        read_label_map(label_map, CLASSES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"255": 1, "255": 0}', "the value 255 has two meanings; got 255=1 and 255=0"),
        ('{"a":' * 100_000, "is not a label map"),
        ("# nothing\n", "is an empty label map"),
        (f"{'9' * 5000}=1\n", "line 1: neither a number"),
        ('{"255": {"7": 1}}', "neither a number"),
    ],
    ids=["twice", "deep", "comments", "huge", "object"],
)
def test_a_bad_file_is_an_input_error(tmp_path, content, message):
    path = tmp_path / "map.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_label_map(path, CLASSES)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_cells_of_a_csv_file_may_have_quotes(tmp_path):
    (tmp_path / "map.csv").write_text('"255","road"\n"7","ignore"\n')
    assert read_label_map(tmp_path / "map.csv", CLASSES) == {255: 1, 7: None}


def test_a_pipe_can_be_read_again_once_it_has_been_read():
    read, write = os.pipe()
    os.write(write, b"255=1\n# the border\n7=ignore\n")
    os.close(write)
    pairs = read_once(f"/dev/fd/{read}")
    os.close(read)
    assert read_label_map(pairs, ("a", "b")) == read_label_map(pairs, ("a", "b")) == {255: 1, 7: None}


def test_what_can_be_read_again_stays_what_it_is(tmp_path):
    (tmp_path / "map.txt").write_text("255=1")
    for given in (None, {255: 1}, "255=1", "", "\0", "cityscapes-trainid", tmp_path / "map.txt", "1=1," * 200):
        assert read_once(given) is given
    with pytest.raises(InputError, match="cannot read"):
        read_once(tmp_path)
