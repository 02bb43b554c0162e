"""Templates that would take all the time or all the memory of their node, and those that only look so."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from jinja2 import ChainableUndefined
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from astromesh.specs.sandbox import NotATemplate, Sandbox, TakesTooMuch, compiled, metered

MEMORY_MAX = 64 * 2**20
DOUBLED = "{{% set ns = namespace(x='aaaaaaaa', y=[1], z=[1]) %}}{{% for i in range(60) %}}{}{{% endfor %}}"

BOMBS = {
    "a text, multiplied": "{{ 'a' * 10**9 }}",
    "a list, multiplied": "{{ [0] * 10**9 }}",
    "a number with a million digits": "{{ 10 ** (10 ** 6) }}",
    "numbers that are squared": DOUBLED.format("{% set ns.x = (ns.x if ns.x is number else 7) * (ns.x if ns.x is number else 7) %}"),
    "loops that write nothing": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "loops that choose nothing": "{% for i in range(999) %}{% for j in range(999) if false %}{% endfor %}{% endfor %}",
    "loops that keep what they write": "{% set x %}{% for i in range(99999) %}" + "x" * 90_000 + "{% endfor %}{% endset %}",
    "sums within a loop": "{% for i in range(99999) %}{% set x = range(99999)|map(attribute='real')|sum %}{% endfor %}",
    "choices within a loop": "{% set a = range(9999)|list %}{% for i in range(99999) %}{% set x = a|select('none')|list %}{% endfor %}",
    "copies within a loop": "{% set a = range(9999)|list %}{% for i in range(99999) %}{% set x = a[:] %}{% endfor %}",
    "searches within a loop": "{% set a = range(9999)|list %}{% for i in range(99999) %}{% if 'x' in a %}{% endif %}{% endfor %}",
    "tests within a loop": "{% set a = range(9999)|list %}{% for i in range(99999) %}{% if 'x' is in a %}{% endif %}{% endfor %}",
    "arguments without end": "{% macro m() %}{{ varargs }}{% endmacro %}{% for i in range(9) %}{{ m(*range(99999)) }}{% endfor %}",
    "calls of calls": "{% macro f() %}{{ caller() }}{{ caller() }}{% endmacro %}" + "{% call f() %}" * 18 + "{% endcall %}" * 18,
    "macros that call each other twice": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a text, doubled by ~": DOUBLED.format("{% set ns.x = ns.x ~ ns.x %}"),
    "a text, doubled by +": DOUBLED.format("{% set ns.x = ns.x + ns.x %}"),
    "a text, doubled by a block": DOUBLED.format("{% set x %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = x %}"),
    "a text, doubled by a filter": DOUBLED.format("{% set ns.x = [ns.x, ns.x]|join %}"),
    "a text, doubled by a format": DOUBLED.format("{% set ns.x = '%s%s'|format(ns.x, ns.x) %}"),
    "lists in lists, written": DOUBLED.format("{% set ns.y = [ns.y, ns.y] %}") + "{{ ns.y }}",
    "lists in lists, as JSON": DOUBLED.format("{% set ns.y = [ns.y, ns.y] %}") + "{{ ns.y|tojson }}",
    "lists in lists, compared": DOUBLED.format("{% set ns.y = [ns.y, ns.y] %}{% set ns.z = [ns.z, ns.z] %}") + "{{ ns.y == ns.z }}",
    "lists in lists, joined": DOUBLED.format("{% set ns.y = [ns.y, ns.y] %}") + "{{ ns.y ~ '' }}",
    "a wide column, by a filter": "{{ 'x'|center(10**9) }}",
    "a wide column, by a method": "{{ 'x'.ljust(10**9) }}",
    "a wide number": "{{ '%1000000000d'|format(1) }}",
    "a wide number, by %": "{{ '%01000000000d' % 1 }}",
    "a wide number, by a method": "{{ '{:1000000000}'.format(1) }}",
    "one text many times": "{% set a = 'a' * 100000 %}{{ ('%(a)s' * 9000) % {'a': a} }}",
    "a long text for each letter": "{{ ('a' * 300000)|replace('a', 'b' * 300000) }}",
    "a long text for each letter, by a method": "{{ ('a' * 300000).replace('', 'b' * 300000) }}",
    "a long text between items": "{{ range(99999)|join('b' * 300000) }}",
    "a long text between items, by a method": "{{ ('b' * 300000).join(range(99999)|map('string')) }}",
    "long indents": "{{ ('\n' * 30000)|indent(30000) }}",
    "long indents in JSON": "{{ range(9999)|list|tojson(indent=100000) }}",
    "long lines, cut": "{{ ('a' * 400000)|wordwrap(1) }}",
    "tags without end": "{{ ('<a>' * 130000)|striptags }}",
    "a long batch": "{{ [1]|batch(10**9, 'x')|list }}",
    "many slices": "{{ [1]|slice(10**9)|list }}",
    "decimals": "{{ 1.5|round(10**6, 'ceil') }}",
}
REFUSED = {
    "to_bytes": "{{ (1).to_bytes(10**9, 'big') }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "a computed width": "{{ '%*d'|format(9, 1) }}",
    "a computed width, by %": "{{ '%(a)-*d' % (10**9, 1) }}",
    "a computed width, by a method": "{{ '{:{}}'.format(1, 10**9) }}",
    "lists, summed": "{{ [range(9)|list]|sum(start=[]) }}",
    "a namespace, written": "{% set ns = namespace(a=1) %}{{ ns }}",
}
NO_TEMPLATES = {
    "nested brackets": "{{ " + "(" * 40_000 + "1" + ")" * 40_000 + " }}",
    "nested loops": "{% for a in b %}" * 30 + "{% endfor %}" * 30,
    "a long number": "{{ " + "9" * 90_000 + " }}",
    "many attributes": "{{ a" + ".b" * 40_000 + " }}",
    "many sums": "{{ 1" + "+1" * 40_000 + " }}",
    "many variables": "{{ a }}" * 14_000,
    "a long text": "{{ a }}" + "x" * 100_000,
}
FINE = [
    "{{ 'a' * 3 }} {{ 2 ** 10 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ '%05.1f|%s' % (2.5, 'x') }} {{ [1] + [2] }} {{ 'a' ~ 1 ~ none ~ nobody }}",
    "{{ '%s is %d' | format('x', 3) }} {{ '{:,} {x:>4} {{}}'.format(1234567, x='a') }} {{ '100 %' | replace('%', 'percent') }}",
    "{% for row in rows if row.n > 1 %}{{ loop.index }}/{{ loop.length }} {{ row.name|upper }}{{ ', ' if not loop.last }}{% endfor %}",
    "{% for row in rows recursive %}{{ row.name }}{{ loop(row.more) if row.more }}{% else %}none{% endfor %}",
    "{{ rows|map(attribute='name')|join(', ') }} {{ rows|selectattr('n', 'gt', 1)|list|length }} {{ rows|sum(attribute='n') }}",
    "{{ rows|groupby('n')|map('first')|list }} {{ rows|sort(attribute='name', reverse=true)|map(attribute='name')|list }}",
    "{{ text|truncate(20) }}|{{ text|wordwrap(20) }}|{{ text|indent(2) }}|{{ text|title|trim }}|{{ text|wordcount }}|{{ text|center(60) }}",
    "{{ rows|tojson }} {{ rows|tojson(indent=2) }} {{ '<b>x</b>'|striptags }} {{ '<b>'|e }} {{ 3.14159|round(2) }} {{ '3'|int + 1 }}",
    "{% macro item(x, y=2) %}[{{ x }}:{{ y }}]{{ varargs }}{% endmacro %}{{ item(1) }}{{ item(1, 3, 4) }}",
    "{% macro box() %}<{{ caller() }}>{% endmacro %}{% call box() %}in{% endcall %}{% filter upper %}up{% endfilter %}",
    "{% set x %}a{{ 1 }}{% endset %}{{ x }}",
    "{% set ns = namespace(n=0) %}{% for r in rows %}{% set ns.n = ns.n + r.n %}{% endfor %}{{ ns.n }}",
    "{{ rows[0]['name'] }} {{ rows[:1]|length }} {{ text[2:5] }} {{ rows|first|attr('items') is callable }} {{ rows[0].get('z', 'no') }}",
    "{% if 'Ada' in rows|map(attribute='name') and 2 <= 3 != 4 %}yes{% endif %}",
    "{{ 1 in [1, 2] }} {{ 'a' is in 'abc' }} {{ 4 is divisibleby 2 }}",
    "{{ [3, 1, 2]|sort }} {{ [1, 2, 3, 4]|batch(2)|list }} {{ [1, 2, 3]|slice(2)|list }} {{ [1, 1, 2]|unique|list }} {{ [1, 2]|max }}",
    "{{ ', '.join(['a', 'b']) }} {{ 'a-b'.split('-') }} {{ 'x'.replace('x', 'y') }} {{ 'x'.center(5) }} {{ {'b': 1, 'a': 2}|dictsort }}",
    "{% set c = cycler('odd', 'even') %}{{ c.next() }}{{ c.next() }}{% set j = joiner(', ') %}{{ j() }}a{{ j() }}b {{ dict(a=1) }}",
    "{{ nobody.name|default('x') }} {{ nobody }} {{ (nobody or 'y')|lower }} {{ none }} {{ true }} {{ range(3)|list }} {{ -(2) }}",
    "{% block a %}in {{ text|length }}{% endblock %} {{ self.a() }}",
    "{% raw %}{{ x }}{% endraw %}{# nothing #}{% with z = 1 %}{{ z }}{% endwith %}",
]
VARIABLES: dict[str, Any] = {
    "text": "The quick brown fox\njumps over the lazy dog.",
    "rows": [{"name": "Ada", "n": 1, "more": [{"name": "Ida", "n": 0, "more": []}]}, {"name": "Bob", "n": 2, "more": []}],
}


def rendered(template: str, /, **variables: Any) -> str:
    ready = compiled(Sandbox(), template)
    with metered():
        return ready.render(variables)


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_what_would_take_everything_is_refused(text: str) -> None:
    with pytest.raises(TakesTooMuch):
        rendered(text)


def test_what_would_take_everything_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        for name in [name for name in BOMBS if name.startswith(("a ", "many ", "long ", "lists in lists, w"))]:
            with pytest.raises(TakesTooMuch):
                rendered(BOMBS[name])
            assert tracemalloc.get_traced_memory()[1] < MEMORY_MAX, name
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_counted_is_out_of_reach(text: str) -> None:
    with pytest.raises(SecurityError):
        rendered(text)


@pytest.mark.parametrize("text", NO_TEMPLATES.values(), ids=NO_TEMPLATES)
def test_what_the_compiler_cannot_take_is_no_template(text: str) -> None:
    with pytest.raises(NotATemplate):
        compiled(Sandbox(), text)


def test_a_macro_that_calls_itself_without_end_is_an_error() -> None:
    with pytest.raises(RecursionError):
        rendered("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")


def test_nothing_is_computed_while_a_template_is_compiled() -> None:
    for text in (*BOMBS.values(), *REFUSED.values()):
        compiled(Sandbox(), text)


@pytest.mark.parametrize("text", FINE)
def test_everything_else_is_as_jinja_has_it(text: str) -> None:
    usual = ImmutableSandboxedEnvironment(undefined=ChainableUndefined, autoescape=False)
    assert rendered(text, **VARIABLES) == usual.from_string(text).render(VARIABLES)


def test_a_table_of_two_thousand_rows_is_no_bomb() -> None:
    rows = [{"name": f"name {number}", "n": number, "note": "a note of some length"} for number in range(2000)]
    table = "{% for row in rows %}{{ loop.index }}. {{ row.name|title }} ({{ '%05d'|format(row.n) }}): {{ row.note }}\n{% endfor %}"
    assert rendered(table, rows=rows).count("\n") == 2000


def test_one_rendering_takes_nothing_from_the_next() -> None:
    template = compiled(Sandbox(), "{% for i in range(20000) %}{% endfor %}done")
    for _ in range(20):
        with metered():
            assert template.render() == "done"
