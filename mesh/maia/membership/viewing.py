"""The table as values that others may keep: built anew only for members of whom something changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from maia.membership.members import Member, MemberTable
from maia.view import LoadSeen, MemberView, MeshView

HEARD_REFRESH_S: Final = 1.0  # `heard_s` changes with every ack; nobody needs it fresher than this


class Viewer:
    """Remembers the last view. `offers` gives what a member offers, `load` how busy it says it is, both by name."""

    def __init__(
        self,
        table: MemberTable,
        *,
        offers: Callable[[str], Mapping[str, bytes]],
        load: Callable[[str, float], LoadSeen | None],
    ) -> None:
        self._table = table
        self._offers = offers
        self._load = load
        self._held = MeshView(table.me.name, {}, 0)
        self._revision = 0
        self._built_s = -math.inf

    def view(self, now: float) -> MeshView:
        """The same object as before where nothing changed; `heard_s` and `load` are refreshed once a second, under the same version."""
        table, held = self._table, self._held
        changed = table.revision != self._revision
        if not changed and now < self._built_s + HEARD_REFRESH_S:
            return held
        members: dict[str, MemberView] = {}
        for name in sorted(table.by_name):
            member = table.by_name[name]
            before = held.members.get(name)
            load = self._load(name, now)
            if before is not None and name not in table.touched and before.heard_s == member.heard_s and before.load is load:
                members[name] = before
            else:
                members[name] = self._describe(member, load)
        self._held = MeshView(held.me, MappingProxyType(members), held.version + 1 if changed else held.version)
        self._revision = table.revision
        self._built_s = now
        table.touched.clear()
        return self._held

    def _describe(self, member: Member, load: LoadSeen | None) -> MemberView:
        tags = member.tags
        return MemberView(
            name=member.name,
            title=tags.title if tags else member.name,
            node_id=member.node_id,
            status=member.status,
            incarnation=member.incarnation,
            generation=member.generation,
            gossip=member.address,
            link=tags.link if tags else None,
            api=tags.api if tags else "",
            role=tags.role if tags else "",
            zone=tags.zone if tags else "",
            since_s=member.since_s,
            heard_s=member.heard_s,
            offers=self._offers(member.name),
            history=member.history,
            load=load,
        )
