"""A user's module that is a worker of its own: `faust -A joined worker`."""

from easyremote import app
from easyremote.windows import EventTime

TYPES = {"number": int, "amount": float}

orders = app.stream("orders", timestamp="at", types=TYPES, partitioned_by=("number",)).key_by("number")
payments = app.stream("payments", timestamp="at", types=TYPES, partitioned_by=("number",)).key_by("number")
orders.join(payments, within="5s", how="left", event_time=EventTime("1s", "30s", "partition")).to("paid")
