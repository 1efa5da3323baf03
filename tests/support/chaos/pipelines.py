"""A user's pipelines that the stream workers under test run beside the built-in one."""

from __future__ import annotations

from easyremote import stream
from easyremote.windows import Count, Custom, Hopping, Max, Sum, Tumbling

from chaos.plan import HOP_MS, HOP_SIZE_MS, IDLE_MS, LATENESS_MS, POISON, SUMS_MS


def _add(top: float | None, value: float) -> float:
    if value == POISON:
        raise ValueError("this record is poison")
    return value if top is None else max(top, value)


def _merge(one: float | None, other: float | None) -> float | None:
    return max((value for value in (one, other) if value is not None), default=None)


TOP = Custom("value", create=lambda: None, add=_add, merge=_merge, result=lambda top: top)

sums = (
    stream("readings")
    .filter(lambda record: record["metric"] == "m")
    .key_by("device_id")
    .window(Tumbling(SUMS_MS), lateness=LATENESS_MS, idle=IDLE_MS)
    .aggregate(count=Count(), total=Sum("value"), top=TOP)
    .to("chaos.sums", name="sums")
)

hops = (
    stream("readings")
    .key_by("device_id", "metric")
    .window(Hopping(HOP_SIZE_MS, HOP_MS), lateness=LATENESS_MS, idle=IDLE_MS)
    .aggregate(count=Count(), total=Sum("value"), top=Max("value"))
    .to("chaos.hops", name="hops")
)
