"""The clock as a tool."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from astromesh.tools.backends.datetime_now import DatetimeNow
from astromesh.tools.port import ToolFailed


@pytest.mark.parametrize("arguments", [{}, {"timezone": "UTC"}, {"timezone": ""}])
async def test_it_is_utc_unless_told_otherwise(arguments: dict[str, str]) -> None:
    assert datetime.fromisoformat(await DatetimeNow().call(arguments)).utcoffset() == timedelta(0)


async def test_it_tells_the_time_of_a_zone_by_its_name() -> None:
    assert datetime.fromisoformat(await DatetimeNow().call({"timezone": "Asia/Kolkata"})).utcoffset() == timedelta(hours=5, minutes=30)


@pytest.mark.parametrize("zone", ["Middle/Earth", "../../etc/passwd", "Europe", "a\0b", "x" * 5000, "\ud800", 7])
async def test_what_is_no_zone_is_refused_with_an_example(zone: object) -> None:
    with pytest.raises(ToolFailed, match="Europe/Berlin"):
        await DatetimeNow().call({"timezone": zone})
