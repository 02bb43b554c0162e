"""What exactly the owner of an entry signs, and whether it did.

The statement is a domain, so that nothing else which this key signs can pass for an entry, and a hash of the cluster and of every field,
each behind its length, so that no two entries make the same statement.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from maia.identity import Signer, is_signed
from maia.wire.offers import Entry

DOMAIN: Final = b"maia catalogue entry 1\0"


def statement(entry: Entry, *, cluster_id: str) -> bytes:
    fields = (
        cluster_id.encode(),
        entry.node.encode(),
        b"%d" % entry.generation,
        entry.key.encode(),
        b"%d" % entry.version,
        b"%d" % entry.flags,
        entry.value,
    )
    return DOMAIN + sha256(b"".join(b"%d:%b" % (len(field), field) for field in fields)).digest()


def signed(entry: Entry, *, signer: Signer, cluster_id: str) -> Entry:
    """The same entry under the key of `signer`."""
    return entry._replace(signer=signer.public_key, signature=signer.sign(statement(entry, cluster_id=cluster_id)))


def is_genuine(entry: Entry, *, cluster_id: str) -> bool:
    """Whether the key that came with an entry signed it for this cluster. Whose key it is, is another question."""
    return is_signed(statement(entry, cluster_id=cluster_id), entry.signer, entry.signature)
