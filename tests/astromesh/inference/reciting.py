"""A decoder that recites: every character is a token, and its answer to anything is the text that it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from astromesh.errors import InvalidRequest
from astromesh.inference.chat import CUT
from astromesh.inference.sampling import SamplingPlan
from astromesh.inference.schedule import Piece, TokenChances

END = 0


@dataclass(slots=True)
class Recitation:
    grammar: str | None
    held: bool
    taken: str = ""
    events: list[str] = field(default_factory=list)  # what happened to its grammar, and after which text


class Reciting:
    def __init__(self, answer: str, *, forbids: str = "\0", steering: str = "\1") -> None:
        """`forbids`: a character that no grammar takes. `steering` is a token of its own without text."""
        self.answer = answer
        self.forbids = forbids
        self.steering = steering
        self.prompts: list[str] = []
        self.samplers: list[Recitation] = []
        self.open = 0
        self._outputs = 0

    def tokenize(self, prompt: str) -> list[int]:
        self.prompts.append(prompt)
        return [ord(character) for character in prompt if character != CUT]

    def token_of(self, text: str) -> int | None:
        return ord(self.steering) if text == "[TOOL_CALLS]" else None

    def sampler(self, plan: SamplingPlan, *, seed: int, window: int, grammar: str | None, held: bool) -> Recitation:
        self.open += 1
        self.samplers.append(Recitation(grammar, held and grammar is not None))
        return self.samplers[-1]

    def release(self, sampler: Recitation) -> None:
        self.open -= 1

    def hold(self, sampler: Recitation) -> None:
        sampler.held = True
        sampler.events.append(f"hold {sampler.taken}")

    def let_go(self, sampler: Recitation) -> None:
        sampler.held = False
        sampler.events.append(f"let go {sampler.taken}")

    def decode(self, pieces: Sequence[Piece]) -> list[int]:
        return [0 for piece in pieces if piece.output]

    def sample(self, sampler: Recitation, output: int) -> int:
        position = len(sampler.taken)
        if position == len(self.answer):
            return END
        self._take(sampler, self.answer[position])
        return ord(self.answer[position])

    def _take(self, sampler: Recitation, character: str) -> None:
        if sampler.held and character == self.forbids:
            raise InvalidRequest("the grammar forbids it", param="resume")
        sampler.taken += character

    def logprobs(self, output: int, token: int, *, top: int) -> TokenChances:
        return -0.5, [(token, -0.5)][:top]

    def replay(self, sampler: Recitation, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._take(sampler, chr(token))

    def piece(self, token: int) -> bytes:
        return b"" if token == ord(self.steering) else chr(token).encode()

    def ends(self, token: int) -> bool:
        return token == END

    def forget(self, sequence: int) -> None: ...

    def share(self, source: int, target: int, *, start: int, end: int) -> None: ...

    def export(self, sequence: int, *, start: int, end: int) -> bytes:
        return b""

    def restore(self, sequence: int, data: bytes, *, start: int, end: int) -> bool:
        return False
