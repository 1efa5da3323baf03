"""The driver for users' tests runs what a worker runs, without a broker."""

from __future__ import annotations

import pytest
from easyremote.errors import WindowError
from easyremote.pipelines import Pipeline, stream
from easyremote.testing import PipelineDriver
from easyremote.windows import Count, Invalid, Session, Sum, Tumbling
from easyremote.windows.detectors import AlertRule, ZScore


def _takings() -> Pipeline:
    return (
        stream("orders", timestamp="at", types={"amount": float}, partitioned_by=("shop",))
        .key_by("shop")
        .window(Tumbling("10s"), lateness="5s")
        .aggregate(total=Sum("amount"), count=Count())
        .to("takings", register=False)
    )


def _order(at: int, amount: object = 1.0) -> dict[str, object]:
    return {"shop": "a", "amount": amount, "at": at}


def test_records_are_fed_and_results_late_records_and_dead_letters_read() -> None:
    driver = PipelineDriver(_takings())
    driver.feed(_order(1_000), _order(2_000, "much"), b"{", _order(9_000))
    assert driver.results() == []
    driver.feed(_order(15_000), _order(3_000))
    (closed,) = driver.results()
    assert (closed["window_start"], closed["total"], closed["count"]) == (0, 2.0, 2)
    (behind,) = driver.late()
    assert behind["lateness"]["lateness_ms"] == 0
    assert set(driver.dead_letters()) == {b"{", b'{"shop":"a","amount":"much","at":2000}'}
    assert [len(driver.results()), len(driver.late()), len(driver.dead_letters())] == [0, 0, 0]


def test_time_is_advanced_without_a_sleep_and_silence_closes() -> None:
    driver = PipelineDriver(_takings(), now_ms=100_000)
    driver.feed(_order(99_000))
    driver.advance("29s")
    assert driver.results() == []
    driver.advance("1s")
    assert [one["count"] for one in driver.results()] == [1]
    assert driver.now_ms == 130_000


def test_a_pipeline_whose_keys_have_no_open_window_is_restored_after_thirty_seconds_of_silence() -> None:
    driver = PipelineDriver(_takings(), now_ms=100_000)
    driver.feed(_order(99_000))
    driver.advance("30s")
    assert len(driver.results()) == 1
    later = PipelineDriver(_takings(), snapshot=driver.snapshot())
    later.feed(_order(99_500), _order(120_000))
    assert [one["lateness"]["reason"] for one in later.late()] == ["late"]
    later.advance("30s")
    assert [one["window_start"] for one in later.results()] == [120_000]


def test_a_clock_that_is_given_refuses_what_is_ahead_of_it() -> None:
    driver = PipelineDriver(_takings(), now_ms=100_000)
    driver.feed(_order(100_000 + 5 * 60_000 + 1))
    assert [one["lateness"]["reason"] for one in driver.late()] == ["future"]


def test_an_integer_that_no_float_holds_is_counted_as_invalid_and_stops_nothing() -> None:
    keyed = stream("orders", types={"shop": str, "amount": int}, partitioned_by=("shop",), timestamp="at").key_by(
        "shop"
    )
    windows = keyed.window(Tumbling("1s")).aggregate(total=Sum("amount"), invalid=Invalid("amount"))
    driver = PipelineDriver(windows.to("takings", register=False))
    driver.feed(_order(0, 2), _order(1, 10**400), _order(2, -(10**400)), _order(3, 1))
    driver.advance("1h")
    (closed, *_) = driver.results()
    assert (closed["total"], closed["invalid"]) == (3.0, 2)


def test_a_driver_of_a_snapshot_goes_on_as_a_worker_that_takes_over() -> None:
    first = PipelineDriver(_takings())
    first.feed(_order(1_000), _order(2_000))
    left = first.snapshot()
    first.feed(_order(3_000))  # done, but not committed when it was killed
    second = PipelineDriver(_takings(), snapshot=left)
    second.feed(_order(4_000), _order(20_000))
    assert [one["count"] for one in second.results()] == [3]
    assert second.snapshot().offsets == {"orders": 4}


