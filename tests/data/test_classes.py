import pytest

from fcn_deploy.artifacts.palette import default_palette
from fcn_deploy.data.classes import read_class_names
from fcn_deploy.errors import InputError


@pytest.fixture
def classes(tmp_path):
    def write(content):
        path = tmp_path / "classes.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_names_and_colours_are_read_and_a_class_without_a_colour_gets_the_default(classes):
    path = classes('\ufeffsky,128,128,128\n"pole, sign"\n\nroad,1,2,3\n')
    default = default_palette(3)
    assert read_class_names(path, 3) == (("sky", "pole, sign", "road"), ((128, 128, 128), default[1], (1, 2, 3)))
    assert read_class_names(str(path)) == read_class_names(path, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", "got 2 names; expected 3"),
        ("a\nb\nc\nd\n", "got 4 names; expected 3"),
        ("a,1,2\nb\nc\n", "line 1: bad colour"),
        ("b\na,red,0,0\nc\n", "line 2: bad colour"),
        (b"\xff\xfe\x00\x80", "not a text file"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(classes, text, message):
    with pytest.raises(InputError, match=message):
        read_class_names(classes(text), 3)


def test_without_a_count_a_file_needs_at_least_one_class(classes):
    assert read_class_names(classes("sky,1,2,3\n\nroad\n"))[0] == ("sky", "road")
    with pytest.raises(InputError, match="names no class"):
        read_class_names(classes("\n \n"))


def test_a_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_class_names(tmp_path / "classes.csv")
