import json

import pytest
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from workers import running, tail

pytestmark = pytest.mark.broker


def test_a_device_sends_each_metric_at_its_interval(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    device = {"EASYREMOTE_DEVICE_ID": "edge_001", "EASYREMOTE_SENSOR_INTERVAL_S": "0.1"}
    with running(settings, "edge", **device), tail(settings, "readings") as readings:
        messages = readings.wait_for(lambda messages: len(messages) >= 6)
    values = [json.loads(message.value() or b"") for message in messages]
    assert {value["metric"] for value in values} == {"temperature", "humidity", "pressure"}
    assert {(message.key(), value["device_id"]) for message, value in zip(messages, values, strict=True)} == {
        (b"edge_001", "edge_001")
    }
    times = sorted({value["timestamp_ms"] for value in values})
    assert times[1] - times[0] >= 100
