"""What can go wrong in the mesh, and whether it certainly did not happen.

*Definite*: the call was not carried out, so trying elsewhere is safe. *Indefinite*: it may have been.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

RefusalReason = Literal["unknown_kind", "too_many_calls", "too_many_bytes", "body_too_large", "draining"]


class MaiaError(Exception):
    """Root of everything that Maia raises on purpose."""


class MisuseError(MaiaError):
    """The caller broke the contract of a function; nothing was changed."""


class DatagramRejected(MaiaError):
    """Bytes from the network that are not a message. `reason` is a short constant, fit for a metric's label."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class ConversationBroken(MaiaError):
    """The other side of a link said something that it may not, or fell silent: the link ends. `reason` is a short constant."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class JoinFailed(MaiaError):
    """No seed answered. The node goes on as it is and keeps trying."""


class CallError(MaiaError):
    """A call to another node did not end well. `definite`: it certainly was not carried out."""

    definite = False


class PeerUnreachable(CallError):
    """No link to that node could be opened: nothing was sent."""

    definite = True


class CallRefused(CallError):
    """This side or the other said at once that it will not do this: a full link, an unknown kind, a node on its way out."""

    definite = True

    def __init__(self, message: str, *, reason: RefusalReason | str) -> None:
        super().__init__(message)
        self.reason: str = reason  # a newer node may have reasons that this one does not know


class LinkLost(CallError):
    """The link broke while the call was under way: it may have been carried out."""


class CallExpired(CallError):
    """The deadline passed before the call ended: it may have been carried out."""


class CallFailed(CallError):
    """The handler on the other side raised. `body` is what it had to say; `definite` is its own verdict."""

    def __init__(self, body: Mapping[str, Any], *, definite: bool) -> None:
        super().__init__(str(body.get("message", "the call failed")))
        self.body = body
        self.definite = definite
