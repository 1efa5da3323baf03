import json
import math

import pytest
from easyremote.edge import EdgeDevice, SimulatedSensors
from easyremote.errors import EdgeError
from hypothesis import given
from hypothesis import strategies as st

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50)


@pytest.fixture
def device() -> EdgeDevice:
    return EdgeDevice("edge_001", "Beijing")


def test_readings_are_summarised_by_the_contracts_names(device: EdgeDevice) -> None:
    result = device.process_sensor_data([20.0, 22.0, 24.0])
    assert set(result) == {
        "device_id", "location", "timestamp", "raw_readings", "processed_readings", "anomaly_detected",
    }  # fmt: skip
    assert result["processed_readings"] == {"average": 22.0, "max": 24.0, "min": 20.0, "variance": pytest.approx(8 / 3)}
    assert result["anomaly_detected"] is False
    assert device.process_sensor_data([1.0] * 9 + [100.0])["anomaly_detected"] is True
    assert device.process_sensor_data([1e9])["anomaly_detected"] is False
    metrics = device.get_device_metrics()
    assert metrics["cache_stats"]["cached_items"] == 3
    assert set(metrics["system_metrics"]) == {
        "cpu_percent", "memory_percent", "disk_usage", "network_io", "boot_time",
    }  # fmt: skip
    json.dumps([result, metrics], allow_nan=False)


def test_the_cache_is_bounded(device: EdgeDevice) -> None:
    for number in range(1_200):
        device.process_sensor_data([float(number)])
    stats = device.get_device_metrics()["cache_stats"]
    assert stats["cached_items"] == 1_000
    assert 0 < stats["cache_size_mb"] < 1


@pytest.mark.parametrize(
    ("readings", "named"), [([], "empty"), ([1.0, math.nan], r"\[1\]"), (["5"], "'5'"), ([True], "True")]
)
def test_what_is_no_reading_is_named(device: EdgeDevice, readings: list[float], named: str) -> None:
    with pytest.raises(EdgeError, match=named):
        device.process_sensor_data(readings)


@given(NUMBERS)
def test_every_analysis_of_any_points_is_finite_and_its_confidence_is_a_share(points: list[float]) -> None:
    device = EdgeDevice("d", "here")
    for kind in ("trend", "correlation", "prediction"):
        result = device.edge_analytics(points, kind)
        json.dumps(result, allow_nan=False)
        assert 0 <= result.get("confidence", 0) <= 1


def test_analyses_have_the_contracts_names_and_bounds(device: EdgeDevice) -> None:
    analyse = device.edge_analytics
    assert analyse([3, 2, 1], "trend") == {"trend": "decreasing", "slope": -1.0, "confidence": 1.0}
    assert analyse([5, 5, 5], "trend")["trend"] == "stable"
    assert analyse([5], "trend")["trend"] == "insufficient_data"
    assert analyse([1, 2, 3], "correlation") == {"time_correlation": 1.0, "interpretation": "strong"}
    assert analyse([4, 4, 4], "correlation") == {"time_correlation": 0.0, "interpretation": "very_weak"}
    assert analyse([1, 2], "correlation") == {"correlation": "insufficient_data"}
    assert analyse([1, 2, 3, 4], "prediction") == {
        "predicted_value": pytest.approx(5.0), "confidence": 1.0, "method": "moving_average_with_trend",
    }  # fmt: skip
    assert analyse([1, 2], "prediction") == {"prediction": "insufficient_data"}
    with pytest.raises(ValueError, match="guess"):
        analyse([1, 2, 3], "guess")


def test_simulated_sensors_repeat_with_their_seed() -> None:
    first, second = SimulatedSensors(seed=5), SimulatedSensors(seed=5)
    assert [first.read(time_ms) for time_ms in range(5)] == [second.read(time_ms) for time_ms in range(5)]
