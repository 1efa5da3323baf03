"""Pipelines whose windows say how many records they hold, so that each record can be accounted for."""

from easyremote import stream
from easyremote.windows import Count, Tumbling

orders = (
    stream("orders", timestamp="at", types={"shop": str, "amount": float}, partitioned_by=("shop",))
    .key_by("shop", "kind")
    .window(Tumbling("10s"), lateness="1s", idle="3s")
    .aggregate(count=Count())
    .to("takings")
)

measured = (
    stream("readings")
    .key_by("device_id", "metric")
    .window(Tumbling("10s"), lateness="1s", idle="3s")
    .aggregate(count=Count())
    .to("measured")
)
