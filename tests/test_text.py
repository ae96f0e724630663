import pytest

from fcn_deploy.errors import InputError
from fcn_deploy.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x07\x7f\x9b", r"\x07\x7f\x9b"),
        ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\ufeff", r"\ufeff"),
        (b"\xff.png".decode("utf-8", "surrogateescape"), r"\xff.png"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["", "[/b] [red]x", "Straße 東京", "می\u200cروم", "👩\u200d👩\u200d👧", "C:\\new"])
def test_other_text_is_shown_as_it_is(text):
    assert printable(text) == text


def test_an_error_is_one_line():
    error = InputError("cannot read a\nb", got="\x1b[2J", expected="\u202e", fix="c\rd")
    assert str(error) == r"cannot read a\nb; got \x1b[2J; expected \u202e; fix: c\rd"
    assert error.got == "\x1b[2J"
