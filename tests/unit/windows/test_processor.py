"""The statistics functions have exactly the contract's keys, and survive whatever they are given."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from easyremote.errors import WindowError
from easyremote.windows import StreamProcessor
from hypothesis import given
from hypothesis import strategies as st

FINITE = st.floats(-1e9, 1e9)


class _Clock:
    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def processor(clock: _Clock) -> StreamProcessor:
    return StreamProcessor("stream_001", clock)


def test_each_item_of_a_batch_is_described_by_its_type_with_the_keys_of_the_contract(
    processor: StreamProcessor,
) -> None:
    record = {"value": 2.5, "name": "abc", "tags": [1], "ok": True, "timestamp_ms": 1, "nothing": None}
    told = processor.process_stream_data([record, 250, -0.5, "Ab 1 c", "", True, None, [1]])
    assert set(told) == {"processor_id", "batch_size", "results", "processing_time"}
    assert (told["processor_id"], told["batch_size"]) == ("stream_001", 8)
    results = told["results"]
    common = {"original", "processed_time", "processor_id", "type"}
    assert set(results[0]) == common | {"keys", "size", "has_timestamp", "summary"}
    assert results[0]["summary"] == {
        "value_type": "numeric",
        "value_value": 2.5,
        "name_type": "text",
        "name_length": 3,
        "tags_type": "list",
        "ok_type": "bool",
        "timestamp_ms_type": "numeric",
        "timestamp_ms_value": 1,
        "nothing_type": "NoneType",
    }
    assert (results[0]["keys"], results[0]["size"], results[0]["has_timestamp"]) == (list(record), 6, True)
    assert {name: results[1][name] for name in set(results[1]) - common} == {
        "value": 250,
        "is_integer": True,
        "absolute_value": 250,
        "normalized": 1.0,
    }
    assert (results[2]["is_integer"], results[2]["absolute_value"], results[2]["normalized"]) == (False, 0.5, -0.005)
    assert {name: results[3][name] for name in set(results[3]) - common} == {
        "length": 6,
        "word_count": 3,
        "has_numbers": True,
        "uppercase_ratio": 1 / 6,
    }
    assert results[4]["uppercase_ratio"] == 0
    assert processor.process_stream_data([-2.0])["results"][0]["is_integer"] is False, "as it was written"
    assert [one["type"] for one in results] == ["dict", "numeric", "numeric", "text", "text", *["unknown"] * 3]
    assert all(set(one) == common for one in results[5:])
    json.dumps(told, allow_nan=False)


def test_an_item_that_fails_is_an_error_in_its_place(processor: StreamProcessor) -> None:
    items = [1, 10**400, float("nan"), 2]
    results = processor.process_stream_data(items)["results"]
    assert [set(one) == {"error", "original"} for one in results] == [False, True, True, False]
    assert processor.get_stream_stats()["stats"] == {"processed": 2, "errors": 2}


@given(st.lists(FINITE, min_size=1, max_size=50))
def test_windows_have_the_aggregates_of_the_contract(numbers: list[float]) -> None:
    processor = StreamProcessor("p", _Clock())
    processor.process_stream_data([*numbers, {"value": 1.0}, {"value": "x"}, "text"])
    told = processor.window_aggregation("count", len(numbers) + 3)
    every = [*numbers, 1.0]
    assert set(told) == {
        "count", "numeric_count", "window_start", "window_end", "sum", "average", "min", "max", "median", "variance",
        "quantiles", "type_distribution",
    }  # fmt: skip
    assert (told["count"], told["numeric_count"]) == (len(numbers) + 3, len(every))
    assert told["type_distribution"] == {"numeric": len(numbers), "dict": 2, "text": 1}
    assert (told["min"], told["max"], told["median"]) == (min(every), max(every), statistics.median(every))
    assert told["average"] == pytest.approx(statistics.fmean(every), rel=1e-12, abs=1e-12)
    assert told["variance"] == pytest.approx(statistics.pvariance(every), rel=1e-9, abs=1e-12)


def test_a_window_of_time_holds_what_came_in_it_and_five_lengths_are_kept(
    processor: StreamProcessor, clock: _Clock
) -> None:
    assert processor.window_aggregation("time", 60) == {"count": 0, "message": "no_data"}
    for second in range(400):
        clock.now_ms += 1_000
        processor.process_stream_data([second])
    told = processor.window_aggregation("time", 10)
    assert (told["count"], told["min"], told["max"]) == (10, 390, 399)
    assert (told["window_start"], told["window_end"]) == (clock.now_ms - 10_000, clock.now_ms)
    assert processor.window_aggregation("time", 1_000)["count"] == 301
    assert processor.get_stream_stats()["window_stats"] == {
        "kept_items": 301,
        "oldest_ms": clock.now_ms - 300_000,
        "kept_s": 5_000.0,
    }


def test_a_number_that_no_float_holds_is_counted_as_no_number(processor: StreamProcessor) -> None:
    processor.process_stream_data([{"value": 10**400}, {"value": 2}])
    told = processor.window_aggregation("count", 2)
    assert (told["count"], told["numeric_count"], told["sum"]) == (2, 1, 2)


def test_what_is_kept_is_bounded(processor: StreamProcessor) -> None:
    for _ in range(3):
        processor.process_stream_data([0.0] * 50_000)
    stats = processor.get_stream_stats()
    assert set(stats) == {"processor_id", "stats", "queue_sizes", "window_stats"}
    assert stats["queue_sizes"] == {"input": 0, "output": 100_000}
    assert stats["stats"] == {"processed": 150_000, "errors": 0}


def test_no_caller_keeps_items_for_ever_or_without_bound() -> None:
    now_ms = [1_000_000]
    processor = StreamProcessor("p", lambda: now_ms[0])
    with pytest.raises(ValueError, match="86400 s is the longest"):
        processor.window_aggregation("time", 1e20)
    processor.window_aggregation("time", 3_600)
    processor.process_stream_data([1, 2])
    now_ms[0] += 4 * 3_600_000
    assert processor.get_stream_stats()["window_stats"] == {"kept_items": 2, "oldest_ms": 1_000_000, "kept_s": 18_000}
    now_ms[0] += 2 * 3_600_000  # nobody has asked for such a window in five of its lengths
    assert processor.get_stream_stats()["window_stats"] == {"kept_items": 0, "oldest_ms": None, "kept_s": 300}
    processor.process_stream_data([{"x": "x" * 1_000_000}] * 100)
    assert processor.get_stream_stats()["window_stats"]["kept_items"] == 67  # 64 MiB


def test_the_average_of_the_last_ten(processor: StreamProcessor) -> None:
    told = processor.real_time_analytics([1000.0, *range(10)], "average")
    assert told == {"average": 4.5, "count": 10, "window_size": 10, "min": 0, "max": 9}
    told = processor.real_time_analytics([1, "a", 3, None, True], "average")
    assert told == {"average": 2.0, "count": 2, "window_size": 5, "min": 1, "max": 3}
    assert processor.real_time_analytics([], "average") == {"average": 0, "count": 0}
    none = {"average": 0, "count": 0, "message": "no_numeric_data"}
    assert processor.real_time_analytics(["a", False], "average") == none


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ([1, 2], {"trend": "insufficient_data"}),
        ([1, "a", 2, True], {"trend": "insufficient_numeric_data"}),
        ([1, 2, 4], {"trend": "increasing", "confidence": 1.0, "change_points": 2, "average_change": 1.5}),
        ([4, 3, None, 3, 1], {"trend": "decreasing", "confidence": 2 / 3, "change_points": 3, "average_change": -1}),
        ([1, 2, 1], {"trend": "stable", "confidence": 0.0, "change_points": 2, "average_change": 0}),
        ([5, 5, 5], {"trend": "stable", "confidence": 0.0, "change_points": 2, "average_change": 0}),
        ([99, 99, *range(10)], {"trend": "increasing", "confidence": 1, "change_points": 9, "average_change": 1}),
    ],
)
def test_a_trend_goes_by_the_differences_of_the_last_ten(
    processor: StreamProcessor, points: list[Any], told: dict[str, Any]
) -> None:
    assert processor.real_time_analytics(points, "trend") == pytest.approx(told)


def test_an_anomaly_is_more_than_two_deviations_from_the_mean_of_all_points(processor: StreamProcessor) -> None:
    ask = processor.real_time_analytics
    assert ask([1, 2, 3, 4], "anomaly") == {"anomaly": False, "reason": "insufficient_data"}
    assert ask([1, 2, 3, 4, "5"], "anomaly") == {"anomaly": False, "reason": "insufficient_numeric_data"}
    told = ask([9, "x", 11, 9, 11, 9, 11, -10], "anomaly")
    assert told == pytest.approx(
        {
            "anomaly": True,
            "z_score": (50 / 7 + 10) / math.sqrt(706 / 7 - (50 / 7) ** 2),
            "z_score_excluding_latest": 20,
            "latest_value": -10,
            "mean": 50 / 7,
            "std_dev": math.sqrt(706 / 7 - (50 / 7) ** 2),
            "threshold": 2,
        }
    )
    assert ask([9, 11, 9, 11, 13], "anomaly")["anomaly"] is False, "of 5 points none is 2 deviations away"
    constant = ask([5, 5, 5, 5, 5.1], "anomaly")
    assert constant["z_score_excluding_latest"] > 1e6
    json.dumps(constant, allow_nan=False)
    same = ask([5, 5, 5, 5, 5], "anomaly")
    assert (same["anomaly"], same["z_score"], same["z_score_excluding_latest"]) == (False, 0, 0)


def test_the_contracts_inputs_have_the_contracts_results(processor: StreamProcessor) -> None:
    path = Path(__file__).parents[3].parent / "shared" / "results.json"
    if not path.exists():
        pytest.skip("the contract's results.json is not beside this clone; the cases here are of its kind")
    free = {"processed_time", "processor_id", "processing_time", "z_score_excluding_latest"}
    cases = json.loads(path.read_text())["cases"]
    assert cases
    for case in cases:
        told = json.loads(json.dumps(getattr(processor, case["function"])(*case["args"]), allow_nan=False))
        _compare(told, case["result"], free, f"{case['function']}{case['args']}")


def _compare(told: Any, asked: Any, free: set[str], where: str) -> None:
    """Compare what is told with what is asked for, numbers to 1e-9; `free` keys may be there besides."""
    if isinstance(asked, dict):
        assert set(told) - free == set(asked) - free, where
        for name, value in asked.items():
            _compare(told[name], value, free, f"{where}.{name}")
    elif isinstance(asked, list):
        assert len(told) == len(asked), where
        for place, (one, value) in enumerate(zip(told, asked, strict=True)):
            _compare(one, value, free, f"{where}[{place}]")
    elif isinstance(asked, int | float) and not isinstance(asked, bool):
        assert told == pytest.approx(asked, rel=1e-9, abs=1e-9), where
        assert not isinstance(told, bool), where
    else:
        assert told == asked, where
        assert type(told) is type(asked), where


def test_batches_are_joined_by_a_key_many_to_many(processor: StreamProcessor) -> None:
    a: list[Any] = [{"id": 1, "a": 1}, {"id": True}, {"id": [2]}, {"no": 1}, 5, None, "id", ["id"]]
    b: list[Any] = [{"id": 1, "b": 1}, {"id": 1, "b": 2}, {"id": [2]}, {"id": None}, "id"]
    told = processor.stream_join(a, b, "id")
    assert set(told) == {"joined_count", "stream_a_size", "stream_b_size", "join_key", "results"}
    assert (told["joined_count"], told["stream_a_size"], told["stream_b_size"]) == (3, 8, 5)
    assert told["results"][1] == {"stream_a": a[0], "stream_b": b[1], "join_key": "id", "join_value": 1}
    with pytest.raises(WindowError, match="smaller batches"):
        processor.stream_join([{"id": 1}] * 400, [{"id": 1}] * 400, "id")


@pytest.mark.parametrize(
    ("ask", "named"),
    [
        (lambda one: one.window_aggregation("session", 1), "session"),
        (lambda one: one.window_aggregation("time", 0), "positive"),
        (lambda one: one.window_aggregation("count", float("nan")), "positive"),
        (lambda one: one.real_time_analytics([1], "mode"), "mode"),
        (lambda one: one.real_time_analytics([1, 10**400], "average"), r"data_stream\[1\]"),
        (lambda one: one.real_time_analytics([-1.7e308, 1.7e308, 0], "trend"), "scale them down"),
        (lambda one: one.real_time_analytics([1.7e308, 1.7e308, 0, 1, 2], "anomaly"), "scale them down"),
        (lambda one: one.real_time_analytics([float("inf")], "trend"), "finite"),
    ],
)
def test_a_question_that_is_none_is_an_error_that_names_it(processor: StreamProcessor, ask: Any, named: str) -> None:
    with pytest.raises((ValueError, WindowError), match=named):
        ask(processor)
