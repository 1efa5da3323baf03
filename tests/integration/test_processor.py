"""The statistics functions through Kafka, as any function is called."""

from __future__ import annotations

import pytest
from easyremote import Client
from easyremote.errors import CallError
from easyremote.settings import Settings
from workers import running

pytestmark = pytest.mark.broker


def test_the_statistics_functions_are_served_through_requests_by_a_stream_processor(settings: Settings) -> None:
    with running(settings, "streams", "router", EASYREMOTE_PROCESSOR_ID="stream_001"), Client(settings) as client:
        described = client.call("process_stream_data", [1, "two words", {"value": 3}, True])
        assert [one["type"] for one in described["results"]] == ["numeric", "text", "dict", "unknown"]
        assert described["processor_id"] == "stream_001"
        window = client.call("window_aggregation", "count", 10)
        assert (window["count"], window["sum"]) == (4, 4.0)
        trend = client.call("real_time_analytics", data_stream=[1, 2, 3], metric_type="trend")
        assert trend["trend"] == "increasing"
        pairs = client.call("stream_join", [{"id": 1}], [{"id": 1}], "id")
        assert pairs["joined_count"] == 1
        assert client.call("get_stream_stats")["stats"] == {"processed": 4, "errors": 0}
        with pytest.raises(CallError, match="session"):
            client.call("window_aggregation", "session", 10)
