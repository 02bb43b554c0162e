"""What was refused is told to the log, once a minute for each reason, and every reason has its meaning."""

from __future__ import annotations

import re
from pathlib import Path

from astromesh.service.rejections import KINDS, LINE_EVERY_S, Rejections
from maia.config import Address

MAIA = Path(__file__).resolve().parents[3] / "mesh" / "maia"
FOE = Address("10.0.0.66", 666)
# Where a reason is given: the first string of these, or the two of a choice.
GIVEN = re.compile(
    r"""(?:DatagramRejected|\.reject|rejected\.append)\((?:f?"([a-z][a-z-]+)"(?: if [^"\n]*? else "([a-z-]+)")?|"([a-z-]+)" if)"""
)


def reasons() -> set[str]:
    found: set[str] = set()
    for path in sorted(MAIA.rglob("*.py")):
        for groups in GIVEN.findall(path.read_text()):
            found.update(filter(None, groups))
    return found


def test_every_reason_of_the_mesh_has_its_meaning_in_one_kind() -> None:
    explained = [reason for kind in KINDS for reason in kind.reasons]
    assert sorted(explained) == sorted(set(explained))
    assert {"undecryptable", "sealed", "too-many-streams", "bad-versions"} < reasons()
    assert reasons() <= set(explained)


def test_the_first_is_told_at_once_and_a_flood_of_it_once_a_minute() -> None:
    rejections = Rejections()
    (line,) = rejections.look({"undecryptable": 1}, {"undecryptable": FOE}, now=100.0)
    assert line.text.startswith("the mesh refused 1 as undecryptable, the last from 10.0.0.66:666: ")
    assert "keyring" in line.text
    assert not line.harmless
    lines = [
        line
        for second in range(1, 601)
        for line in rejections.look({"undecryptable": 1 + 1000 * second}, {"undecryptable": FOE}, now=100.0 + second)
    ]
    assert len(lines) == 600 / LINE_EVERY_S
    assert all(line.text.startswith("the mesh refused 60000 as undecryptable in the last 60 s") for line in lines)


def test_a_stock_agent_that_is_refused_is_told_how_it_becomes_a_member() -> None:
    (line,) = Rejections().look({"other-cluster": 1}, {}, now=0.0)
    assert "stock serf agent" in line.text
    assert "--serf" in line.text


def test_each_reason_has_its_own_minute_and_what_is_over_is_not_told_again() -> None:
    rejections = Rejections()
    assert len(rejections.look({"too-long": 3, "sealed": 1}, {}, now=0.0)) == 2
    assert rejections.look({"too-long": 3, "sealed": 2}, {}, now=59.0) == []
    (line,) = rejections.look({"too-long": 3, "sealed": 2}, {}, now=60.0)
    assert "1 as sealed" in line.text
    assert rejections.look({"too-long": 3, "sealed": 2}, {}, now=600.0) == []


def test_a_mesh_that_began_anew_counts_from_the_beginning() -> None:
    rejections = Rejections()
    rejections.look({"sealed": 50}, {}, now=0.0)
    assert rejections.look({}, {}, now=61.0) == []
    (line,) = rejections.look({"sealed": 2}, {}, now=122.0)
    assert "refused 2 as sealed" in line.text


def test_what_happens_in_every_mesh_is_no_warning() -> None:
    (line,) = Rejections().look({"stranger": 1}, {}, now=0.0)
    assert line.harmless


def test_a_reason_that_nobody_explained_is_told_all_the_same() -> None:
    (line,) = Rejections().look({"brand-new": 4}, {"brand-new": FOE}, now=0.0)
    assert "4 as brand-new" in line.text


def test_every_reason_stands_in_the_document_by_its_name_or_by_its_beginning() -> None:
    text = (MAIA.parents[1] / "docs" / "security.md").read_text()
    named = set(re.findall(r"`([a-z-]+)`", text))
    begun = tuple(re.findall(r"`([a-z-]+-)…`", text))
    explained = [reason for kind in KINDS for reason in kind.reasons]
    assert [reason for reason in explained if reason not in named and not reason.startswith(begun)] == []
