"""A user's code may raise anything, anywhere: its record is a dead letter, and to all others as if it never came."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from easyremote.pipelines import Pipeline, Stream, stream
from easyremote.pipelines.decoding import Decoder
from easyremote.pipelines.task import PipelineTask
from easyremote.testing import PipelineDriver
from easyremote.topics.events import Batch
from easyremote.windows import Count, CountWindow, Custom, Hopping, Session, Sliding, Sum, Tumbling
from easyremote.windows.assigners import Assigner
from easyremote.windows.detectors import AlertRule
from easyremote.windows.detectors.base import Scores
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = 1_700_000_000_000
BAD = 13
"""On a record of this value the functions here raise."""
Record = dict[str, Any]


class _Fed:
    def __init__(self, value: bytes, offset: int) -> None:
        self._value, self._offset = value, offset

    def value(self) -> bytes:
        return self._value

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"a"

    def headers(self) -> list[tuple[str, bytes]]:
        return [("easyremote_pipeline", b"an earlier one")]


class _Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("this error has no text")


class _Own(BaseException):
    pass


def _deep(depth: int = 0) -> int:
    return _deep(depth + 1)


def _raise(error: BaseException) -> None:
    raise error


RAISES: dict[str, Callable[[], object]] = {
    "ValueError": lambda: _raise(ValueError("13 brings bad luck")),
    "SystemExit": lambda: _raise(SystemExit(3)),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "StopIteration": lambda: next(iter(())),
    "RecursionError": _deep,
    "MemoryError": lambda: _raise(MemoryError()),
    "_Mute": lambda: _raise(_Mute()),
    "_Own": lambda: _raise(_Own()),
}


def _orders() -> Stream:
    return stream("orders", timestamp="at", partitioned_by=("shop",))


def _order(at: int, n: int = 1, shop: str = "a") -> Record:
    return {"shop": shop, "at": at, "n": n}


def _on_a_thread(work: Callable[[], None]) -> None:
    # As in a worker: on the main thread a KeyboardInterrupt is whoever sits there.
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # it is raised again below
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _luck(n: int, bad: Callable[[], object]) -> int:
    if n == BAD:
        bad()
    return n


def _numbers(create: Callable[[], Any] = list, bad: Callable[[], object] = RAISES["ValueError"]) -> Custom:
    """Return an aggregate of all numbers of a window; it changes what it is given, as it should not."""

    def add(state: list[int], n: int) -> list[int]:
        state.append(n)
        _luck(n, bad)
        return state

    def merge(one: list[int], other: list[int]) -> list[int]:
        one += other
        return one

    return Custom("n", create=create, add=add, merge=merge, result=sorted)


class _Learning:
    """A detector that counts what it has learned, before it raises."""

    kind, threshold, dtype = "own", 0.5, np.dtype([("count", "<i8")])

    def __init__(self, bad: Callable[[], object]) -> None:
        self._bad = bad

    def score(self, state: Any, event_ms: Any, values: Any) -> Scores:
        state["count"] += 1
        for value in values.tolist():
            _luck(round(value), self._bad)
        return Scores(state["count"].astype(float), values)


def _detecting(bad: Callable[[], object]) -> Pipeline:
    rule = AlertRule(calm=1, cooldown=1)
    return _orders().key_by("shop").detect(_Learning(bad), "n", rule=rule).to("out", register=False)


def _mapped(record: Record, bad: Callable[[], object]) -> Record:
    record["seen"] = record.get("seen", 0) + 1
    _luck(record["n"], bad)
    return record


def _kept(record: Record, bad: Callable[[], object]) -> bool:
    return bool(_luck(record["n"], bad))


PIPELINES: dict[str, tuple[str, Callable[[Callable[[], object]], Pipeline]]] = {
    "map": ("map 1", lambda bad: _orders().map(lambda one: _mapped(one, bad)).to("out", register=False)),
    "filter": (
        "filter 2",
        lambda bad: _orders().map(dict).filter(lambda one: _kept(one, bad)).to("out", register=False),
    ),
    "map_batches": (
        "map_batches 1",
        lambda bad: _orders().map_batches(lambda many: [_mapped(one, bad) for one in many]).to("out", register=False),
    ),
    "aggregate": (
        "aggregate all",
        lambda bad: (
            _orders()
            .key_by("shop")
            .window(Tumbling("1s"))
            .aggregate(all=_numbers(bad=bad), count=Count(), sum=Sum("n"))
            .to("out", register=False)
        ),
    ),
    "detector": ("detect", _detecting),
}


@pytest.mark.parametrize("error", RAISES)
@pytest.mark.parametrize("where", PIPELINES)
def test_a_record_on_which_a_users_code_raises_in_the_middle_of_a_batch_is_a_dead_letter_and_no_more(
    where: str, error: str
) -> None:
    stage, make = PIPELINES[where]
    rows = [_order(NOW + 100 * at, n, shop) for at, (n, shop) in enumerate([(1, "a"), (BAD, "a"), (2, "b"), (3, "a")])]
    rows.append(_order(NOW + 99_000, BAD))  # which would close the windows of its key
    good = [one for one in rows if one["n"] != BAD]

    def run() -> None:
        driver, other = (PipelineDriver(make(RAISES[error]), now_ms=NOW) for _ in range(2))
        driver.feed(*rows)
        other.feed(*good)
        failures = driver.failures()
        assert [json.loads(one.value) for one in failures] == [one for one in rows if one["n"] == BAD]
        assert {(one.error, one.stage) for one in failures} == {(error, stage)}
        assert all(one.reason and one.stack and error in one.stack for one in failures)
        if where == "detector":  # an alert's id is of the place of its record
            ids = [[{**one, "id": 0, "records": 0} for one in each.results()] for each in (driver, other)]
            assert ids[0] == ids[1]
        told = driver.results()
        assert told == other.results()
        driver.feed(_order(NOW + 50_000, 4))
        other.feed(_order(NOW + 50_000, 4))
        assert [len(each.results()) for each in (driver, other)] in ([1, 1], [0, 0]), "the worker goes on"
        assert driver.snapshot().state.keys() == other.snapshot().state.keys()

    _on_a_thread(run)


WINDOWS: dict[str, Assigner] = {
    "tumbling": Tumbling(1_000),
    "hopping": Hopping(1_000, 300),
    "sliding": Sliding(700),
    "session": Session(300),
    "count": CountWindow(3),
}


def _run(pipeline: Pipeline, rows: Sequence[Record], chance: random.Random) -> tuple[list[Record], list[Record]]:
    """Feed rows in batches of any length, with restarts; return results, and what is late or a dead letter."""
    driver = PipelineDriver(pipeline, now_ms=NOW)
    results: list[Record] = []
    odd: list[Record] = []
    at = 0
    while at < len(rows):
        size = chance.randint(1, 6)
        driver.feed(*rows[at : at + size])
        at += size
        results += driver.results()
        odd += [json.loads(one.value) for one in driver.failures()] + driver.late()
        if not chance.randrange(3):
            driver = PipelineDriver(pipeline, snapshot=driver.snapshot(), now_ms=NOW)
    driver.advance("60s")
    assert not driver.failures()
    return sorted(results + driver.results(), key=_text), [{**one, "lateness": None} for one in odd]


def _text(record: Record) -> str:
    return json.dumps(record, sort_keys=True)


@settings(deadline=None, max_examples=40)
@given(
    window=st.sampled_from(sorted(WINDOWS)),
    rows=st.lists(
        st.tuples(st.sampled_from([1, 2, 3, BAD]), st.integers(0, 3_000), st.sampled_from("ab")), max_size=25
    ),
    watermark=st.sampled_from(["key", "partition"]),
    chance=st.randoms(use_true_random=False),
)
def test_windows_are_what_they_would_be_without_the_records_that_raise_whatever_the_batches_and_the_restarts(
    window: str, rows: list[tuple[int, int, str]], watermark: Any, chance: random.Random
) -> None:
    pipeline = (
        _orders()
        .key_by("shop")
        .window(WINDOWS[window], lateness="500ms", watermark=watermark)
        .aggregate(all=_numbers(), more=_numbers(), count=Count())
        .to("out", register=False)
    )
    fed = [_order(NOW + at, n, shop) for n, at, shop in rows]
    told, odd = _run(pipeline, fed, chance)
    clean, late = _run(pipeline, [one for one in fed if one["n"] != BAD], chance)
    assert told == clean
    bad = [{**one, "lateness": None} for one in fed if one["n"] == BAD]
    assert sorted(odd, key=_text) == sorted(late + bad, key=_text)


@settings(deadline=None, max_examples=25)
@given(
    window=st.sampled_from(["tumbling", "session"]),
    rows=st.lists(st.tuples(st.integers(0, 900), st.sampled_from("ab")), max_size=25),
    chance=st.randoms(use_true_random=False),
)
def test_what_raises_by_what_it_is_added_to_takes_the_first_records_of_the_log_whatever_the_batches(
    window: str, rows: list[tuple[int, str]], chance: random.Random
) -> None:
    most = 3

    def merge(one: list[int], other: list[int]) -> list[int]:
        one.extend(other)
        if len(one) > most:
            raise ValueError("full")
        return one

    full = Custom("n", create=list, add=lambda state, n: merge(state, [n]), merge=merge, result=sorted)
    pipeline = (
        _orders()
        .key_by("shop")
        .window(WINDOWS[window], lateness="5s")
        .aggregate(count=Count(), all=full)
        .to("out", register=False)
    )
    told, odd = _run(pipeline, [_order(NOW + at, n, shop) for n, (at, shop) in enumerate(rows)], chance)
    if window == "tumbling":
        for shop in "ab":
            numbers = [n for n, (_, its) in enumerate(rows) if its == shop]
            assert [one["all"] for one in told if one["shop"] == shop] == ([numbers[:most]] if numbers else [])
    assert sum(one["count"] for one in told) + len(odd) == len(rows)
    assert all(one["count"] == len(one["all"]) <= most for one in told)


def _result_of(numbers: list[int]) -> Any:
    if BAD in numbers:
        raise LookupError("no result of 13")
    return sum(numbers)


def _merge_of(one: list[int], other: list[int]) -> list[int]:
    if BAD in {*one, *other}:
        raise LookupError("no merging of 13")
    return one + other


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_whose_result_raises_is_closed_and_a_dead_letter_that_says_what_is_known_of_it(window: str) -> None:
    total = Custom("n", create=list, add=lambda state, n: [*state, n], merge=lambda a, b: a + b, result=_result_of)
    windows = _orders().key_by("shop").window(WINDOWS[window])
    pipeline = windows.aggregate(total=total, count=Count()).to("out", name="mine", register=False)
    driver = PipelineDriver(pipeline, now_ms=NOW)
    driver.feed(*(_order(NOW + at, n, shop) for shop in "ab" for at, n in ((0, 1), (1, BAD if shop == "b" else 5))))
    driver.feed(*(_order(NOW + 2, 1, shop) for shop in "ab"))
    driver.advance("60s")
    told = driver.results()
    assert told
    assert any(one["shop"] == "a" for one in told)
    failures = driver.failures()
    known = [json.loads(one.value) for one in failures]
    assert {(one["shop"], "total" in one, one["final"]) for one in known} == {("b", False, True)}
    assert all({"window_start", "window_end", "count", "revision"} <= set(one) for one in known)
    assert {(one.error, one.stage) for one in failures} == {("LookupError", "aggregate total")}
    assert "no result of 13" in (failures[0].stack or "")
    driver.advance("60s")
    assert (driver.failures(), driver.results()) == ([], []), "it is not tried again"


def test_a_window_whose_panes_cannot_be_merged_is_closed_and_a_dead_letter() -> None:
    total = Custom("n", create=list, add=lambda state, n: [*state, n], merge=_merge_of, result=sum)
    windows = _orders().key_by("shop").window(Hopping(1_000, 500))
    driver = PipelineDriver(windows.aggregate(total=total, count=Count()).to("out", register=False), now_ms=NOW)
    base = NOW - NOW % 1_000
    driver.feed(*(_order(base + at, n, shop) for shop in "ab" for at, n in ((0, BAD if shop == "b" else 2), (600, 1))))
    driver.advance("60s")
    assert [(one["shop"], one["total"]) for one in driver.results()] == [
        ("a", 2), ("b", BAD), ("a", 3), ("a", 1), ("b", 1),
    ]  # fmt: skip
    (failure,) = driver.failures()
    assert json.loads(failure.value) == {
        "shop": "b", "window_start": base, "window_end": base + 1_000, "count": 2, "revision": 0, "final": True,
    }  # fmt: skip
    assert failure.stage == "aggregate total"


def _cyclic() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (lambda _: {1, 2}, "is a set"),
        (lambda _: {"of": [float("nan")]}, r"['of'][0] is nan"),
        (lambda _: float("-inf"), "is -inf"),
        (lambda _: object(), "nothing that JSON has"),
        (lambda _: "\ud800", "nothing that JSON has"),
        (lambda _: _cyclic(), "nothing that JSON has"),
    ],
)
def test_a_result_that_json_has_not_is_a_dead_letter_of_its_window_that_names_the_place(
    result: Callable[[Any], Any], reason: str
) -> None:
    own = Custom("n", create=list, add=lambda state, _: state, merge=lambda a, _: a, result=result)
    windows = _orders().key_by("shop").window(Tumbling("1s"))
    driver = PipelineDriver(windows.aggregate(own=own, count=Count()).to("out", register=False), now_ms=NOW)
    driver.feed(_order(NOW), _order(NOW, shop="b"))
    driver.advance("60s")
    assert driver.results() == []
    failures = driver.failures()
    assert [json.loads(one.value)["shop"] for one in failures] == ["a", "b"]
    assert all(reason in one.reason for one in failures)


def test_a_record_whose_state_cannot_be_kept_is_a_dead_letter() -> None:
    own = Custom(
        "n", create=list, add=lambda state, n: [*state, object() if n == BAD else n], merge=_merge_of, result=sum
    )
    windows = _orders().key_by("shop").window(Tumbling("1s"))
    driver = PipelineDriver(windows.aggregate(own=own).to("out", register=False), now_ms=NOW)
    driver.feed(_order(NOW, 1), _order(NOW, BAD), _order(NOW, 2))
    (failure,) = driver.failures()
    assert "numbers, texts, lists" in failure.reason
    driver.advance("60s")
    assert [one["own"] for one in driver.results()] == [3]


def test_a_map_that_gives_no_dict_is_a_dead_letter_which_says_that_filter_drops() -> None:
    driver = PipelineDriver(_orders().map(lambda one: one if one["n"] == 1 else None).to("out", register=False))  # type: ignore[arg-type,return-value]  # the mistake that is tested
    driver.feed(_order(NOW), _order(NOW, 2))
    assert driver.results() == [_order(NOW)]
    (failure,) = driver.failures()
    assert json.loads(failure.value) == _order(NOW, 2)
    assert ".filter(" in failure.reason
    assert failure.stage == "map 1"


def test_types_are_checked_before_the_functions_and_on_what_comes_in() -> None:
    seen: list[object] = []

    def cents(record: Record) -> Record:
        seen.append(record["n"])
        return {**record, "n": str(record["n"]), "made": record["n"] * 100.0}

    typed = stream("orders", timestamp="at", types={"n": int}, partitioned_by=("shop",)).map(cents)
    driver = PipelineDriver(
        typed.key_by("shop").window(Tumbling("1s")).aggregate(sum=Sum("made"), none=Sum("n")).to("o", register=False),
        now_ms=NOW,
    )
    driver.feed(_order(NOW, 2), {"shop": "a", "at": NOW, "n": "3"}, {"shop": "a", "at": NOW}, _order(NOW, 4))
    assert seen == [2, 4]
    assert [(one.stage, one.error) for one in driver.failures()] == [("read", "ValidationError")] * 2
    driver.advance("60s")
    assert [(one["sum"], one["none"]) for one in driver.results()] == [(600.0, None)]


def test_a_detector_may_look_at_what_a_function_has_made_and_a_number_that_is_none_is_a_dead_letter() -> None:
    made = _orders().map(lambda one: {**one, "made": one["n"] * 1.0 if one["n"] != BAD else float("nan")})
    detecting = made.key_by("shop").detect(_Learning(RAISES["ValueError"]), "made")
    driver = PipelineDriver(detecting.to("out", register=False), now_ms=NOW)
    driver.feed(_order(NOW, 1), _order(NOW, BAD))
    assert len(driver.results()) == 1
    assert ["must be finite" in one.reason for one in driver.failures()] == [True]


def test_a_record_that_a_function_was_well_with_is_not_given_to_it_again() -> None:
    seen: list[int] = []

    def note(record: Record) -> Record:
        seen.append(record["n"])
        _luck(record["n"], RAISES["ValueError"])
        return record

    driver = PipelineDriver(_orders().map(note).to("out", register=False))
    driver.feed(*(_order(NOW, n) for n in (1, BAD, 2, BAD, 3)))
    assert seen == [1, BAD, 2, BAD, 3]
    assert len(driver.failures()) == 2


def test_a_function_over_a_batch_that_raises_is_given_halves_and_finds_few_bad_records_in_few_calls() -> None:
    sizes: list[int] = []

    def together(records: Sequence[Record]) -> list[Record]:
        sizes.append(len(records))
        return [_mapped(one, RAISES["ValueError"]) for one in records]

    driver = PipelineDriver(_orders().map_batches(together).to("out", register=False))
    driver.feed(*(_order(NOW, BAD if at == 700 else 1) for at in range(1_024)))
    assert [one["seen"] for one in driver.results()] == [1] * 1_023
    assert len(driver.failures()) == 1
    assert len(sizes) == 21


def test_a_dead_letter_of_a_users_code_says_pipeline_stage_stack_and_place() -> None:
    pipeline = _orders().map(lambda one: {"x": 1 / one["n"]}).to("out", name="mine", register=False)
    fed: Any = [_Fed(json.dumps(_order(NOW, n)).encode(), 40 + place) for place, n in enumerate((1, 0))]
    batch = Batch("ns-orders", 3, 40, 42, Decoder(pipeline).decode(3, fed))
    result, letter = PipelineTask(pipeline, "ns-", "node-1", 3).step(batch, NOW)
    assert (result.topic, letter.topic, letter.value) == ("ns-out", "ns-orders.dlq", fed[1].value())
    headers = dict(letter.headers or [])
    assert b"ZeroDivisionError" in headers.pop("easyremote_stack")
    del headers["easyremote_failed_ms"]
    assert headers == {
        "easyremote_reason": b"division by zero",
        "easyremote_error": b"ZeroDivisionError",
        "easyremote_source_topic": b"ns-orders",
        "easyremote_source_partition": b"3",
        "easyremote_source_offset": b"41",
        "easyremote_node": b"node-1",
        "easyremote_stage": b"map 1",
        "easyremote_pipeline": b"mine",
    }


class _Bytes:
    """An aggregate over columns, with a state of its own form, by the protocol alone."""

    column = "n"

    def __init__(self, bad: int) -> None:
        self._bad = bad

    @property
    def state(self) -> _Bytes:
        return self

    def empty(self, n: int) -> Any:
        return np.zeros(n, np.int64)

    def of_groups(self, values: Any, first: Any) -> Any:
        numbers = values.astype(np.int64)
        if (numbers == self._bad).any():
            raise ValueError("a bad number in a column")
        return np.add.reduceat(numbers, first)

    def merge(self, states: Any, places: Any, partial: Any) -> None:
        states[places] += partial
        if (states[places] >= 100).any():
            raise OverflowError("100 is too much")

    def pack(self, states: Any) -> list[bytes]:
        return [b"%d" % state for state in states.tolist()]

    def unpack(self, packed: Sequence[bytes]) -> Any:
        return np.array([int(one) for one in packed], np.int64)

    def results(self, states: Any) -> list[int]:
        found: list[int] = states.tolist()
        return found


@pytest.mark.parametrize("cut", range(1, 8))
def test_an_aggregate_over_columns_that_raises_after_it_has_changed_its_states_has_changed_none(cut: int) -> None:
    windows = _orders().key_by("shop").window(Tumbling("10s"))
    pipeline = windows.aggregate(own=_Bytes(BAD), count=Count()).to("out", register=False)
    driver = PipelineDriver(pipeline, now_ms=NOW)
    rows = [_order(NOW, n) for n in (40, 40, BAD, 40, 10, 30, 1)]
    for at in range(0, len(rows), cut):
        driver.feed(*rows[at : at + cut])
    driver.advance("60s")
    assert [(one["own"], one["count"]) for one in driver.results()] == [(91, 4)]
    assert [json.loads(one.value)["n"] for one in driver.failures()] == [BAD, 40, 30]
