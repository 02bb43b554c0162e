"""Two sides of a link talking in memory: what is said, what it costs, and how it ends."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maia.config import LOAD_BYTES_MAX
from maia.errors import CallError, CallExpired, CallFailed, CallRefused, ConversationBroken, LinkLost, MisuseError, PeerUnreachable
from maia.links.calling import CallingSide, Ended
from maia.links.conversation import CallArrived, CallWithdrawn, Event, Greeted, LoadTold, MayReply
from maia.links.frames import (
    Cancel,
    Credit,
    Done,
    Failed,
    Frame,
    FrameReader,
    Hello,
    More,
    Open,
    Ping,
    Pong,
    Refused,
    Reply,
    encode,
    encode_body,
)
from maia.links.greeting import Greeting, hello
from maia.links.limits import BATCH_BYTES, FRAME_BYTES_MAX, KIB, MESSAGE_BYTES_MAX, MIB, PIECE_BYTES_MAX, PIECE_COST_BYTES, LinkLimits
from maia.links.serving import ServingSide

KINDS = ("echo", "stream")
LIMITS = LinkLimits()


def asking(limits: LinkLimits = LIMITS, *, versions: tuple[int, int] = (1, 1)) -> CallingSide:
    return CallingSide(Greeting("asker", "id-asker"), limits, now=0.0, versions=versions)


def answering(limits: LinkLimits = LIMITS, *, versions: tuple[int, int] = (1, 1)) -> ServingSide:
    return ServingSide(Greeting("server", "id-server"), limits, kinds=KINDS, now=0.0, versions=versions)


class Pair:
    """Both sides, greeted. `talk` carries bytes to and fro until nobody has anything to say."""

    def __init__(self, limits: LinkLimits = LIMITS, *, theirs: LinkLimits | None = None) -> None:
        self.now = 0.0
        self.asker = asking(limits)
        self.server = answering(theirs or limits)
        self.heard: list[Event] = []  # by the server, greeting excepted
        self.talk()

    def talk(self) -> None:
        while self.asker.has_outgoing or self.server.has_outgoing:
            while batch := self.asker.outgoing():
                self.server.receive(batch, now=self.now)
            while batch := self.server.outgoing():
                self.asker.receive(batch, now=self.now)
            self.heard += [event for event in self.server.events() if not isinstance(event, Greeted)]

    def call(self, kind: str = "stream", body: dict[str, Any] | None = None, *, timeout_s: float = 30.0) -> int:
        return self.asker.call(kind, body or {}, timeout_s=timeout_s, now=self.now)

    def later(self, seconds: float) -> None:
        """Time passes on both sides, in steps that a driver would take."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.asker.due, self.server.due)
            self.asker.tick(now=self.now)
            self.server.tick(now=self.now)
            self.talk()

    def taken(self, call_id: int) -> list[Any]:
        """Everything that can be read now, the end as its error or None."""
        replies: list[Any] = []
        while (taken := self.asker.take(call_id)) is not None:
            if isinstance(taken, Ended):
                return [*replies, taken.error]
            replies.append(taken)
        return replies


def frames(data: bytes) -> list[Frame]:
    return list(FrameReader().feed(data))


def everything(side: CallingSide | ServingSide) -> bytes:
    return b"".join(iter(side.outgoing, b""))


def test_a_call_its_replies_and_its_end() -> None:
    pair = Pair()
    call = pair.call("echo", {"n": 1}, timeout_s=30.0)
    pair.talk()
    assert pair.heard == [CallArrived(call, "echo", {"n": 1}, 30.0)]
    assert pair.taken(call) == []
    assert pair.server.reply(call, {"n": 2}) == "go on"
    assert pair.server.reply(call, {"n": 3}) == "go on"
    pair.server.end(call)
    pair.server.finish(call)
    pair.talk()
    assert pair.taken(call) == [{"n": 2}, {"n": 3}, None]
    assert not pair.asker.leave(call, now=0.0)
    assert (pair.asker.in_flight, pair.server.in_flight) == (0, 0)


def test_both_sides_learn_who_the_other_is() -> None:
    asker, server = asking(), answering()
    asker.receive(everything(server), now=0.0)
    server.receive(everything(asker), now=0.0)
    (there,) = asker.events()
    (here,) = server.events()
    assert isinstance(there, Greeted)
    assert there.introduction.greeting == Greeting("server", "id-server")
    assert isinstance(here, Greeted)
    assert here.introduction.greeting == Greeting("asker", "id-asker")