def test_a_snapshot_of_another_pipeline_is_refused() -> None:
    first = PipelineDriver(_takings())
    first.feed(_order(1_000))
    other = (
        stream("orders", timestamp="at", partitioned_by=("shop",))
        .key_by("shop")
        .window(Session("10s"))
        .aggregate(count=Count())
        .to("visits", register=False)
    )
    with pytest.raises(WindowError, match="another name"):
        PipelineDriver(other, snapshot=first.snapshot())


def test_a_topic_that_is_not_read_is_refused() -> None:
    with pytest.raises(WindowError, match="feed orders"):
        PipelineDriver(_takings()).feed(_order(1), topic="order")


def test_records_pass_without_windows_by_the_key_they_have_or_by_another_one() -> None:
    source = stream("orders", types={"amount": float})
    same = PipelineDriver(source.filter(lambda record: record["amount"] > 1).to("large", register=False))
    same.feed({"amount": 1.0}, {"amount": 2.0, "more": [1]}, key=b"k")
    assert same.results() == [{"amount": 2.0, "more": [1]}]
    keyed = PipelineDriver(source.key_by("shop").to("by-shop", register=False))
    keyed.feed({"amount": 1.0, "shop": "a"}, {"amount": 1.0})
    assert keyed.results() == [{"amount": 1.0, "shop": "a"}]
    assert keyed.dead_letters() == [b'{"amount":1.0}']


def test_a_function_over_a_batch_that_raises_loses_the_bad_records_alone() -> None:
    calls: list[int] = []

    def inverse(records: object) -> list[dict[str, object] | None]:
        assert isinstance(records, list)
        calls.append(len(records))
        return [None if one["n"] == 5 else {**one, "inverse": 1 / one["n"]} for one in records]

    driver = PipelineDriver(stream("numbers").map_batches(inverse).to("inverses", register=False))
    driver.feed({"n": 1}, {"n": 5}, {"n": 2})
    assert [one["inverse"] for one in driver.results()] == [1.0, 0.5]
    assert calls == [3]
    driver.feed({"n": 4}, {"n": 0}, {"n": 5}, {"n": 2})
    assert [one["inverse"] for one in driver.results()] == [0.25, 0.5]
    assert driver.dead_letters() == [b'{"n":0}']
    short = PipelineDriver(stream("numbers").map_batches(lambda records: records[:0]).to("none", register=False))
    short.feed({"n": 1})
    assert short.dead_letters() == [b'{"n":1}']


def test_two_topics_are_joined_with_the_keys_of_the_contract() -> None:
    orders, payments = (
        stream(topic, timestamp="at", partitioned_by=("no",)).key_by("no") for topic in ("orders", "payments")
    )
    driver = PipelineDriver(orders.join(payments, within="5s", how="left").to("paid", register=False))
    order, payment = {"no": 7, "at": 1_000, "what": "tea"}, {"no": 7, "at": 3_000, "amount": 2}
    driver.feed(order, {"no": 8, "at": 1_000})
    driver.feed(payment, topic="payments")
    assert driver.results() == [{"stream_a": order, "stream_b": payment, "join_key": "no", "join_value": 7}]
    driver.feed({"no": 9, "at": 7_000}, topic="payments")
    (alone,) = driver.results()
    assert (alone["stream_a"]["no"], alone["stream_b"]) == (8, None)
    driver.feed({"no": 7, "at": 1_500}, topic="payments")
    assert [one["lateness"]["lateness_ms"] for one in driver.late()] == [5_500]


