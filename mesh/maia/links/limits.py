"""How much one link may hold, in calls and in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from maia.errors import MisuseError

KIB = 1024
MIB = 1024 * KIB

# A frame is the turn that one call takes on the wire: at 64 KiB the others wait half a millisecond for it on 1 Gbit/s.
FRAME_BYTES_MAX = 64 * KIB
# What a frame may spend on everything beside its piece of a body: type, ids, lengths, and a kind of KIND_CHARACTERS_MAX.
PIECE_BYTES_MAX = FRAME_BYTES_MAX - KIB
KIND_CHARACTERS_MAX = 128
# What holding one small reply costs beside its bytes; without it, credit in bytes would let a stream of empty replies grow without end.
PIECE_COST_BYTES = 64
# One write takes this much, then looks again at who else has something to say. A message on the wire is at most this and one more frame.
BATCH_BYTES = 64 * KIB
MESSAGE_BYTES_MAX = BATCH_BYTES + FRAME_BYTES_MAX + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """The bounds of one side of one link. Both sides may differ: each enforces its own, and says its window in its hello."""

    calls_max: int = 512  # at once; the 16 clients of a busy gateway and their streams are far below, a runaway loop is above
    body_bytes_max: int = 10 * MIB  # a request, or one reply
    window_bytes: int = 256 * KIB  # replies of one call that may wait for their reader: 2 ms of 1 Gbit/s, 4,000 small ones
    waiting_bytes_max: int = 64 * KIB  # replies of one call that may wait for the wire before its handler is held
    held_bytes_max: int = 64 * MIB  # all bodies of several frames that are being put together, or wait to be read
    control_frames_max: int = 4096  # refusals and credit that the other side has caused and does not read
    ping_period_s: float = 2.0
    silence_max_s: float = 6.0  # three pings: a process that is stopped, a cable that is out
    # A clock that jumped this far ahead of the next thing due means that we were the ones who stood still: nobody is blamed for it.
    stall_s: float = 1.0
    # How long the other side may take to confirm a cancelled call. Longer than `silence_max_s`, so only a broken peer ever gets there.
    lingering_s: float = 30.0

    def __post_init__(self) -> None:
        # Credit goes back when half of the window was read: the other half has to hold one more frame, or both sides wait for ever.
        if self.window_bytes < 2 * (FRAME_BYTES_MAX + PIECE_COST_BYTES):
            raise MisuseError(
                f"window_bytes is {self.window_bytes}: at least two frames of {FRAME_BYTES_MAX + PIECE_COST_BYTES} have to fit"
            )
        # A stall that is too short to be noticed, beside the longest regular gap on each side of it, must not look like silence.
        if self.silence_max_s < self.stall_s + 2 * self.ping_period_s:
            raise MisuseError(
                f"silence_max_s is {self.silence_max_s}: at least stall_s and two ping periods are needed to tell who was silent"
            )
        if self.body_bytes_max > self.held_bytes_max:
            raise MisuseError(
                f"body_bytes_max ({self.body_bytes_max}) is above held_bytes_max ({self.held_bytes_max}): it could never arrive"
            )
