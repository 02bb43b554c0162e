"""Whether a server is asked once more, and when."""

from __future__ import annotations

import pytest

from astromesh.errors import AstromeshError, ModelFailed, ModelRefused, ModelUnavailable, Overloaded
from astromesh.routing.retry import FIRST_WAIT_S, PATIENCE_S, RETRIES_MAX, retry_after_s

REFUSED = ModelFailed("nobody listens", code="model_connection_refused", definite=True)
UNRESOLVED = ModelFailed("no such name", code="model_dns_resolution_failed", definite=True)
STARTING = ModelFailed("503", code="model_provider_unavailable", definite=True, retry_after_s=0)


class Dice:
    """Says the most or the least that it may."""

    def __init__(self, share: float) -> None:
        self.share = share

    def uniform(self, a: float, b: float, /) -> float:
        return a + (b - a) * self.share


def wait(failure: AstromeshError, *, retries: int = 0, left_s: float = 60.0, others: bool = False, share: float = 1.0) -> float | None:
    return retry_after_s(failure, retries=retries, left_s=left_s, others=others, random=Dice(share))


@pytest.mark.parametrize("failure", [REFUSED, UNRESOLVED, STARTING], ids=lambda failure: failure.message)
def test_what_may_be_over_in_a_moment_is_tried_again_twice_after_any_part_of_a_growing_wait(failure: AstromeshError) -> None:
    assert [wait(failure, retries=retries) for retries in range(RETRIES_MAX + 1)] == [FIRST_WAIT_S, 2 * FIRST_WAIT_S, None]
    assert wait(failure, share=0.0) == 0.0


@pytest.mark.parametrize(
    "failure",
    [
        ModelFailed("500", code="model_provider_unavailable", definite=True),
        ModelFailed("it broke off", code="model_provider_unavailable"),
        ModelFailed("too late", code="model_timeout"),
        ModelFailed("no answer to a SYN", code="model_timeout", definite=True),
        ModelFailed("no key", code="model_missing_api_key", definite=True),
        ModelFailed("perhaps", code="model_connection_refused"),
        ModelRefused("400"),
        ModelUnavailable("gone"),
    ],
    ids=lambda failure: failure.message,
)
def test_what_would_fail_again_or_may_have_happened_is_not(failure: AstromeshError) -> None:
    assert wait(failure) is None


def test_a_server_that_says_when_is_not_asked_before() -> None:
    assert wait(Overloaded("429", retry_after_s=7), share=0.0) == 7.0
    assert wait(Overloaded("429", retry_after_s=7)) == 7.0 + FIRST_WAIT_S


def test_nobody_waits_longer_than_he_has_time() -> None:
    assert wait(Overloaded("429", retry_after_s=7), left_s=7.0, share=0.0) is None
    assert wait(Overloaded("429", retry_after_s=7), left_s=7.1, share=0.0) == 7.0


def test_while_others_can_be_asked_nobody_waits_long() -> None:
    assert wait(Overloaded("429", retry_after_s=int(PATIENCE_S)), others=True, share=0.0) == PATIENCE_S
    assert wait(Overloaded("429", retry_after_s=int(PATIENCE_S) + 1), others=True, share=0.0) is None