def test_joined_records_come_out_in_the_order_of_their_times_whatever_their_keys() -> None:
    orders, payments = (
        stream(topic, timestamp="at", partitioned_by=("no",)).key_by("no") for topic in ("orders", "payments")
    )
    times = [(no, 1_000 + (7 * no + 13 * turn) % 50 + 100 * turn) for turn in range(5) for no in range(8)]
    driver = PipelineDriver(orders.join(payments, within="20ms", how="outer").to("paid", register=False))
    driver.feed(*({"no": no, "at": at} for no, at in sorted(times, key=lambda one: one[1])))
    driver.feed(*({"no": no, "at": at + no} for no, at in sorted(times, key=sum) if no != 3), topic="payments")
    driver.advance("60s")
    told = driver.results()
    sides = [[one[side]["at"] for side in ("stream_a", "stream_b") if one[side]] for one in told]
    # What has no partner is told once its time is passed, by itself in that order.
    pairs = [max(one) for one in sides if len(one) > 1]
    alone = [one[0] for one in sides if len(one) == 1]
    assert (pairs, alone) == (sorted(pairs), sorted(alone))
    assert len(pairs) > 30
    assert alone
    assert len({one["join_value"] for one in told[:5]}) > 1
    table = PipelineDriver(orders.join_latest(payments, how="left").to("paid", register=False))
    table.feed(*({"no": no, "at": at} for no, at in sorted(times, key=lambda one: one[1])))
    table.advance("60s")
    at_once = [one["stream_a"]["at"] for one in table.results()]
    assert at_once == sorted(at_once)
    assert len(at_once) == len(times)


def test_a_table_gives_what_stood_at_the_time_of_each_record_as_its_functions_made_it() -> None:
    prices = stream("prices", partitioned_by=("shop", "what")).map(
        lambda record: {**record, "cents": record["eur"] * 100}
    )
    sold = stream("sold", partitioned_by=("shop", "what")).key_by("shop", "what")
    driver = PipelineDriver(sold.join_latest(prices.key_by("shop", "what")).to("priced", register=False))
    for at, eur in ((0, 1), (10, 2), (20, 3)):
        driver.feed({"shop": "a", "what": "tea", "eur": eur, "timestamp_ms": at}, topic="prices")
    driver.feed({"shop": "a", "what": "tea", "timestamp_ms": 15})
    (told,) = driver.results()
    assert told["stream_b"]["cents"] == 200
    assert (told["join_key"], told["join_value"]) == (["shop", "what"], ["a", "tea"])


def test_what_a_function_makes_that_json_has_not_is_a_dead_letter() -> None:
    driver = PipelineDriver(stream("t").map(lambda record: {**record, "of": object()}).to("u", register=False))
    driver.feed({"n": 1})
    assert driver.dead_letters() == [b'{"n":1}']
    driver = PipelineDriver(stream("t").to("u", register=False))
    driver.feed(b'{"n": "\xff"}', {"n": 2**70})
    assert driver.results() == [{"n": 2**70}]
    assert driver.dead_letters() == [b'{"n": "\xff"}']


def test_a_detectors_alerts_have_one_id_from_opened_to_closed_which_is_the_same_after_a_replay() -> None:
    def run(cut: int) -> list[dict[str, object]]:
        source = stream("readings").key_by("device_id", "metric")
        driver = PipelineDriver(
            source.detect(ZScore(threshold=5), rule=AlertRule(calm=3)).to("warnings", register=False)
        )
        values = [20.0 + number % 3 for number in range(60)]
        values[40:42] = [80.0, 200.0]
        rows = [
            {"device_id": "d", "metric": "heat", "value": value, "timestamp_ms": 60_000 * number}
            for number, value in enumerate(values)
        ]
        for begin in range(0, len(rows), cut):
            driver.feed(*rows[begin : begin + cut])
        return driver.results()

    alerts = run(60)
    assert [one["phase"] for one in alerts] == ["opened", "updated", "closed"]
    assert len({one["id"] for one in alerts}) == 1
    assert set(alerts[0]) == {
        "id", "kind", "phase", "device_id", "metric", "timestamp_ms", "opened_ms", "value", "expected", "score",
        "worst_score", "threshold", "message", "records",
    }  # fmt: skip
    assert (alerts[0]["kind"], alerts[0]["value"], alerts[0]["timestamp_ms"]) == ("z_score", 80.0, 40 * 60_000)
    assert alerts[0]["records"] == [{"topic": "readings", "partition": 0, "offset": 40}]
    assert alerts[1]["records"] == [{"topic": "readings", "partition": 0, "offset": n} for n in (40, 41)]
    assert run(1) == run(7) == alerts
