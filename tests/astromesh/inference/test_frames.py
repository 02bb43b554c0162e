"""Frames survive any cut of the bytes, and what is no frame is never taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astromesh.inference.frames import FRAME_BYTES_MAX, FrameDecoder, FrameError, pack

SENT = [
    {"kind": "step", "pieces": [[1, "a"], [2, "€"]], "ended": []},
    {"kind": "cancel", "number": 7},
    {"kind": "complete", "transcript": [{"role": "user", "content": "x" * 500, "tool_call_id": None}]},
]


@given(cuts=st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=20))
def test_frames_come_out_whole_and_in_order_however_the_pipe_cuts_them(cuts: list[int]) -> None:
    data = b"".join(pack(frame) for frame in SENT)
    decoder, received, turn = FrameDecoder(), [], 0
    while data:
        cut = cuts[turn % len(cuts)]
        received += decoder.feed(data[:cut])
        data, turn = data[cut:], turn + 1
    assert received == SENT


@pytest.mark.parametrize(
    "noise",
    [
        b"llama_model_loader: loaded meta data\n",  # printed into the pipe: its first four bytes are a length beyond the limit
        (3).to_bytes(4, "big") + b"\xc1\xc1\xc1",  # a byte that msgpack never uses
        (1).to_bytes(4, "big") + b"\x05",  # a number
        (1).to_bytes(4, "big") + b"\x80",  # a map without a kind
        (FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
    ],
)
def test_noise_in_the_pipe_is_an_error_and_not_a_frame(noise: bytes) -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameError):
        decoder.feed(noise)


def test_a_frame_beyond_the_limit_is_never_sent() -> None:
    with pytest.raises(FrameError, match="at most"):
        pack({"kind": "complete", "content": "x" * FRAME_BYTES_MAX})