def test_versions_that_meet_agree_on_the_highest_of_both() -> None:
    asker, server = asking(versions=(1, 4)), answering(versions=(2, 9))
    asker.receive(everything(server), now=0.0)
    assert asker.introduction is not None
    assert asker.introduction.version == 4


def test_versions_that_do_not_meet_are_refused_by_both_and_both_ranges_are_named() -> None:
    asker, server = asking(versions=(1, 2)), answering(versions=(3, 5))
    to_server, to_asker = everything(asker), everything(server)
    with pytest.raises(ConversationBroken, match="asker speaks versions 1 to 2 of links, this node 3 to 5") as there:
        server.receive(to_server, now=0.0)
    with pytest.raises(ConversationBroken, match="server speaks versions 3 to 5 of links, this node 1 to 2") as here:
        asker.receive(to_asker, now=0.0)
    assert there.value.reason == here.value.reason == "no_common_version"


def test_what_a_newer_version_adds_is_ignored() -> None:
    asker = asking()
    facts = {**hello(Greeting("newer", "id"), window_bytes=MIB).facts, "colour": "blue"}
    asker.receive(_raw([0, facts, "and more"]), now=0.0)
    call = asker.call("echo", {}, timeout_s=1.0, now=0.0)
    asker.receive(_raw([2, call, 1, b"\x80", "more"]) + _raw([4, call, "done", b"busy", 7]), now=0.0)
    assert asker.take(call) == {}
    assert asker.take(call) == Ended(None)


def told(pair: Pair) -> list[bytes | None]:
    """What the asker has heard of the server's load."""
    return [event.load for event in pair.asker.events() if isinstance(event, LoadTold)]


def test_every_last_word_says_how_busy_its_sender_is_at_that_moment() -> None:
    pair = Pair()
    loads = iter([b"1", b"2", b"3", b"4", b""])
    pair.server = ServingSide(Greeting("server", "id-server"), LIMITS, kinds=KINDS, now=0.0, load=lambda: next(loads))
    pair.asker = asking()
    pair.talk()
    done, failed, refused, cancelled = (pair.call(kind) for kind in ("echo", "echo", "nonsense", "echo"))
    pair.talk()
    assert told(pair) == [b"1"]
    pair.server.end(done)
    pair.server.fail(failed, {}, definite=True)
    pair.talk()
    assert told(pair) == [b"2", b"3"]
    pair.asker.leave(cancelled, now=0.0)
    pair.talk()
    assert told(pair) == [b"4"]
    silent = pair.call("echo")
    pair.talk()
    pair.server.end(silent)
    pair.talk()
    assert told(pair) == []
    assert [len(pair.taken(call)) for call in (done, failed, refused, silent)] == [1, 1, 1, 1]


@pytest.mark.parametrize("load", [bytes(LOAD_BYTES_MAX + 1), "busy", 7, None, {}, [1]], ids=repr)
def test_a_load_that_cannot_be_read_is_known_as_such_and_its_last_word_still_counts(load: object) -> None:
    pair = Pair()
    call = pair.call("echo")
    pair.asker.outgoing()
    pair.asker.receive(_raw([4, call, "done", load]), now=0.0)
    assert told(pair) == [None]
    assert pair.taken(call) == [None]


def test_a_last_word_of_an_older_version_says_nothing_of_a_load() -> None:
    pair = Pair()
    call = pair.call("echo")
    pair.asker.outgoing()
    pair.asker.receive(_raw([4, call, "done"]), now=0.0)
    assert told(pair) == []
    assert pair.taken(call) == [None]


def test_a_kind_without_end_is_refused_in_a_frame_that_fits() -> None:
    pair = Pair()
    pair.server.receive(encode(Open(1, "x" * 65_510, 1000, 1, b"\x80")), now=0.0)
    (refused,) = frames(everything(pair.server))
    assert isinstance(refused, Refused)


def test_a_refusal_for_a_reason_of_a_newer_version_is_still_a_refusal() -> None:
    pair = Pair()
    call = pair.call()
    pair.asker.outgoing()
    pair.asker.receive(encode(Refused(call, "too_hot", "it is summer")), now=0.0)
    (error,) = pair.taken(call)
    assert isinstance(error, CallRefused)
    assert (error.definite, error.reason) == (True, "too_hot")


def test_no_call_before_the_hello() -> None:
    with pytest.raises(MisuseError):
        asking().call("echo", {}, timeout_s=1.0, now=0.0)


