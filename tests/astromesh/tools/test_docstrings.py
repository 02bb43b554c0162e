"""What a docstring says of a function and of its parameters."""

from __future__ import annotations

from inspect import cleandoc

import pytest

from astromesh.tools.docstrings import description_of, parameters_of

GOOGLE = """The weather of a city.

    For the next days,
    as far as it is known.

    Args:
        city: its name
            in English: with the country
        days (int, optional): how many
        **more: of it

    Returns:
        text: the weather
    """
SPHINX = """The weather of a city.

    :param city: its name
        in English
    :param int days: how many
    :returns: the weather
    """


@pytest.mark.parametrize(
    ("docstring", "said"),
    [
        (GOOGLE, "The weather of a city.\nFor the next days, as far as it is known."),
        (SPHINX, "The weather of a city."),
        ("", ""),
        ("Args:\n    a: b", ""),
        ("One: two", "One: two"),
    ],
)
def test_the_description_is_what_stands_before_the_first_section(docstring: str, said: str) -> None:
    assert description_of(docstring) == said
    assert description_of(cleandoc(docstring)) == said


@pytest.mark.parametrize(
    ("docstring", "said"),
    [
        (GOOGLE, {"city": "its name in English: with the country", "days": "how many", "more": "of it"}),
        (SPHINX, {"city": "its name in English", "days": "how many"}),
        ("No sections: at all", {}),
        ("Args:\n    a: first\n\n    b: second", {"a": "first", "b": "second"}),
        ("Args:\n", {}),
    ],
)
def test_each_parameter_has_what_is_said_of_it(docstring: str, said: dict[str, str]) -> None:
    assert parameters_of(docstring) == said
