"""Serf's messages, each to its rule: what is told on, what is answered, what is asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, assert_never

from maia.config import LAN, Address, MeshConfig, Random
from maia.errors import DatagramRejected, MisuseError
from maia.keyring import Keyring
from maia.serf.broadcasts import Broadcasts
from maia.serf.clocks import Heard
from maia.serf.intents import Intents, Outcome
from maia.serf.keys import OPERATIONS, TITLES, Question, Questions, carried_out, ended
from maia.serf.port import Known, Roll
from maia.view import (
    Counters,
    KeyOperation,
    KeyReply,
    MemberDied,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberReturned,
    MeshEvent,
    Status,
)
from maia.wire.codec import MESSAGE_BYTES_MAX, read_map
from maia.wire.messages import User
from maia.wire.outbox import Outbox
from maia.wire.serf import (
    RESPONSE,
    JoinIntent,
    KeyAnswer,
    LeaveIntent,
    Query,
    Relay,
    Response,
    UserEvent,
    UserState,
    decode_key_answer,
    decode_key_request,
    decode_serf,
    decode_state,
    encode_conflict_answer,
    encode_join,
    encode_key_answer,
    encode_key_request,
    encode_leave,
    encode_query,
    encode_relay,
    encode_response,
    encode_state,
)
from maia.wire.tags import META_MAGIC

PING: Final = b"_serf_ping"
CONFLICT: Final = b"_serf_conflict"
LEAVE_PEERS: Final = 32  # who hear at once that we leave; as many as hear the goodbye
QUERY_MULTIPLIER: Final = 16  # of the gossip interval and the logarithm of the members: Serf's
RELAYS: Final = 2  # other ways that an answer to us takes: it is one packet, and one that is lost looks like a member that refused
RELAYS_MAX: Final = 5  # other ways that we take for an answer, whatever is asked; Serf's own limit
NUMBER_MODULUS: Final = 2**32
JUST_HEARD_MAX: Final = 256  # messages that need not be read again; what matters is remembered for longer, by its time
_USER: Final = b"\x08"
# A query must cross members of any profile.
_QUERY_GOSSIP_S: Final = LAN.gossip_interval_s


class Serf:
    """Serf's layer of one node.

    `depart` makes a dead member one that left, `use_keyring` makes other keys this node's own.
    """

    def __init__(
        self,
        config: MeshConfig,
        roll: Roll,
        *,
        outbox: Outbox,
        events: list[MeshEvent],
        counters: Counters,
        random: Random,
        depart: Callable[[str, float], None],
        keyring: Callable[[], Keyring | None],
        use_keyring: Callable[[Keyring], None],
    ) -> None:
        self._config = config
        self._me = config.name
        self._roll = roll
        self._outbox = outbox
        self._events = events
        self._counters = counters
        self._random = random
        self._depart = depart
        self._keyring = keyring
        self._use_keyring = use_keyring
        self.broadcasts = Broadcasts()
        self._intents = Intents(config.name)
        self._user_events = Heard()
        self._queries = Heard()
        self.questions = Questions(config.name)
        self._just_heard: dict[bytes, None] = {}

    # --- what the owner of the node wants ---

    def announce(self) -> None:
        """Say that this node is here to stay."""
        if not self._intents.leaving:
            self._tell(self._me, encode_join(JoinIntent(self._intents.stay(), self._me)))

    def leave(self) -> None:
        """Say that this node leaves, before it does: who hears of its end first takes it for a failure."""
        body = encode_leave(LeaveIntent(self._intents.leave(), self._me))
        self._tell(self._me, body)
        for peer in self._some(LEAVE_PEERS):
            self._outbox.say(peer.address, User(body))

    @property
    def leave_told(self) -> bool:
        return self._me not in self.broadcasts

    def ask_keys(self, operation: KeyOperation, key: bytes | None, now: float) -> int:
        """Ask all members about their keys, this one included, which does last what it asks for: until then all can read it."""
        if (key is None) != (operation == "list"):
            raise MisuseError("to list keys takes no key, everything else takes one")
        number = self._random.randrange(NUMBER_MODULUS)
        names = tuple(sorted((self._me, *(member.name for member in self._roll.living))))
        timeout_s = QUERY_MULTIPLIER * max(_QUERY_GOSSIP_S, self._config.profile.gossip_interval_s)
        timeout_s *= math.ceil(math.log10(self._roll.living_count + 1))
        time = self._queries.clock.tick()
        self.questions.ask(Question(number, time, operation, key or b"", names, now + timeout_s))
        body = encode_query(
            Query(
                time,
                number,
                self._config.gossip,
                TITLES[operation],
                encode_key_request(key),
                relays=RELAYS if len(names) > RELAYS + 1 else 0,
                timeout_s=timeout_s,
                node=self._me,
            )
        )
        self._queries.is_news(time, body)  # told on by others, it comes back
        if len(names) > 1:
            self._tell(body, body)
        self.tick(now)
        return number

    # --- time ---

    def tick(self, now: float) -> None:
        for question in self.questions.complete(now):
            answer = self._carry_out(question.operation, question.key)
            question.replies[self._me] = KeyReply(self._me, answer.ok, answer.message, answer.keys, answer.primary)
            self._events.append(ended(question))

    # --- what membership saw ---

    def follow(self, event: MeshEvent, now: float) -> None:
        match event:
            case MemberJoined(name):
                self._intents.met(name, now)
            case MemberReturned(name):
                self._intents.returned(name)
            case MemberDied(name):
                if self._intents.gone(name):
                    self._depart(name, now)
            case MemberLeft(name):
                self._intents.gone(name)
            case MemberForgotten(name):
                self._intents.forget(name)
            case _:
                pass

    # --- exchanges ---

    def state(self) -> bytes:
        """What an exchange tells of Serf."""
        members = self._roll.by_name
        times = self._intents.times
        return encode_state(
            UserState(
                self._intents.clock.time,
                {name: times[name] for name in members if name in times},
                tuple(name for name, member in members.items() if member.status == "left" and name != self._me),
                self._user_events.clock.time,
                self._queries.clock.time,
            )
        )

    def merge(self, encoded: bytes, now: float) -> None:
        """What the other side of an exchange tells. It is hearsay, and not told on."""
        if not encoded:
            return  # a member without Serf
        try:
            state = decode_state(encoded)
        except DatagramRejected as error:
            self._counters.reject(error.reason)
            return
        # Nothing was told yet at the time that a clock shows.
        for clock, time in (
            (self._intents.clock, state.time),
            (self._user_events.clock, state.event_time),
            (self._queries.clock, state.query_time),
        ):
            if time:
                clock.witness(time - 1)
        left = dict.fromkeys(state.left)
        for node, time in state.status_times.items():
            if time and node not in left:
                self._intents.hear_join(node, time, status=self._status_of(node), now=now)
        for node in left:
            status = self._status_of(node)
            # The other side may have seen the goodbye alone: then its time is still that of the joining, which we know as well.
            time = state.status_times.get(node, 0) + (status == "dead")
            outcome = self._intents.hear_leave(node, time, status=status, now=now)
            self._act(outcome, node, now)

    # --- datagrams ---

    def hear(self, body: bytes, now: float) -> None:
        """One of Serf's user messages, from whomever: whoever can seal may speak."""
        if body in self._just_heard:
            return  # every broadcast comes a dozen times, byte for byte
        if len(self._just_heard) >= JUST_HEARD_MAX:
            del self._just_heard[next(iter(self._just_heard))]
        self._just_heard[body] = None
        try:
            message = decode_serf(body)
        except DatagramRejected as error:
            self._counters.reject(error.reason)
            return
        match message:
            case JoinIntent():
                self._counters.intents += 1
                outcome = self._intents.hear_join(message.node, message.time, status=self._status_of(message.node), now=now)
                self._pass_on(outcome, message.node, body, now)
            case LeaveIntent():
                self._counters.intents += 1
                outcome = self._intents.hear_leave(message.node, message.time, status=self._status_of(message.node), now=now)
                self._pass_on(outcome, message.node, body, now)
            case UserEvent():
                if self._user_events.is_news(message.time, body):
                    self._counters.user_events += 1
                    self._tell(body, body)
            case Query():
                if self._queries.is_news(message.time, body):
                    self._counters.queries += 1
                    if message.told_on:
                        self._tell(body, body)
                    self._consider(message)
            case Response():
                self._hear_response(message, now)
            case Relay():
                self._hand_on(message, now)
            case _:
                assert_never(message)

    def _pass_on(self, outcome: Outcome, node: str, body: bytes, now: float) -> None:
        if outcome in (Outcome.NEWS, Outcome.DEPARTED):
            self._tell(node, body)
        self._act(outcome, node, now)

    def _act(self, outcome: Outcome, node: str, now: float) -> None:
        match outcome:
            case Outcome.DEPARTED:
                self._depart(node, now)
            case Outcome.REFUTED:
                self.announce()
            case Outcome.OLD | Outcome.NEWS:
                pass
            case _:
                assert_never(outcome)

    def _tell(self, subject: object, body: bytes) -> None:
        if len(body) >= MESSAGE_BYTES_MAX:
            self._counters.reject("too-long-to-tell")
        else:
            self.broadcasts.add(subject, _USER + body)

    def _status_of(self, node: str) -> Status | None:
        member = self._roll.get(node)
        return member.status if member is not None else None

    # --- questions ---

    def _consider(self, query: Query) -> None:
        """Answer what Serf asks of its own members; what people ask theirs is for others."""
        operation = OPERATIONS.get(query.title)
        if query.filtered or (operation is None and query.title not in (PING, CONFLICT)):
            return
        asker = self._roll.at(query.asker)
        if asker is None:
            self._counters.reject("stranger")  # an answer would go wherever the question says
            return
        if query.wants_ack:
            self._respond(query, asker, Response(query.time, query.number, self._me, ack=True))
        payload = b""
        try:
            if operation is not None:
                payload = encode_key_answer(self._carry_out(operation, decode_key_request(query.payload)))
            elif query.title == CONFLICT:
                payload = self._whom_we_know(query.payload)
        except DatagramRejected as error:
            self._counters.reject(error.reason)
        if payload:
            self._respond(query, asker, Response(query.time, query.number, self._me, payload=payload))

    def _carry_out(self, operation: KeyOperation, key: bytes) -> KeyAnswer:
        before = self._keyring()
        answer, after = carried_out(before, operation, key)
        if after is not None and after != before:
            self._use_keyring(after)
        return answer

    def _whom_we_know(self, encoded_name: bytes) -> bytes:
        # A stock agent whose name somebody else claims asks who has it, and ends itself without a majority: silence would kill it.
        member = self._roll.get(encoded_name.decode(errors="replace"))
        if member is None or member.name == self._me or not member.living:
            return b""
        meta = member.meta
        tags = read_map(meta[1:]) if meta[:1] == bytes((META_MAGIC,)) else {"role": meta}
        return encode_conflict_answer(member.name, member.address, tags=tags, vsn=member.vsn)

    def _respond(self, query: Query, asker: Known, response: Response) -> None:
        body = encode_response(response)
        self._say(asker.address, body)
        relays = [member for member in self._some(min(query.relays, RELAYS_MAX) + 1) if member is not asker]
        for relay in relays[: query.relays]:
            self._say(relay.address, encode_relay(Relay(asker.address, body), node=asker.name))

    def _say(self, target: Address, body: bytes) -> None:
        if len(body) >= MESSAGE_BYTES_MAX:
            self._counters.reject("too-long-to-tell")
        else:
            self._outbox.say(target, User(body))

    def _hear_response(self, response: Response, now: float) -> None:
        if response.ack or not self.questions.awaited(response.number):
            return  # to a question that is over
        try:
            answer = decode_key_answer(response.payload)
        except DatagramRejected as error:
            self._counters.reject(error.reason)
            return
        if self.questions.reply(response.number, response.time, node=response.node, answer=answer):
            self.tick(now)

    def _hand_on(self, relay: Relay, now: float) -> None:
        """An answer on another way: to a member, or to us."""
        if relay.body[:1] != bytes((RESPONSE,)):
            self._counters.reject("relay-refused")
        elif relay.target == self._config.gossip:
            self.hear(relay.body, now)
        elif self._roll.at(relay.target) is None or not self._config.admits(relay.target):
            self._counters.reject("relay-refused")
        else:
            self._say(relay.target, relay.body)

    def _some(self, count: int) -> list[Known]:
        """At most so many of the living, beginning anywhere."""
        living = self._roll.living
        if len(living) <= count:
            return list(living)
        start = self._random.randrange(len(living))
        return [living[(start + place) % len(living)] for place in range(count)]
