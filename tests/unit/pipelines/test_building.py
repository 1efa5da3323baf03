"""A pipeline is checked when it is written: each mistake is an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from easyremote.errors import WindowError
from easyremote.pipelines import Stream, registered, stream
from easyremote.windows import Count, Mean, Session, Tumbling, TypeDistribution
from easyremote.windows.detectors import Robust


@pytest.fixture(autouse=True)
def _none_registered() -> Iterator[None]:
    before = dict(registered)
    registered.clear()
    yield
    registered.clear()
    registered.update(before)


def _orders() -> Stream:
    return stream("orders", types={"shop": str, "amount": float}, partitioned_by=("shop",))


def _returns() -> Stream:
    return stream("returns", types={"shop": str, "number": int}, partitioned_by=("shop",))


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "no topic": (lambda: stream("my topic"), "letters, digits"),
    "a source of the system's": (lambda: stream("nodes"), "free are readings"),
    "a source that is a pool's": (lambda: stream("inference.own"), "free are readings"),
    "a source that is a changelog": (lambda: stream("pipelines.mine.changelog"), "free are readings"),
    "a source of Kafka's": (lambda: stream("__consumer_offsets"), "free are readings"),
    "a source that is no name": (lambda: stream(".."), "letters, digits"),
    "a sink of the system's": (lambda: _orders().to("requests", register=False), "free are readings"),
    "a sink for calls to come": (lambda: _orders().to("requests.retry.1s", register=False), "free are readings"),
    "a sink that is for dead letters": (lambda: _orders().to("returns.dlq", register=False), "must not end with"),
    "a type that JSON has not": (lambda: stream("t", types={"a": bytes}), "use one of str"),
    "no key": (lambda: _orders().key_by(), "at least one field"),
    "unknown partitioning": (lambda: stream("t").key_by("a").window(Tumbling("1s")), "partitioned_by"),
    "a key over several partitions": (lambda: _orders().key_by("kind").window(Tumbling("1s")), "different workers"),
    "a key that is the time": (lambda: _orders().key_by("shop", "timestamp_ms"), "the time itself"),
    "no window": (lambda: _orders().key_by("shop").window("10s"), "Tumbling"),  # type: ignore[arg-type]
    "told too early": (lambda: _orders().key_by("shop").window(Session("1s"), emit="both"), "emission='close'"),
    "told at no time there is": (
        lambda: _orders().key_by("shop").window(Tumbling("1s"), emit="final"),  # type: ignore[arg-type]
        "'close', 'update', 'both'",
    ),
    "no function": (lambda: _orders().map(None), "needs a function"),  # type: ignore[arg-type]
    "no aggregate": (lambda: _orders().key_by("shop").window(Tumbling("1s")).aggregate(), "at least one"),
    "none that is one": (
        lambda: _orders().key_by("shop").window(Tumbling("1s")).aggregate(n=Count),  # type: ignore[arg-type]
        "no aggregate",
    ),
    "the mean of a text": (
        lambda: _orders().key_by("shop").window(Tumbling("1s")).aggregate(mean=Mean("shop")),
        "no number",
    ),
    "a name that is taken": (
        lambda: _orders().key_by("shop").window(Tumbling("1s")).aggregate(shop=Count()),
        "another name",
    ),
    "a join without a key": (lambda: _orders().key_by("shop").join(_orders(), "5s"), "has no key"),  # type: ignore[arg-type]
    "a join with itself": (lambda: _orders().key_by("shop").join(_orders().key_by("shop"), "5s"), "itself"),
    "keys of different lengths": (
        lambda: _orders().key_by("shop").join(_returns().key_by("shop", "amount"), "5s"),
        "as many fields",
    ),
    "keys of different types": (
        lambda: _orders().key_by("shop").join(_returns().key_by("number"), "5s"),
        "never equal",
    ),
    "a join over several partitions": (
        lambda: _orders().key_by("kind").join(_returns().key_by("kind"), "5s"),
        "different workers",
    ),
    "no detector": (lambda: _orders().key_by("shop").detect(Robust, "amount"), "no detector"),  # type: ignore[arg-type]
    "a detector of a text": (lambda: _orders().key_by("shop").detect(Robust(), "shop"), "another field"),
    "a detector over several partitions": (
        lambda: _orders().key_by("kind").detect(Robust(), "amount"),
        "different workers",
    ),
    "no kind of join": (
        lambda: _orders().key_by("shop").join(_returns().key_by("shop"), "5s", how="right"),  # type: ignore[arg-type]
        "how=",
    ),
    "an outer as-of join": (
        lambda: _orders().key_by("shop").join_latest(_returns().key_by("shop"), how="outer"),  # type: ignore[arg-type]
        "how=",
    ),
    "a circle": (
        lambda: _orders().key_by("shop").window(Tumbling("1s")).aggregate(n=Count()).to("orders"),
        "never end",
    ),
}


@pytest.mark.parametrize(("mistake", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_says_what_to_do(mistake: Callable[[], object], hint: str) -> None:
    with pytest.raises(WindowError, match=hint):
        mistake()


@pytest.mark.parametrize("topic", ["readings", "alerts", "aggregates", "mine", "nodes.mine", "my.requests"])
def test_topics_of_ones_own_and_those_that_users_share_are_free(topic: str) -> None:
    assert stream(topic).to("elsewhere", register=False).sources[0].topic == topic
    assert stream("elsewhere").to(topic, register=False).sink == topic


@pytest.mark.parametrize("topic", ["readings.late", "readings.dlq", "orders.late", "orders.dlq"])
def test_what_stands_beside_a_topic_may_be_read(topic: str) -> None:
    assert stream(topic).to("elsewhere", register=False).sources[0].topic == topic


def test_two_pipelines_of_one_name_are_refused_and_another_name_helps() -> None:
    windows = _orders().key_by("shop").window(Tumbling("1s"))
    first = windows.aggregate(n=Count()).to("counts")
    with pytest.raises(WindowError, match="name='another'"):
        windows.aggregate(types=TypeDistribution("shop")).to("counts")
    second = windows.aggregate(types=TypeDistribution("shop")).to("counts", name="types")
    assert registered == {"orders.counts": first, "types": second}
    assert second.changelog == "pipelines.types.changelog"