def test_a_body_of_the_limit_travels_in_frames_of_the_limit() -> None:
    pair = Pair()
    body = {"text": "x" * (LIMITS.body_bytes_max - 20)}
    call = pair.call("echo", body)
    batches = []
    while batch := pair.asker.outgoing():
        assert len(batch) <= MESSAGE_BYTES_MAX
        batches.append(batch)
    assert all(len(encode(frame)) <= FRAME_BYTES_MAX + 4 for frame in frames(b"".join(batches)))
    assert len(batches) > 80
    for batch in batches:
        pair.server.receive(batch, now=0.0)
    arrived = [event for event in pair.server.events() if isinstance(event, CallArrived)]
    assert [event.body for event in arrived] == [body]
    pair.server.reply(call, body)
    pair.server.end(call)
    pair.talk()
    assert pair.taken(call) == [body, None]


def test_a_body_over_the_limit_is_refused_before_anything_is_sent() -> None:
    pair = Pair()
    with pytest.raises(CallRefused) as caught:
        pair.call("echo", {"text": "x" * LIMITS.body_bytes_max})
    assert (caught.value.reason, caught.value.definite) == ("body_too_large", True)
    assert not pair.asker.has_outgoing


def test_a_body_that_only_the_other_side_finds_too_large_is_refused_by_it() -> None:
    pair = Pair(theirs=LinkLimits(body_bytes_max=MIB))
    call = pair.call("echo", {"text": "x" * 2 * MIB})
    pair.talk()
    (error,) = pair.taken(call)
    assert isinstance(error, CallRefused)
    assert error.reason == "body_too_large"
    assert pair.server.in_flight == 0


