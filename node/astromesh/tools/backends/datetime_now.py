"""What time it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from astromesh.dialogue import ToolSchema
from astromesh.tools.port import ToolFailed


class DatetimeNow:
    schema = ToolSchema(
        name="datetime_now",
        description="The current date and time, as ISO 8601.",
        parameters={
            "type": "object",
            "properties": {"timezone": {"type": "string", "description": "IANA name such as Europe/Berlin; UTC without it"}},
            "additionalProperties": False,
        },
    )

    async def call(self, arguments: Mapping[str, Any]) -> str:
        name = arguments.get("timezone") or "UTC"
        if name == "UTC":
            return datetime.now(UTC).isoformat(timespec="seconds")
        try:
            zone = ZoneInfo(str(name))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ToolFailed(f"{name!r} is no time zone; use an IANA name such as Europe/Berlin") from None
        return datetime.now(zone).isoformat(timespec="seconds")
