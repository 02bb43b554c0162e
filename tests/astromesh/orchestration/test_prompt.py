"""Templates: what they fill in, what they refuse, and where they stop."""

from __future__ import annotations

import pytest

from astromesh.errors import AgentUnusable, PromptUnrenderable
from astromesh.orchestration.prompt import RENDERED_CHARACTERS_MAX, Template


def rendered(template: str, /, **variables: object) -> str:
    return Template(template, where="prompts.system of agent desk").render(variables)


def test_variables_are_filled_in_and_surrounding_space_is_cut() -> None:
    assert rendered("  Hello {{ who }}!\n", who="Ada") == "Hello Ada!"


@pytest.mark.parametrize("text", ["{{ nobody }}", "{{ nobody.name.first }}", "{{ nobody['name'] }}"])
def test_an_undefined_variable_is_empty(text: str) -> None:
    assert rendered(f"[{text}]") == "[]"


def test_markup_in_a_variable_stays_as_it_is() -> None:
    assert rendered("{{ text }}", text="<b>&</b> {{ no }}") == "<b>&</b> {{ no }}"


@pytest.mark.parametrize("name", ["self", "context", "args", "kwargs", "cls"])
def test_a_variable_may_have_any_name(name: str) -> None:
    assert Template("{{ who }}", where="a prompt").render({name: 1, "who": "Ada"}) == "Ada"


def test_a_mistake_in_the_syntax_names_its_key_and_its_line() -> None:
    with pytest.raises(AgentUnusable, match=r"prompts\.system of agent desk: line 3 of the template") as raised:
        Template("one\ntwo\n{% if %}\n", where="prompts.system of agent desk")
    assert raised.value.definite


def test_an_expression_that_fails_names_its_key() -> None:
    with pytest.raises(PromptUnrenderable, match=r"prompts\.system of agent desk: cannot be rendered: ZeroDivisionError"):
        rendered("{{ 1 / n }}", n=0)


def test_a_template_that_grows_without_end_is_stopped() -> None:
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxx{% endfor %}{% endfor %}"
    with pytest.raises(PromptUnrenderable, match=r"prompts\.system of agent desk: renders to more than"):
        rendered(endless)


def test_a_text_of_exactly_the_limit_is_rendered() -> None:
    assert len(rendered("{{ text }}", text="x" * RENDERED_CHARACTERS_MAX)) == RENDERED_CHARACTERS_MAX
    with pytest.raises(PromptUnrenderable, match=f"more than {RENDERED_CHARACTERS_MAX} characters"):
        rendered("{{ text }}", text="x" * (RENDERED_CHARACTERS_MAX + 1))


@pytest.mark.parametrize("text", ["{{ ''.__class__.__mro__ }}", "{{ f.__globals__ }}", "{{ ().__class__.__base__.__subclasses__() }}"])
def test_private_attributes_are_out_of_reach(text: str) -> None:
    with pytest.raises(PromptUnrenderable, match="SecurityError"):
        rendered(text, f=rendered)


def test_what_a_template_is_given_cannot_be_changed_by_it() -> None:
    given = {"names": ["Ada"]}
    with pytest.raises(PromptUnrenderable, match="SecurityError"):
        Template("{{ names.append('Bob') }}", where="a prompt").render(given)
    assert given == {"names": ["Ada"]}


def test_a_prompt_without_anything_to_fill_in_is_itself() -> None:
    assert rendered(" Be brief. 100 % of the time. ") == "Be brief. 100 % of the time."


def test_a_named_template_is_included_with_the_same_variables() -> None:
    named = {"greeting": "Hello {{ who }}, {% include 'bye' %}", "bye": "bye {{ who }}"}
    prompt = Template("{% include 'greeting' %}!", where="a prompt", named=named)
    assert prompt.render({"who": "Ada"}) == "Hello Ada, bye Ada!"


def test_a_template_that_nobody_named_fails_when_it_is_rendered() -> None:
    with pytest.raises(PromptUnrenderable, match="a prompt: cannot be rendered: TemplateNotFound: nobody"):
        Template("{% include which %}", where="a prompt", named={"a": "b"}).render({"which": "nobody"})


def test_included_templates_live_in_the_sandbox_and_within_the_limit() -> None:
    with pytest.raises(PromptUnrenderable, match="SecurityError"):
        Template("{% include 'a' %}", where="a prompt", named={"a": "{{ ''.__class__ }}"}).render({})
    with pytest.raises(PromptUnrenderable, match="more than"):
        Template("{% include 'a' %}", where="a prompt", named={"a": "{% for i in range(99999) %}xxxxxxxxxx{% endfor %}"}).render({})


def test_templates_of_one_agent_are_unknown_to_another() -> None:
    Template("{% include 'a' %}", where="one", named={"a": "x"}).render({})
    with pytest.raises(PromptUnrenderable, match="TemplateNotFound"):
        Template("{% include 'a' %}", where="another", named={"b": "x"}).render({})


def test_a_template_says_which_variables_it_asks_for() -> None:
    assert Template("{{ input }} {% for x in rows %}{{ x }}{% endfor %}", where="a prompt").mentions == {"input", "rows"}
    assert Template("plain", where="a prompt").mentions == frozenset()
