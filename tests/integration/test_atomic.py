"""Records that come all or none, on real Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from easyremote.errors import TopicError
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.atomic import AtomicWriter
from easyremote.topics.catalog import REQUESTS, declarations
from easyremote.topics.deliveries import Output

pytestmark = pytest.mark.broker

_TOLD_S = 20.0


def test_a_writer_that_is_overtaken_while_it_hands_its_records_over_is_told_that_nothing_was_written(
    settings: Settings,
) -> None:
    TopicAdmin(settings).ensure(declarations())
    topic = settings.namespace + REQUESTS

    def overtaken() -> Iterator[Output]:
        yield Output(topic, b"k", b"1", partition=0)
        with AtomicWriter(settings, "overtaken"):
            pass
        # The broker is asked at a partition's first record; its refusal comes while others are handed over.
        ends = time.monotonic() + _TOLD_S
        while time.monotonic() < ends:
            yield Output(topic, b"k", b"2", partition=1)

    with AtomicWriter(settings, "overtaken") as writer, pytest.raises(TopicError, match="another writer") as told:
        writer.write(overtaken())
    assert "nothing was written" in str(told.value)