def test_large_bodies_together_stay_below_what_a_link_may_hold() -> None:
    limits = LinkLimits(body_bytes_max=MIB, held_bytes_max=MIB + MIB // 2)
    pair = Pair(limits)
    first, second = pair.call("echo", {"text": "x" * 900 * KIB}), pair.call("echo", {"text": "y" * 900 * KIB})
    pair.talk()
    assert [event.call_id for event in pair.heard if isinstance(event, CallArrived)] == [first]
    (error,) = pair.taken(second)
    assert isinstance(error, CallRefused)
    assert error.reason == "too_many_bytes"
    third = pair.call("echo", {"text": "z" * 900 * KIB})
    pair.talk()
    assert [event.call_id for event in pair.heard if isinstance(event, CallArrived)] == [first, third]


def test_large_replies_that_nobody_reads_stay_below_what_a_link_may_hold() -> None:
    limits = LinkLimits(body_bytes_max=MIB, held_bytes_max=MIB + MIB // 2)
    pair = Pair(limits)
    first, second = pair.call(), pair.call()
    pair.talk()
    large = {"text": "x" * 900 * KIB}
    for call in (first, second):
        pair.server.reply(call, large)
        pair.talk()
    (error,) = pair.taken(second)
    assert isinstance(error, CallFailed)
    assert not error.definite
    assert CallWithdrawn(second, "cancelled") in pair.heard
    assert pair.taken(first) == [large]
    third = pair.call()
    pair.talk()
    pair.server.reply(third, large)
    pair.talk()
    assert pair.taken(third) == [large]


def test_frames_of_many_calls_take_turns_on_the_wire() -> None:
    pair = Pair()
    large = pair.call("echo", {"text": "x" * MIB})
    small = pair.call("echo", {"n": 1})
    said = [frame.call_id for frame in frames(everything(pair.asker)) if isinstance(frame, Open | More)]
    assert said[:3] == [large, small, large]


def test_unread_replies_stop_at_the_window_and_hold_only_their_own_handler() -> None:
    pair = Pair()
    slow, quick = pair.call(), pair.call()
    pair.talk()
    said = 0
    while pair.server.reply(slow, {"text": "x" * 1000}) == "go on":
        said += 1
        pair.talk()
    assert LIMITS.window_bytes < said * 1070 < LIMITS.window_bytes + 2 * LIMITS.waiting_bytes_max
    assert pair.server.reply(quick, {"n": 1}) == "go on"
    pair.talk()
    assert pair.taken(quick) == [{"n": 1}]
    assert MayReply(slow) not in pair.heard
    assert pair.taken(slow)
    pair.talk()
    assert MayReply(slow) in pair.heard
    assert pair.server.reply(slow, {"n": 2}) == "go on"


def test_replies_without_content_are_not_free() -> None:
    pair = Pair()
    call = pair.call()
    pair.talk()
    said = 0
    while pair.server.reply(call, {}) == "go on":
        pair.talk()
        said += 1
        assert said < 2 * LIMITS.window_bytes / PIECE_COST_BYTES
    assert len(pair.taken(call)) <= LIMITS.window_bytes // PIECE_COST_BYTES


def test_a_reply_longer_than_the_window_arrives_though_it_is_read_only_whole() -> None:
    pair = Pair()
    call = pair.call()
    pair.talk()
    large = {"text": "x" * 4 * LIMITS.window_bytes}
    pair.server.reply(call, {"n": 1})
    pair.server.reply(call, large)
    pair.server.end(call)
    pair.talk()
    assert pair.taken(call) == [{"n": 1}], "while an earlier reply waits, the window holds for the large one too"
    pair.talk()
    assert pair.taken(call) == [large, None]


def test_an_early_leave_withdraws_the_call_and_late_replies_are_ignored() -> None:
    pair = Pair()
    call = pair.call()
    pair.talk()
    pair.server.reply(call, {"n": 1})
    late = pair.server.outgoing()
    assert pair.asker.leave(call, now=0.0)
    pair.asker.receive(late, now=0.0)
    pair.talk()
    assert pair.heard[-1] == CallWithdrawn(call, "cancelled")
    assert pair.server.reply(call, {"n": 2}) == "stop", "a handler that has not noticed yet talks to nobody"
    assert not pair.server.has_outgoing
    pair.server.finish(call)
    assert (pair.asker.in_flight, pair.server.in_flight) == (0, 0)


def test_late_frames_are_ignored_until_the_other_side_had_time_to_confirm_and_then_end_the_link() -> None:
    pair = Pair()
    call = pair.call()
    pair.asker.outgoing()
    pair.asker.leave(call, now=0.0)
    late = encode(Reply(call, 1, b"\x80"))
    pair.asker.receive(late, now=LIMITS.lingering_s - 1)
    pair.asker.tick(now=LIMITS.lingering_s + 0.1)
    with pytest.raises(ConversationBroken, match="no_such_call"):
        pair.asker.receive(late, now=LIMITS.lingering_s + 0.2)


def test_a_call_that_was_left_before_it_was_sent_is_never_sent() -> None:
    pair = Pair()
    call = pair.call()
    assert pair.asker.leave(call, now=0.0)
    assert not pair.asker.has_outgoing
    following = pair.call()
    pair.talk()
    assert [event.call_id for event in pair.heard if isinstance(event, CallArrived)] == [following]


def test_a_call_that_is_left_while_its_body_travels_never_reaches_a_handler() -> None:
    pair = Pair(LinkLimits(body_bytes_max=MIB, held_bytes_max=MIB))
    call = pair.call("echo", {"text": "x" * 900 * KIB})
    pair.server.receive(pair.asker.outgoing(), now=0.0)
    assert pair.server.in_flight == 1
    pair.asker.leave(call, now=0.0)
    pair.talk()
    assert pair.heard == []
    assert pair.server.in_flight == 0
    again = pair.call("echo", {"text": "x" * 900 * KIB})
    pair.talk()
    assert [event.call_id for event in pair.heard if isinstance(event, CallArrived)] == [again], "the bytes of the first are free"


def test_cancel_that_crosses_the_end_on_its_way_is_harmless() -> None:
    pair = Pair()
    call = pair.call()
    pair.talk()
    pair.server.end(call)
    pair.server.finish(call)
    ended = pair.server.outgoing()
    pair.asker.leave(call, now=0.0)
    pair.server.receive(pair.asker.outgoing(), now=0.0)
    pair.asker.receive(ended, now=0.0)
    pair.talk()
    assert pair.heard[-1] == CallArrived(call, "stream", {}, 30.0)
    assert pair.taken(again := pair.call()) == []
    pair.talk()
    assert pair.heard[-1] == CallArrived(again, "stream", {}, 30.0)


def test_cancel_of_a_call_whose_handler_has_ended_drops_what_its_reader_never_took() -> None:
    pair = Pair()
    call = pair.call()
    pair.talk()
    while pair.server.reply(call, {"text": "x" * 1000}) == "go on":
        pair.talk()
    pair.server.end(call)
    pair.server.finish(call)
    pair.talk()
    assert pair.server.in_flight == 1, "it has not said everything"
    pair.asker.leave(call, now=0.0)
    pair.talk()
    assert pair.server.in_flight == 0


def test_a_deadline_is_carried_as_the_time_that_is_left() -> None:
    asker, server = asking(), answering()
    asker.receive(everything(server), now=0.0)
    asker.call("echo", {}, timeout_s=2.5, now=1000.0)
    server.receive(everything(asker), now=7.0)
    (arrived,) = [event for event in server.events() if isinstance(event, CallArrived)]
    assert arrived.deadline == 9.5


def test_a_new_call_brings_the_next_tick_forward_on_both_sides() -> None:
    pair = Pair()
    pair.call(timeout_s=0.5)
    pair.talk()
    assert (pair.asker.due, pair.server.due) == (0.5, 0.5)


def test_what_was_said_but_has_not_left_is_dropped_by_a_cancel() -> None:
    pair = Pair()
    call = pair.call()
    pair.talk()
    pair.server.reply(call, {"n": 1})
    pair.asker.leave(call, now=0.0)
    pair.server.receive(pair.asker.outgoing(), now=0.0)
    assert frames(everything(pair.server)) == [Done(call, "cancelled")]


def test_a_deadline_ends_the_call_on_both_sides() -> None:
    pair = Pair()
    call = pair.call(timeout_s=1.0)
    pair.talk()
    pair.later(0.9)
    assert pair.taken(call) == []
    pair.later(0.2)
    (error,) = pair.taken(call)
    assert isinstance(error, CallExpired)
    assert not error.definite
    assert [event for event in pair.heard if isinstance(event, CallWithdrawn)] in (
        [CallWithdrawn(call, "expired")],
        [CallWithdrawn(call, "cancelled")],
    )
    pair.server.finish(call)
    assert pair.server.in_flight == 0


def test_the_answering_side_keeps_the_deadline_when_nobody_cancels() -> None:
    pair = Pair()
    call = pair.call(timeout_s=1.0)
    pair.talk()
    pair.server.tick(now=1.0)
    assert pair.server.events() == [CallWithdrawn(call, "expired")]
    pair.talk()
    (error,) = pair.taken(call)
    assert isinstance(error, CallExpired)


def test_replies_that_came_before_the_end_are_read_first() -> None:
    pair = Pair()
    call = pair.call()
    pair.talk()
    pair.server.reply(call, {"n": 1})
    pair.server.fail(call, {"message": "no"}, definite=True)
    pair.talk()
    pair.asker.lost("gone")
    reply, error = pair.taken(call)
    assert reply == {"n": 1}
    assert isinstance(error, CallFailed)
    assert (error.body, error.definite) == ({"message": "no"}, True)


def test_a_lost_link_ends_every_call_and_knows_which_were_never_sent() -> None:
    pair = Pair()
    sent = pair.call()
    pair.talk()
    unsent = pair.call()
    pair.asker.lost("connection reset")
    errors: list[CallError] = [*pair.taken(sent), *pair.taken(unsent)]
    assert [type(error) for error in errors] == [LinkLost, PeerUnreachable]
    assert [error.definite for error in errors] == [False, True]
    assert "server" in str(errors[0])
    assert "connection reset" in str(errors[0])


def test_a_full_link_refuses_and_cancelled_calls_count_until_they_are_confirmed() -> None:
    pair = Pair(LinkLimits(calls_max=2))
    first, _ = pair.call(), pair.call()
    pair.asker.outgoing()
    pair.asker.leave(first, now=0.0)
    with pytest.raises(CallRefused) as caught:
        pair.call()
    assert caught.value.reason == "too_many_calls"
    pair.asker.receive(encode(Done(first, "cancelled")), now=0.0)
    pair.call()


def test_a_handler_that_will_not_stop_still_counts() -> None:
    pair = Pair(theirs=LinkLimits(calls_max=1))
    first = pair.call()
    pair.talk()
    pair.asker.leave(first, now=0.0)
    second = pair.call()
    pair.talk()
    (error,) = pair.taken(second)
    assert isinstance(error, CallRefused)
    pair.server.finish(first)
    third = pair.call()
    pair.talk()
    assert pair.heard[-1] == CallArrived(third, "stream", {}, 30.0)


def test_unknown_kinds_and_a_node_on_its_way_out_are_refused() -> None:
    pair = Pair()
    unknown = pair.call("dance")
    pair.talk()
    pair.server.draining = True
    late = pair.call()
    pair.talk()
    errors = [*pair.taken(unknown), *pair.taken(late)]
    assert [error.reason for error in errors] == ["unknown_kind", "draining"]
    assert pair.heard == []


def test_a_node_on_its_way_out_takes_what_its_calls_under_way_wait_for() -> None:
    pair = Pair()
    pair.server = ServingSide(Greeting("server", "id-server"), LIMITS, kinds=KINDS, now=0.0, finishing=("stream",))
    pair.asker = asking()
    pair.talk()
    pair.server.draining = True
    awaited = pair.call("stream")
    pair.talk()
    assert pair.heard[-1] == CallArrived(awaited, "stream", {}, 30.0)


def test_a_reply_that_cannot_be_sent_is_a_misuse_and_the_call_goes_on() -> None:
    pair = Pair()
    call = pair.call()
    pair.talk()
    for unfit in ({"what": object()}, {"n": 2**64}, {"text": "\ud800"}, {"text": "x" * LIMITS.body_bytes_max}):
        with pytest.raises(MisuseError):
            pair.server.reply(call, unfit)
    with pytest.raises(MisuseError):
        pair.server.fail(call, {"text": "x" * PIECE_BYTES_MAX}, definite=True)
    pair.server.reply(call, {"n": 1})
    pair.server.end(call)
    pair.talk()
    assert pair.taken(call) == [{"n": 1}, None]


def test_pings_keep_a_quiet_link_alive_and_measure_it() -> None:
    pair = Pair()
    pair.later(10 * LIMITS.silence_max_s)
    assert pair.asker.rtt_s == 0.0
    pair.asker.tick(now=pair.now + LIMITS.ping_period_s)
    pair.server.receive(pair.asker.outgoing(), now=pair.now)
    pair.now += LIMITS.ping_period_s + 0.008
    pair.talk()
    assert pair.asker.rtt_s == pytest.approx(0.001)


@pytest.mark.parametrize("side", [asking(), answering()])
def test_silence_ends_a_link(side: CallingSide | ServingSide) -> None:
    side.receive(encode(hello(Greeting("mute", "id"), window_bytes=MIB)), now=0.0)
    while side.due < LIMITS.silence_max_s:
        side.tick(now=side.due)
    with pytest.raises(ConversationBroken, match=r"nothing was heard for 6\.0 s"):
        side.tick(now=side.due)


def test_who_stood_still_itself_blames_nobody() -> None:
    pair = Pair()
    pair.now = 60.0
    pair.server.tick(now=60.0)
    pair.asker.tick(now=60.0)
    pair.talk()
    pair.later(30.0)


@pytest.mark.parametrize("ended", [5.9, 6.0, 6.5, 6.9, 7.5])
def test_a_stall_that_ends_when_silence_would_be_proven_blames_nobody(ended: float) -> None:
    pair = Pair()
    for side in (pair.asker, pair.server):
        while side.due < 1.5:
            side.tick(now=side.due)
        side.tick(now=ended)


def test_a_peer_that_asks_and_never_reads_is_given_up() -> None:
    server = answering()
    server.receive(encode(hello(Greeting("deaf", "id"), window_bytes=MIB)), now=0.0)
    for token in range(LIMITS.control_frames_max - 1):  # the server's own hello waits, too
        server.receive(encode(Ping(token)), now=0.0)
    with pytest.raises(ConversationBroken, match="does_not_read"):
        server.receive(encode(Ping(0)), now=0.0)


FROM_ASKER = [Open(1, "stream", 1000, 1, b"\x80"), Ping(1)]
BREACHES_TO_SERVER = {
    "a call number that was used": ("call_id_reused", [Open(1, "stream", 1000, 1, b"\x80")]),
    "a piece of a body that was complete": ("unexpected_piece", [More(1, b"x")]),
    "a piece for a call that never was": ("no_such_call", [More(9, b"x")]),
    "cancel of a call that never was": ("no_such_call", [Cancel(9)]),
    "more pieces than were announced": ("body_overrun", [Open(2, "stream", 1000, 3, b"ab"), More(2, b"cd")]),
    "more in the first piece than was announced": ("body_overrun", [Open(2, "stream", 1000, 1, b"ab")]),
    "a body that is no map": ("undecodable_body", [Open(2, "stream", 1000, 1, b"\x01")]),
    "a body that is not msgpack": ("undecodable_body", [Open(2, "stream", 1000, 1, b"\xc1")]),
    "what only a server says": ("wrong_direction", [Done(1, "done")]),
    "a second hello": ("wrong_direction", [hello(Greeting("asker", "id"), window_bytes=MIB)]),
}
LARGE = encode_body({"text": "x" * 60_000})
BREACHES_TO_ASKER = {
    "a reply to a call that never was": ("no_such_call", [Reply(9, 1, b"\x80")]),
    "an end after the end": ("no_such_call", [Done(1, "done"), Done(1, "done")]),
    "an end that nobody asked for": ("unexpected_end", [Done(1, "cancelled")]),
    "a reply inside a reply": ("unexpected_reply", [Reply(1, 3, b"ab"), Reply(1, 1, b"\x80")]),
    "an end inside a reply": ("unexpected_end", [Reply(1, 3, b"ab"), Done(1, "done")]),
    "a piece of no reply": ("unexpected_piece", [More(1, b"x")]),
    "more than was granted": ("credit_overdrawn", [Reply(1, len(LARGE), LARGE)] * 5),
    "a failure that is no map": ("undecodable_body", [Failed(1, True, b"\x01")]),
    "an answer to no ping": ("no_such_ping", [Pong(99)]),
    "what only a caller says": ("wrong_direction", [Open(1, "stream", 1000, 1, b"\x80")]),
    "a second hello": ("wrong_direction", [hello(Greeting("server", "id"), window_bytes=MIB)]),
}


@pytest.mark.parametrize("breach", BREACHES_TO_SERVER)
def test_a_caller_that_breaks_the_rules_ends_the_link(breach: str) -> None:
    pair = Pair()
    pair.server.receive(b"".join(encode(frame) for frame in FROM_ASKER), now=0.0)
    reason, said = BREACHES_TO_SERVER[breach]
    with pytest.raises(ConversationBroken) as caught:
        pair.server.receive(b"".join(encode(frame) for frame in said), now=0.0)
    assert caught.value.reason == reason
    with pytest.raises(ConversationBroken):
        pair.server.receive(encode(Ping(1)), now=0.0)


@pytest.mark.parametrize("breach", BREACHES_TO_ASKER)
def test_a_server_that_breaks_the_rules_ends_the_link(breach: str) -> None:
    pair = Pair()
    assert pair.call() == 1
    pair.talk()
    reason, said = BREACHES_TO_ASKER[breach]
    with pytest.raises(ConversationBroken) as caught:
        pair.asker.receive(b"".join(encode(frame) for frame in said), now=0.0)
    assert caught.value.reason == reason
    with pytest.raises(ConversationBroken):
        pair.asker.receive(encode(Pong(1)), now=0.0)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"versions": [1], "name": "x", "node_id": "y", "window_bytes": MIB},
        {"versions": [1, 1], "name": "", "node_id": "y", "window_bytes": MIB},
        {"versions": [1, 1], "name": "x" * 300, "node_id": "y", "window_bytes": MIB},
        {"versions": [1, 1], "name": 7, "node_id": "y", "window_bytes": MIB},
        {"versions": [1, 1], "name": "x", "node_id": "y", "window_bytes": 10},
    ],
)
def test_a_hello_that_makes_no_sense_ends_the_link(facts: dict[str, Any]) -> None:
    with pytest.raises(ConversationBroken, match="bad_hello"):
        asking().receive(encode(Hello(facts)), now=0.0)


