"""Records of `requests` as the router takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from easyremote.tally import tally
from easyremote.topics.wire import MalformedCall, Origin, headers_of, read_call

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["Arrived", "decode_arrived"]


class Arrived(msgspec.Struct, frozen=True):
    """A record of `requests`: the message, where it stood, and the call it holds or why it holds none."""

    message: Any  # Any: msgspec must not look into the client's class
    origin: Origin
    call: Any
    error: Any = None


def decode_arrived(topic: str, namespace: str) -> Callable[[int, Sequence[Message]], list[Arrived]]:
    """Return the decoder of a source of calls; a record that is no request is told apart, not dropped."""

    def decode(partition: int, messages: Sequence[Message]) -> list[Arrived]:
        arrived = []
        for message in messages:
            origin = Origin(topic, partition, message.offset() or 0, message.timestamp()[1])
            call = read_call(message.value(), headers_of(message), origin, namespace)
            if isinstance(call, MalformedCall):
                arrived.append(Arrived(message, origin, None, call))
                tally.bury(topic, 1, 1)
            else:
                arrived.append(Arrived(message, origin, call))
                if tally.streaks:
                    tally.well(topic)
        return arrived

    return decode
