"""What `promtool check metrics` would say of a node's figures, as far as its rules concern us."""

from __future__ import annotations

import re
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

DECLARED = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
NAME = re.compile(r"[a-z][a-z0-9_]*")
# Prometheus's own are seconds, bytes and ratios.
FOREIGN_UNIT = re.compile(
    r"_(milliseconds|microseconds|nanoseconds|minutes|hours|days|ms|us|ns|s|sec|m|h|d|kilobytes|megabytes|b|kb|mb|percent)$"
)
TYPE = re.compile(r"_(counter|gauge|histogram|summary)(_|$)")
OF_OTHERS = re.compile(r"_(total|count|sum|bucket)$")  # endings that only counters and histograms may have
SERIES_MAX = 500  # of one family, on a node with a handful of models: a label that grows without end shows here


def complaints(text: str) -> list[str]:
    """One line for each rule that is broken; raises `ValueError` for what no Prometheus could read."""
    families = list(text_string_to_metric_families(text))
    # From the text itself: the parser joins families of one name, and mends the names of counters.
    declared = DECLARED.findall(text)
    found = [f"{name}: {times} families" for name, times in Counter(name for name, _ in declared).items() if times > 1]
    found += [f"{name}: a counter without _total" for name, kind in declared if kind == "counter" and not name.endswith("_total")]
    for family in families:
        name = family.name
        if not family.documentation:
            found.append(f"{name}: no help")
        if not NAME.fullmatch(name):
            found.append(f"{name}: not in small letters, digits and underscores")
        if unit := FOREIGN_UNIT.search(name):
            found.append(f"{name}: the unit {unit[1]}")
        if TYPE.search(name):
            found.append(f"{name}: the type is in the name")
        if len(family.samples) > SERIES_MAX:
            found.append(f"{name}: {len(family.samples)} series")
        for sample in family.samples:
            if family.type == "gauge" and OF_OTHERS.search(sample.name):
                found.append(f"{sample.name}: a gauge that looks like a part of something else")
            found += [f"{sample.name}: the label {label}" for label in sample.labels if not NAME.fullmatch(label)]
    return found
