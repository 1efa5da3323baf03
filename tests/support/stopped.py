"""Sends records as fast as it can, each with the ms at which it was handed to the client; a test stops and kills it.

`python stopped.py SERVERS TOPIC DELIVERY_S`.
"""

from __future__ import annotations

import sys
import time

from easyremote.settings import Settings
from easyremote.topics.producer import RecordProducer


def main(servers: str, topic: str, delivery_s: str) -> None:
    """Send until the end."""
    producer = RecordProducer(Settings(kafka=servers, node_id="stopped"), delivery_s=float(delivery_s), resends=False)
    sys.stdout.write("up\n")
    sys.stdout.flush()
    while True:
        for _ in range(100):
            producer.send(topic, b"%d" % (time.time_ns() // 1_000_000), partition=0)
        time.sleep(0.002)


if __name__ == "__main__":
    main(*sys.argv[1:])
