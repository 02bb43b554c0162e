"""Where a session goes on: what an agent remembers of it is on one node.

A fresh session's id names the node that conducts it. An id of the caller's own belongs to one of the nodes that host the agent, to the same
whoever is asked. Agents that keep nothing of a session answer wherever they are.
"""

from __future__ import annotations

import re
from uuid import uuid4

from astromesh.errors import SessionHomeUnreachable
from astromesh.fleet.roster import Roster
from astromesh.routing.rendezvous import chosen
from astromesh.runtime.peers import RETRY_AFTER_S
from maia.view import MemberView

_FRESH = re.compile(r"[0-9a-f]{32}-(?P<home>.+)")


class SessionHomes:
    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def fresh(self) -> str:
        """An id for a session that begins here."""
        view = self._roster.view()
        return uuid4().hex if view is None else f"{uuid4().hex}-{view.me}"

    def elsewhere(self, agent: str, session_id: str, *, keeps: bool | None) -> MemberView | None:
        """The member that goes on with the session; None: it may be conducted wherever the agent is, here first.

        `agent` by its key. `keeps`: whether the agent that is here keeps anything of sessions; None: it is not here. Raises
        `SessionHomeUnreachable`.
        """
        view, index = self._roster.view(), self._roster.index()
        if view is None or index is None:
            return None
        fresh = _FRESH.fullmatch(session_id)
        named = str(fresh["home"]) if fresh is not None else None
        hosts = [(member, offered) for member, offered in self._roster.holding(agent) if offered.status == "deployed"]
        if keeps is None:
            offers = [offered for _, offered in hosts]
            if named is not None and named in index.offers:
                offers += [offered for offered in index.offers[named].agents if offered.key == agent]
            if not any(offered.keeps for offered in offers):
                return None
        elif not keeps:
            return None
        if named is not None:
            return self._named(agent, named, here=keeps is not None)
        names = {member.name: member for member, _ in hosts}
        if keeps is not None:
            return names.get(chosen(f"{agent} {session_id}", [*names, view.me]))
        return names[chosen(f"{agent} {session_id}", names)] if names else None

    def kept_here(self, agent: str, session_id: str) -> None:
        """Raises `SessionHomeUnreachable` where a session is this node's by its name, and its agent is not here any more."""
        view, fresh = self._roster.view(), _FRESH.fullmatch(session_id)
        if view is not None and fresh is not None and fresh["home"] == view.me:
            self._named(agent, view.me, here=False)

    def _named(self, agent: str, home: str, *, here: bool) -> MemberView | None:
        view = self._roster.view()
        assert view is not None, "elsewhere looked"
        if home == view.me:
            if here:
                return None
            raise self.unreachable(home, f"agent {agent} is not on it any more", hint=f"deploy {agent} there again, or begin a new session")
        member = view.members.get(home)
        if member is None or not member.usable:
            why = "this node knows nobody of that name" if member is None else f"it is {member.status}"
            raise self.unreachable(home, why)
        return member

    def unreachable(
        self, home: str, why: str, *, hint: str = "start that node again, or begin a new session by leaving session_id out"
    ) -> SessionHomeUnreachable:
        """`home` by its wire name."""
        return SessionHomeUnreachable(
            f"what was said in this session is kept by {self._roster.label(home)}: {why}", hint=hint, retry_after_s=RETRY_AFTER_S
        )