def test_a_frame_over_the_limit_ends_the_link_before_it_arrives() -> None:
    with pytest.raises(ConversationBroken, match="frame_too_large"):
        answering().receive((FRAME_BYTES_MAX + 1).to_bytes(4, "big"), now=0.0)


def _raw(fields: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return len(packed).to_bytes(4, "big") + packed


def _script() -> bytes:
    """A caller's side of a conversation with a little of everything, as one stream of bytes."""
    asker = asking()
    asker.receive(everything(answering()), now=0.0)
    said = everything(asker)
    asker.call("echo", {"n": 1}, timeout_s=30.0, now=0.0)
    said += everything(asker)
    asker.call("stream", {"text": "x" * 2 * BATCH_BYTES}, timeout_s=5.0, now=0.0)
    third = asker.call("dance", {}, timeout_s=5.0, now=0.0)
    said += everything(asker)
    asker.leave(third, now=0.0)
    fourth = asker.call("stream", {"text": "y" * 2 * BATCH_BYTES}, timeout_s=5.0, now=0.0)
    said += asker.outgoing()
    asker.leave(fourth, now=0.0)
    return said + everything(asker) + encode(Credit(1, 1000))


SCRIPT = _script()


def _heard(chunks: list[bytes]) -> tuple[list[Event], str, bytes]:
    server = answering()
    events: list[Event] = []
    broken = ""
    try:
        for chunk in chunks:
            server.receive(chunk, now=0.0)
            events += server.events()
    except ConversationBroken as error:
        broken = str(error)
        events += server.events()
    return events, broken, everything(server)


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(cuts=st.lists(st.integers(0, len(SCRIPT)), max_size=40))
def test_however_the_stream_is_cut_the_same_is_heard(cuts: list[int]) -> None:
    whole = _heard([SCRIPT])
    assert [type(event) for event in whole[0]] == [Greeted, CallArrived, CallArrived]
    assert _heard(_cut(SCRIPT, cuts)) == whole


@given(
    at=st.integers(0, len(SCRIPT) - 1),
    garbage=st.binary(min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, len(SCRIPT)), max_size=10),
)
def test_however_a_damaged_stream_is_cut_the_same_is_heard_and_only_our_error_is_raised(at: int, garbage: bytes, cuts: list[int]) -> None:
    damaged = SCRIPT[:at] + garbage + SCRIPT[at + len(garbage) :]
    assert _heard(_cut(damaged, cuts)) == _heard([damaged])


