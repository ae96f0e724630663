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


@pytest.mark.parametrize(
    "text",
    [
        "background,0,0,0\nred,128,0,0\ngreen,0,128,0\n",
        "background;0;0;0\nred;128;0;0\ngreen;0;128;0\n",
        "background\t0\t0\t0\r\nred\t128\t0\t0\r\ngreen\t0\t128\t0\r\n",
        "\ufeffbackground, 0, 0, 0\nred, 128, 0, 0\ngreen, 0, 128, 0\n",
        "name,r,g,b\nbackground,0,0,0\nred,128,0,0\ngreen,0,128,0\n",
        "Class;Red;Green;Blue\nbackground;0;0;0\nred;128;0;0\ngreen;0;128;0\n",
        "id,r,g,b,name\n0,0,0,0,background\n1,128,0,0,red\n2,0,128,0,green\n",
    ],
)
def test_separators_and_headers_are_understood(classes, text):
    wanted = (("background", "red", "green"), ((0, 0, 0), (128, 0, 0), (0, 128, 0)))
    assert read_class_names(classes(text), 3) == wanted


def test_names_alone_may_have_a_header_and_any_characters(classes):
    assert read_class_names(classes("name\nStraße\n[/b]\n歩道; 道路\n"), 3)[0] == ("Straße", "[/b]", "歩道; 道路")
    assert read_class_names(classes("label\nsky\n"), 2)[0] == ("label", "sky")


def test_a_default_colour_that_another_class_has_is_not_given_twice(classes):
    third = default_palette(3)[2]
    palette = read_class_names(classes(f"a,{third[0]},{third[1]},{third[2]}\nb\nc\n"), 3)[1]
    assert palette[0] == third
    assert len(set(palette)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,0,0,0\nb,1,0,0\n\nc,1,0,0\n", "line 4: two classes have the same colour; got 1,0,0, as in line 2"),
        ("a,0,0,0\nb,1,0,0\nb,2,0,0\n", "line 3: two classes have the same name; got 'b', as in line 2"),
        ("a,0,0,0\nb,256,0,0\nc\n", "line 2: bad colour; got 256,0,0"),
        ("a,0,0,0\nb,-1,0,0\nc\n", "line 2: bad colour; got -1,0,0"),
        ("a,0,0,0\n,1,0,0\nc\n", "line 2: a class without a name"),
        ("a\nb\x1b[31m\nc\n", "line 2: a name with control characters"),
        ("name,r,g\na,0,0\nb,1,0\nc,2,0\n", "line 1: the header lacks a colour"),
        ("id,name\n1,a\n2,b\n3,c\n", "line 2: the classes are not in the order of the labels; .*expected label 0"),
        ("a\nb\nc\n".encode("utf-16"), "got UTF-16; fix: save it as UTF-8"),
        ("a\nb\nstra\xdfe\n".encode("latin-1"), "line 3: not a text file in UTF-8; got byte 0xdf"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(classes, text, message):
    with pytest.raises(InputError, match=message):
        read_class_names(classes(text), 3)


@pytest.mark.parametrize(
    "text",
    [
        "a,#0a0b0c\nb,#FFffFF\n",
        "name,color\na,#0a0b0c\nb,ffffff\n",
        "id;hex;name\n0;0A0B0C;a\n1;#ffffff;b\n",
    ],
)
def test_colours_may_be_in_hex(classes, text):
    assert read_class_names(classes(text), 2) == (("a", "b"), ((10, 11, 12), (255, 255, 255)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,#0a0b\nb\n", "line 1: bad colour; got #0a0b; expected #rrggbb"),
        ("name,r,g,b\na,1,2\nb,1,2,3\n", "line 2: bad colour; got 1,2,; expected"),
        ("a 0 0 0\nb 1 2 3\n", "line 1: a colour that is separated by spaces; got a 0 0 0; .*fix: write a,0,0,0"),
        ('"a\nb\n', "is not a list of class names; got unexpected end of data; fix: check the quotes"),
        ('["a", "b"]', "is JSON, which is not read"),
        ('{\n"0": "a",\n"1": "b"\n}', "is JSON, which is not read"),
        ("[" * 100000, "is JSON, which is not read"),
    ],
)
def test_what_would_be_read_as_something_else_is_refused(classes, text, message):
    with pytest.raises(InputError, match=message):
        read_class_names(classes(text))


def test_a_header_may_name_a_colour_that_some_lines_lack(classes):
    path = classes("name,r,g,b\na\nb,1,2,3\n")
    assert read_class_names(path) == (("a", "b"), (default_palette(2)[0], (1, 2, 3)))


def test_a_quoted_comma_is_part_of_a_name_whatever_the_separator(classes):
    assert read_class_names(classes('"road, wet",1,2,3\n"b",4,5,6\n'))[0] == ("road, wet", "b")
    assert read_class_names(classes('"road; wet";1;2;3\n"b";4;5;6\n'))[0] == ("road; wet", "b")
