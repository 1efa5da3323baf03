"""A user's pipelines, as a worker of a test runs them."""

from easyremote import stream
from easyremote.windows import Count, Hopping, Mean, Median, Sum, Tumbling
from easyremote.windows.detectors import ZScore

per_device = (
    stream("readings")
    .filter(lambda record: record["metric"] == "flow")
    .key_by("device_id")
    .window(Tumbling("10s"))
    .aggregate(count=Count(), total=Sum("value"), median=Median("value"))
    .to("flows")
)

orders = (
    stream("orders", timestamp="at", types={"shop": str, "amount": float}, partitioned_by=("shop",))
    .key_by("shop", "kind")
    .window(Hopping("10s", "5s"), lateness="1s")
    .aggregate(mean=Mean("amount"))
    .to("takings")
)

warnings = (
    stream("readings")
    .filter(lambda record: record["metric"] == "watched")
    .key_by("device_id", "metric")
    .detect(ZScore(threshold=5))
    .to("warnings")
)
