"""A request as Spring's ReplyingKafkaTemplate sends it is answered so that it finds its reply."""

from __future__ import annotations

import json
import uuid

import pytest
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.wire import headers_of
from workers import producer_to, running, tail

pytestmark = pytest.mark.broker

PARTITION = 7


@pytest.mark.parametrize("function", ["echo", "nowhere"])
def test_a_reply_to_spring_has_its_correlation_id_its_place_and_no_header_that_spring_takes_for_its_own(
    settings: Settings, function: str
) -> None:
    TopicAdmin(settings).ensure(declarations())
    # The template's own id: the two longs of a random UUID. Bytes above 127, so that no text codec leaves them alone.
    correlation_id = uuid.UUID(int=uuid.uuid4().int | 0xFF << 120 | 0xFE).bytes
    replies = settings.namespace + "replies"
    with running(settings, "router", "inference"):
        producer = producer_to(settings.bootstrap_servers())
        producer.produce(
            settings.namespace + "requests",
            json.dumps({"function": function, "args": ["hi"]}).encode(),
            headers=[
                ("kafka_replyTopic", replies.encode()),
                ("kafka_replyPartition", PARTITION.to_bytes(4, "big")),
                ("kafka_correlationId", correlation_id),
                # What DefaultKafkaHeaderMapper adds to a message with headers of its own.
                ("tenant", b"blue"),
                ("priority", b"3"),
                ("spring_json_header_types", b'{"tenant":"java.lang.String","priority":"java.lang.Integer"}'),
            ],
        )
        assert producer.flush(10) == 0
        with tail(settings, "replies") as answers:
            reply = answers.wait_for(bool)[0]
    assert reply.partition() == PARTITION
    headers = headers_of(reply)
    assert [value for name, value in headers if name == "kafka_correlationId"] == [correlation_id]
    # The template takes a reply whose headers tell of a failed deserializer for a failure, and its mapper reads what is
    # named in `spring_json_header_types` as JSON; everything else is bytes to it.
    assert not [name for name, _ in headers if name.startswith(("kafka_", "spring")) and name != "kafka_correlationId"]
    body = json.loads(reply.value() or b"")
    assert body["id"] == correlation_id.hex()
    assert body["status"] == ("ok" if function == "echo" else "error")
