"""Text comes out of bytes of tokens as early as it may, and never twice or torn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from astromesh.inference.assembly import TextAssembler


def test_a_character_waits_for_all_of_its_bytes() -> None:
    assembler = TextAssembler()
    first, second, third = "€".encode()[:1], "€".encode()[1:2], "€".encode()[2:]
    assert [assembler.feed(piece) for piece in (b"a" + first, second, third + b"b")] == ["a", "", "€b"]


def test_half_a_character_at_the_end_is_no_text() -> None:
    assembler = TextAssembler()
    assert assembler.feed("né".encode()[:2]) == "n"
    assert assembler.finish() == ""


def test_bytes_that_are_no_text_at_all_do_not_stop_the_stream() -> None:
    assembler = TextAssembler()
    assert assembler.feed(b"a\xffb") == "a\N{REPLACEMENT CHARACTER}b"


def test_a_stop_string_is_found_across_tokens_and_never_shown() -> None:
    assembler = TextAssembler(("\nUser:",))
    shown = [assembler.feed(piece) for piece in (b"Hello", b"!\nUs", b"er", b": and more")]
    assert shown == ["Hello", "!", "", ""]
    assert assembler.stopped_by == "\nUser:"
    assert assembler.feed(b"later") == ""
    assert assembler.finish() == ""


def test_what_only_looked_like_a_stop_string_is_shown_after_all() -> None:
    assembler = TextAssembler(("\nUser:",))
    assert assembler.feed(b"a\nUs") == "a"
    assert assembler.feed(b"ual") == "\nUsual"


def test_what_was_held_back_is_shown_at_the_end() -> None:
    assembler = TextAssembler(("END",))
    assert assembler.feed(b"the EN") == "the "
    assert assembler.finish() == "EN"


def test_the_earliest_stop_string_wins_and_of_two_that_begin_together_the_longer() -> None:
    early = TextAssembler(("later", "soon"))
    assert early.feed(b"too soon or later") == "too "
    assert early.stopped_by == "soon"
    longer = TextAssembler(("##", "###"))
    assert longer.feed(b"a###") == "a"
    assert longer.stopped_by == "###"


@given(
    text=st.text(alphabet="ab\n€🦊", max_size=40),
    stops=st.lists(st.text(alphabet="ab\n€", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(min_value=1, max_value=4), min_size=1, max_size=8),
)
def test_however_the_bytes_are_cut_the_text_is_that_before_the_first_stop_string(text: str, stops: list[str], cuts: list[int]) -> None:
    # A longer stop string may be complete only after a shorter one that begins with it has ended the stream; both begin at one place.
    assembler = TextAssembler(tuple(stops))
    data, shown, turn = text.encode(), "", 0
    while data and assembler.stopped_by is None:
        cut = cuts[turn % len(cuts)]
        shown += assembler.feed(data[:cut])
        data, turn = data[cut:], turn + 1
        assert text.startswith(shown)
    shown += assembler.finish()
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    if not ends:
        assert shown == text
        assert assembler.stopped_by is None
    else:
        assert assembler.stopped_by in stops
        assert not any(stop in shown for stop in stops)
        assert text.startswith(shown + assembler.stopped_by)
