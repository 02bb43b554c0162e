"""The curves of `gossip_scale`, as SVG files that are equal for equal figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from tests.bench.gossip_scale import (
    CAP_KBIT,
    DETECTION_P50_S,
    DETECTION_P99_S,
    DETECTION_SIZE,
    IDLE_KBIT,
    KNOWN_P99_S,
    KNOWN_SIZE,
    PROFILE_NAMES,
    Results,
    capped_kbit,
    changed,
    crashed,
    datagrams_kbit,
    kbit,
    percentile,
    sent,
    together,
)

COLOURS = {"lan-fast": "#0b6e99", "lan": "#c2571a"}
# The reader's own font for the words, ids that do not depend on the moment: small files, and no change where no figure changed.
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "gossip", "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False}


def draw(results: Results, folder: Path) -> None:
    """`gossip-crash.svg`, `gossip-change.svg` and `gossip-bytes.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = sorted({trial.nodes: None for trial, _ in results})
    with mpl.rc_context(STYLE):
        _crash(results, sizes, folder / "gossip-crash.svg")
        _change(results, sizes, folder / "gossip-change.svg")
        _bytes(results, sizes, folder / "gossip-bytes.svg")


def _axes(sizes: Sequence[int], title: str, what: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="nodes", ylabel=what, xscale="log", yscale="log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.25)
    return figure, axes


def _save(figure: Figure, axes: Any, path: Path, *, ticks: Sequence[float]) -> None:
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def _quantiles(axes: Any, sizes: Sequence[int], samples: dict[int, list[float]], profile: str) -> None:
    known = [size for size in sizes if samples.get(size)]
    for share, style in ((0.5, "-"), (0.99, "--")):
        points = [percentile(samples[size], share) for size in known]
        axes.plot(known, points, style, marker="o", markersize=3, color=COLOURS[profile], label=f"{profile}, p{share * 100:.0f}")


def _crash(results: Results, sizes: Sequence[int], path: Path) -> None:
    figure, axes = _axes(sizes, "From a crash to the last survivor's verdict, 2 % loss", "seconds")
    for profile in PROFILE_NAMES:
        samples = {size: together(crashed(results, profile, size), lambda reading: reading.last_s) for size in sizes}
        _quantiles(axes, sizes, samples, profile)
    axes.plot([DETECTION_SIZE] * 2, [DETECTION_P50_S, DETECTION_P99_S], "v", color="#555555", label="goals: p50, p99")
    _save(figure, axes, path, ticks=(1, 2, 5, 10, 20))


def _change(results: Results, sizes: Sequence[int], path: Path) -> None:
    figure, axes = _axes(sizes, "From a change of an offer to the last node that knows it, 2 % loss", "seconds")
    for profile in PROFILE_NAMES:
        samples = {size: together(changed(results, profile, size), lambda reading: reading.last_s) for size in sizes}
        _quantiles(axes, sizes, samples, profile)
    axes.plot([KNOWN_SIZE], [KNOWN_P99_S], "v", color="#555555", label="goal: p99")
    _save(figure, axes, path, ticks=(0.001, 0.01, 0.1, 1, 10))


def _bytes(results: Results, sizes: Sequence[int], path: Path) -> None:
    figure, axes = _axes(sizes, "What a node sends, with headers", "kbit/s")
    for profile in PROFILE_NAMES:
        idle = {size: reading for size in sizes if (reading := sent(results, profile, size, busy=False)) is not None}
        whole = [datagrams_kbit(reading) + kbit(reading.stream_bytes_out) for reading in idle.values()]
        axes.plot(list(idle), whole, "-o", markersize=3, color=COLOURS[profile], label=f"{profile}, idle, exchanges included")
        busy = {size: reading for size in sizes if (reading := sent(results, profile, size, busy=True)) is not None}
        changing = [capped_kbit(reading) for reading in busy.values()]
        axes.plot(list(busy), changing, ":s", markersize=3, color=COLOURS[profile], label=f"{profile}, 5 / 20 / 40 changes/s, without acks")
    axes.plot(list(IDLE_KBIT), list(IDLE_KBIT.values()), "v", color="#555555", label="goal, idle")
    axes.plot(list(CAP_KBIT), list(CAP_KBIT.values()), "^", color="#999999", label="cap")
    _save(figure, axes, path, ticks=(1, 2, 5, 10, 20, 50, 100, 200, 500))