@given(garbage=st.binary(max_size=200))
def test_garbage_raises_only_our_error_on_either_side(garbage: bytes) -> None:
    for side in (asking(), answering()):
        try:
            side.receive(garbage, now=0.0)
        except ConversationBroken:
            continue
        assert side.introduction is None or garbage[4:5] in (b"\x92", b"\x93")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=12) | st.integers(0, 3), inner, max_size=3),
    max_leaves=12,
)


@given(fields=st.lists(st.lists(st.integers(0, 12) | VALUES, max_size=6), max_size=6))
@settings(max_examples=300)
def test_frames_of_any_shape_raise_only_our_error_on_either_side(fields: list[list[Any]]) -> None:
    pair = Pair()
    pair.call()
    pair.talk()
    data = b"".join(_raw(each) for each in fields)
    for side in (pair.asker, pair.server):
        try:
            side.receive(data, now=0.0)
            side.tick(now=1.0)
        except ConversationBroken:
            pass
        side.events()
        everything(side)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_the_order_of_reading_and_writing_every_reply_arrives_once_and_in_order(data: st.DataObject) -> None:
    """Random turns of the two wires, the readers and the handlers: nothing is lost, doubled, swapped, or stuck."""
    limits = LinkLimits(window_bytes=2 * (FRAME_BYTES_MAX + PIECE_COST_BYTES), waiting_bytes_max=1000)
    pair = Pair(limits)
    sizes = data.draw(st.lists(st.lists(st.sampled_from([0, 10, 3000, 70_000, 300_000]), max_size=5), min_size=1, max_size=3))
    calls = [pair.call() for _ in sizes]
    pair.talk()
    unsaid = {call: list(enumerate(wanted)) for call, wanted in zip(calls, sizes, strict=True)}
    held = dict.fromkeys(calls, False)
    read: dict[int, list[Any]] = {call: [] for call in calls}
    ended: set[int] = set()

    def write(call: int) -> None:
        if unsaid[call] and not held[call]:
            number, size = unsaid[call].pop(0)
            held[call] = pair.server.reply(call, {"number": number, "text": "x" * size}) == "wait"
            if not unsaid[call]:
                pair.server.end(call)
                pair.server.finish(call)

    def carry(source: CallingSide | ServingSide, target: CallingSide | ServingSide) -> None:
        if batch := source.outgoing():
            target.receive(batch, now=0.0)
        for event in (*source.events(), *target.events()):
            if isinstance(event, MayReply):
                held[event.call_id] = False

    def take(call: int) -> None:
        if call in ended:
            return
        taken = pair.asker.take(call)
        if isinstance(taken, Ended):
            assert taken.error is None
            ended.add(call)
        elif taken is not None:
            read[call].append((taken["number"], len(taken["text"])))

    for call in calls:
        if not unsaid[call]:
            pair.server.end(call)
            pair.server.finish(call)
    turns = data.draw(st.lists(st.integers(0, 3), max_size=60))
    for step, turn in enumerate([*turns, *([0, 1, 2, 3] * 200)]):
        call = calls[step // 4 % len(calls)]
        match turn:
            case 0:
                write(call)
            case 1:
                carry(pair.server, pair.asker)
            case 2:
                take(call)
            case _:
                carry(pair.asker, pair.server)
    assert read == {call: list(enumerate(wanted)) for call, wanted in zip(calls, sizes, strict=True)}
    assert ended == set(calls)
    assert pair.server.in_flight == 0


def test_a_body_survives_the_wire_as_it_was() -> None:
    pair = Pair()
    body = {"none": None, "yes": True, "n": -(2**63), "f": 0.1, "text": "é", "raw": b"\x00", "list": [1, [2, {"three": 3}]]}
    pair.call("echo", body)
    pair.talk()
    (arrived,) = pair.heard
    assert isinstance(arrived, CallArrived)
    assert arrived.body == body
    assert encode_body(arrived.body) == encode_body(body)


@pytest.mark.parametrize("unfit", [{"window_bytes": 64 * KIB}, {"held_bytes_max": MIB}, {"silence_max_s": 4.5}])
def test_limits_that_cannot_work_are_refused(unfit: dict[str, Any]) -> None:
    with pytest.raises(MisuseError):
        LinkLimits(**unfit)
