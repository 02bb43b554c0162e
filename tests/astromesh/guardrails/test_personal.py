"""What is found as personal data, in all the ways in which it gets past a naive look, and what is left alone."""

from __future__ import annotations

import base64

import pytest

from astromesh.guardrails.personal import KINDS, passes_luhn
from astromesh.guardrails.scan import Chain

EMAIL, PHONE, SSN, CARD = "[REDACTED_EMAIL]", "[REDACTED_PHONE]", "[REDACTED_SSN]", "[REDACTED_CC]"


def redacted(text: str, *, by: int = 1_000_000) -> str:
    chain = Chain(KINDS)
    return "".join(chain.feed(text[start : start + by]) for start in range(0, len(text), by)) + chain.finish()


PLAIN = [
    ("Write to john.o-doe+x@mail.example.co.uk.", f"Write to {EMAIL}."),
    ("<JOHN@EXAMPLE.COM>, or not", f"<{EMAIL}>, or not"),
    ("a@b.co,c@d.org", f"{EMAIL},{EMAIL}"),
    ("Call (555) 123-4567 now", f"Call {PHONE} now"),
    ("555.123.4567 or 5551234567", f"{PHONE} or {PHONE}"),
    ("1-800-555-0199", PHONE),
    ("+44 20 7946 0958, +1 (555) 123-4567", f"{PHONE}, {PHONE}"),
    ("0049 176 12345678; 0176/12345678", f"{PHONE}; {PHONE}"),
    ("SSN 123-45-6789.", f"SSN {SSN}."),
    ("Card 4111 1111 1111 1111, exp 12/27", f"Card {CARD}, exp 12/27"),
    ("378282246310005 and 5555555555554444", f"{CARD} and {CARD}"),
    ("6011-1111-1111-1117", CARD),
]
SPACED = [
    ("john @ example.com", EMAIL),
    ("john@example . com", EMAIL),
    ("john [at] example [dot] com", EMAIL),
    ("john(at)example(dot)com", EMAIL),
    ("mail j o h n @ e x a m p l e . c o m today", f"mail {EMAIL} today"),
    ("4111-1111 - 1111   1111", CARD),
    ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", CARD),
    ("4111\n1111\n1111\n1111", CARD),
    ("555 - 123 - 4567", PHONE),
    ("5 5 5 1 2 3 4 5 6 7", PHONE),
    ("123 - 45 - 6789", SSN),
    ("1 2 3-4 5-6 7 8 9", SSN),
]
LOOK_ALIKES = [
    ("jоhn@exаmple.cоm", EMAIL),  # Cyrillic
    ("ｊｏｈｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", EMAIL),
    ("𝗷𝗼𝗵𝗻@𝗲𝘅𝗮𝗺𝗽𝗹𝗲.𝗰𝗼𝗺", EMAIL),
    ("john﹫example․com", EMAIL),  # a small @, a one dot leader
    ("jóhn@éxample.com", EMAIL),
    ("４１１１　１１１１　１１１１　１１１１", CARD),
    ("٤١١١ ١١١١ ١١١١ ١١١١", CARD),  # Arabic-Indic
    ("4111–1111—1111‑1111", CARD),
    ("①②③-④⑤-⑥⑦⑧⑨", SSN),
    ("＋４４ 20 7946 0958", PHONE),
    ("555−123−4567", PHONE),  # minus signs
]
INVISIBLE = [
    ("jo\u200bhn@exam\u2060ple.c\ufeffom", EMAIL),
    ("jo\u00adhn@example.com", EMAIL),
    ("4\u200d1\u200d1\u200d1 1111 1111 1111", CARD),
    ("12\ufe0f3-45-67\u034f89", SSN),
    ("555\u2009123\u202f4567", PHONE),
    ("555-1\u0301\u030223-4567", PHONE),
    ("john" + "\u200b" * 500 + "@example.com", EMAIL),
    ("4111 1111" + "\U000e0041" * 500 + " 1111 1111", CARD),
]


@pytest.mark.parametrize(("text", "shown"), PLAIN + SPACED + LOOK_ALIKES + INVISIBLE)
def test_personal_data_is_redacted_however_it_is_written_and_wherever_it_is_cut(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(text, by=1) == shown
    assert redacted(text, by=5) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Meet me @ home. Come on!",
        "x = a@b; @decorator",
        "on 01.02.2024, 2024-01-02, 2024-01-02 10:00 or 2024-01-02T10:00:00",
        "192.168.100.200 and 10.168.100.20",
        "π is 3.14159265358979",
        "4111 1111 1111 1112",  # fails the check digit
        "000-12-3456, 666-12-3456, 912-12-3456, 123-00-4567, 123-45-0000",
        "order 12345, 1,000,000 pieces, 20 of 30",
        "version 1.2.3-4, ISBN 12",
        "👨\u200d👩\u200d👧 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "می\u200cخواهم",
    ],
)
def test_what_is_no_personal_data_is_left_as_it_is(text: str) -> None:
    assert redacted(text) == text
    assert redacted(text, by=1) == text


def test_a_card_is_a_card_though_a_phone_number_could_be_read_into_it() -> None:
    assert redacted("+1 4111111111111111") == f"+1 {CARD}"


def test_redacting_what_is_redacted_changes_nothing() -> None:
    for text, shown in PLAIN:
        assert redacted(redacted(text)) == shown


def test_encoded_text_is_out_of_reach() -> None:
    """As the documentation says: a rule does not decode."""
    encoded = base64.b64encode(b"john@example.com").decode()
    assert redacted(encoded) == encoded


def test_check_digits_are_those_of_the_standard() -> None:
    assert passes_luhn("79927398713")
    assert not any(passes_luhn(f"7992739871{last}") for last in "012456789")
