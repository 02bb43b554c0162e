"""From what processes said to verdicts: who is counted, what is a false death, and which goal looks at what."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.bench.arrivals import Arrival, Change, change_of
from tests.bench.arrivals import verdicts as arrival_verdicts
from tests.bench.cluster import Told as Word
from tests.bench.cluster import What, read_ours, read_serf
from tests.bench.departures import Asked, Departure, departure_of
from tests.bench.departures import verdicts as departure_verdicts
from tests.bench.detection import Death, Found, Watch, death_of, table
from tests.bench.detection import verdicts as detection_verdicts
from tests.bench.gossip_cost import Window
from tests.bench.gossip_cost import verdicts as cost_verdicts
from tests.bench.mesh_process import line_of
from tests.bench.network import counted
from tests.bench.ratios import Verdict, percentile

from maia.view import MemberDied, MemberJoined, MemberReturned, MemberSuspected, MeshEvent, OffersChanged


def judged(found: Sequence[Verdict]) -> list[tuple[str, float | None, bool]]:
    return [(each.goal.name, round(each.ratio.median, 6) if each.ratio else None, each.met) for each in found]


@pytest.mark.parametrize(
    ("event", "news"),
    [
        (MemberJoined("b"), ("joined", "b")),
        (MemberReturned("b", 2), ("joined", "b")),
        (MemberDied("b", "c"), ("died", "b")),
        (MemberSuspected("b", "me"), ("doubted", "b")),
        (OffersChanged("b"), ("offers", "b")),
    ],
)
def test_what_a_process_of_ours_writes_is_read_back(event: MeshEvent, news: tuple[What, str]) -> None:
    line = line_of(event, me="me")
    assert line is not None
    assert read_ours(line) == news


def test_only_doubts_of_its_own_are_written_since_every_member_hears_of_the_others() -> None:
    assert line_of(MemberSuspected("b", "c"), me="me") is None
    assert read_ours("up") is None


@pytest.mark.parametrize(
    ("line", "news"),
    [
        ("    2026/11/21 15:03:36 [INFO] serf: EventMemberJoin: s3 127.0.1.3", ("joined", "s3")),
        ("    2026/11/21 15:03:44 [INFO] serf: EventMemberFailed: s2 127.0.1.2", ("died", "s2")),
        ("    2026/11/21 15:03:40 [INFO] memberlist: Suspect s2 has failed, no acks received", ("doubted", "s2")),
        ("    2026/11/21 15:03:44 [INFO] memberlist: Marking s2 as failed, suspect timeout reached (0 peer confirmations)", None),
        ("    2026/11/21 15:03:45 [INFO] agent: Received event: member-failed", None),
    ],
)
def test_the_log_of_a_stock_agent_is_read_at_the_verdict_itself(line: str, news: tuple[What, str] | None) -> None:
    assert read_serf(line) == news


def test_a_death_is_known_with_each_survivors_first_word_and_others_given_up_meanwhile_are_false() -> None:
    told = [
        Word(10.5, "a", "doubted", "v"),
        Word(10.75, "b", "died", "c"),
        Word(11.5, "b", "died", "v"),
        Word(11.25, "a", "died", "v"),
        Word(12.0, "a", "died", "v"),
        Word(12.0, "a", "died", "b"),
    ]
    assert death_of("v", 10.0, told, ["a", "b", "c"]) == Death([1.25, 1.5], unnoticed=1, false_deaths=2)


def watch(*, false_deaths: int = 0, kbit_per_s: float = 7.0) -> Watch:
    return Watch(seconds=20.0, meshes=2, false_deaths=false_deaths, doubts=3, kbit_per_s=kbit_per_s, cpu_percent=0.4)


def sides(*, fast_s: float, stock_s: float, unnoticed: int = 0, fast_false: int = 0, lan_false: int = 0) -> dict[str, Found]:
    quiet = watch()
    return {
        "lan-fast": Found(
            [Death([0.5, fast_s], unnoticed, 0)], {"quiet": quiet, "loss": watch(false_deaths=fast_false), "loss, one starved": watch()}
        ),
        "lan": Found([Death([5.0, 6.0], 0, 0)], {"quiet": quiet, "loss": watch(false_deaths=lan_false), "loss, one starved": watch()}),
        "serf": Found([Death([5.0, stock_s], 0, 0)], {"quiet": quiet}),
    }


def test_detection_is_held_to_its_time_to_serf_to_the_patience_of_lan_and_to_its_bytes() -> None:
    found = detection_verdicts({10: sides(fast_s=1.5, stock_s=6.0)})
    assert judged(found) == [("G8", 1.5, True), ("G8", 4.0, True), ("G8", 0.0, True), ("G8", 0.0, True), ("G9", 7.0, True)]
    found = detection_verdicts({10: sides(fast_s=2.0, stock_s=6.0, fast_false=2, lan_false=1)})
    assert judged(found) == [("G8", 2.0, False), ("G8", 3.0, False), ("G8", 1.0, False), ("G8", 0.0, True), ("G9", 7.0, True)]


def test_a_death_that_somebody_never_noticed_is_no_time_but_a_failure() -> None:
    found = {3: sides(fast_s=1.0, stock_s=6.0, unnoticed=1)}
    assert judged(detection_verdicts(found))[:2] == [("G8", None, False), ("G8", None, False)]
    assert "none" in table(found)


def test_a_departure_lasts_until_the_last_request_that_was_tried_twice_or_failed() -> None:
    asked = [Asked(9.0, 9.5, 200, 1), Asked(9.75, 10.0, 503, 0), Asked(10.125, 10.25, 200, 2), Asked(10.25, 10.5, 200, 1)]
    found = departure_of("b", 10.0, asked, silent=False)
    assert found == Departure("b", silent=False, last_s=0.25, last_sent_s=0.125, retried=1, failed=1, answered=2, before=0)
    assert departure_of("b", 10.0, [Asked(9.0, 9.5, 200, 2)], silent=False).before == 1
    assert departure_of("b", 10.0, [Asked(9.0, 10.5, 503, 0)], silent=True).last_sent_s == 0.0
    assert departure_of("b", 10.0, [], silent=False).last_s == 0.0


def departure(last_s: float, *, silent: bool = False, before: int = 0) -> Departure:
    return Departure("b", silent=silent, last_s=last_s, last_sent_s=last_s, retried=1, failed=1, answered=9, before=before)


def test_one_late_departure_in_twenty_misses_the_p99_and_not_the_median_and_trouble_before_a_kill_proves_nothing() -> None:
    silent = departure(3.0, silent=True)
    assert judged(departure_verdicts([departure(0.25)] * 19 + [departure(2.0), silent])) == [("G7", 0.25, True), ("G7", 2.0, False)]
    assert [each.met for each in departure_verdicts([departure(0.25, before=1)])] == [False, False]


def test_a_change_is_known_with_each_members_first_word_about_its_owner() -> None:
    told = [Word(5.5, "b", "offers", "a"), Word(5.75, "b", "offers", "a"), Word(5.25, "c", "offers", "b"), Word(5.25, "c", "died", "a")]
    assert change_of("a", 5.0, told, ["b", "c"]) == Change([0.5], unknown=1)


def test_arrivals_are_held_to_the_slowest_word_the_median_join_and_the_median_start() -> None:
    changes = [Change([0.01] * 9, 0)] * 20
    assert judged(arrival_verdicts(changes, [Arrival(0.75, 1.0, 0.5)])) == [("G11", 0.01, True), ("G12", 0.5, True), ("G12", 0.75, True)]
    assert judged(arrival_verdicts([*changes, Change([0.01, *[0.75] * 8], 0)], [Arrival(1.25, 2.0, None)])) == [
        ("G11", 0.75, False),
        ("G12", None, False),
        ("G12", 1.25, False),
    ]
    assert not arrival_verdicts([*changes, Change([0.01] * 8, 1)], [])[0].met
    assert not arrival_verdicts(changes, [Arrival(0.75, 1.0, 0.5), Arrival(0.75, 1.0, None)])[1].met


def test_the_cost_of_gossip_is_judged_at_rest_and_not_where_the_machine_was_too_small_for_its_peers() -> None:
    def windows(cpu_percent: float, *, suspicions: int = 0) -> list[Window]:
        return [Window(cpu_percent, 10.0, 10.0, suspicions)]

    found = {"quiet": windows(0.5), "quiet, sealed": windows(1.5), "changing, sealed": windows(3.0)}
    assert judged(cost_verdicts(found)) == [("G10", 0.5, True), ("G10", 1.5, False)]
    assert judged(cost_verdicts({"quiet": windows(0.5, suspicions=1)})) == [("G10", 0.5, False)]


def test_a_percentile_is_one_of_the_numbers() -> None:
    numbers = [float(number) for number in range(100, 0, -1)]
    assert [percentile(numbers, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([7.0], 0.99) == 7.0


def test_bytes_are_read_from_the_rules_that_count_them() -> None:
    match = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "127.0.1.1"}}
    listing = {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "inet", "name": "sent"}},
            {"rule": {"table": "sent", "expr": [match, {"counter": {"packets": 2, "bytes": 300}}]}},
            {"rule": {"table": "loss", "expr": [{"match": {"right": 2}}, {"drop": None}]}},
        ]
    }
    assert counted(listing) == {"127.0.1.1": 300}
