"""What passes by itself, how long is waited, and what is said of it."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException
from easyremote.errors import BrokerUnavailable, ConfigError, TopicError
from easyremote.topics.outages import ClientLog, Outages, address_in
from easyremote.topics.retry import JUST_MADE, Backoff, ask, passes
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

AT_ONCE = Backoff(first_s=0.0, most_s=0.0)
NAMES = [
    "NOT_LEADER_FOR_PARTITION",
    "LEADER_NOT_AVAILABLE",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "COORDINATOR_NOT_AVAILABLE",
    "NOT_COORDINATOR",
    "REQUEST_TIMED_OUT",
    "_TIMED_OUT",
    "_TRANSPORT",
    "_ALL_BROKERS_DOWN",
    "_RESOLVE",
]


class Broker:
    """Raises what it is told, one after another, and answers when that is over."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0

    def answer(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "an answer"


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def says(name: str) -> KafkaException:
    return KafkaException(KafkaError(getattr(KafkaError, name)))


@pytest.mark.parametrize("error", [*map(says, NAMES), TimeoutError(), BrokerUnavailable("away")], ids=repr)
def test_what_passes_by_itself_is_asked_again(error: Exception) -> None:
    broker = Broker(error, error, error)
    assert ask("to test", broker.answer, where="b:1", backoff=AT_ONCE, outages=Outages()) == "an answer"
    assert broker.asked == 4


@pytest.mark.parametrize(
    "error",
    [says("TOPIC_AUTHORIZATION_FAILED"), says("UNKNOWN_TOPIC_OR_PART"), TopicError("no"), ConfigError("no"), OSError()],
    ids=repr,
)
def test_what_does_not_pass_is_told_at_once(error: Exception) -> None:
    broker = Broker(error)
    with pytest.raises(type(error)):
        ask("to test", broker.answer, where="b:1", backoff=AT_ONCE, outages=Outages())
    assert broker.asked == 1


def test_a_topic_that_was_just_made_may_not_be_known_yet() -> None:
    broker = Broker(says("UNKNOWN_TOPIC_OR_PART"))
    assert ask("to test", broker.answer, where="b:1", also=JUST_MADE, backoff=AT_ONCE) == "an answer"


def test_an_error_that_says_itself_that_it_is_fatal_does_not_pass() -> None:
    assert not passes(KafkaError(KafkaError._TRANSPORT, "fenced", True))


def test_who_has_no_more_time_is_told_for_what_and_where() -> None:
    broker = Broker(*[says("_TRANSPORT")] * 9)
    with pytest.raises(BrokerUnavailable, match=r"no Kafka at b:1 .*to test.*is it running"):
        ask("to test", broker.answer, where="b:1", within_s=0.0, outages=Outages())
    assert broker.asked == 1


def test_who_stops_waits_no_longer() -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(BrokerUnavailable):
        ask("to test", Broker(says("_TRANSPORT")).answer, where="b:1", stopping=stopping, outages=Outages())


@given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_a_wait_grows_to_its_bound_and_is_never_nothing(attempt: int, chance: float) -> None:
    backoff = Backoff()
    assert 0.069 <= backoff.wait_s(attempt, lambda: chance) <= 3.0
    assert backoff.wait_s(attempt, lambda: 0.0) <= backoff.wait_s(attempt + 1, lambda: 0.0)


def test_an_outage_is_one_line_and_its_end_another_however_many_clients_complain() -> None:
    clock = Clock()
    outages = Outages(clock)
    clients = [ClientLog("b:1", outages) for _ in range(40)]
    with capture_logs() as lines:
        for clock.now_s in range(20):
            for client in clients:
                client.log(
                    40, "%s [%s] %s", "FAIL", "c", "[thrd:b:1/1]: b:1/1: Connect to ipv4#127.0.0.1:1 failed: refused"
                )
                client.error(KafkaError(KafkaError._TRANSPORT, "b:1/1: Connect to ipv4#127.0.0.1:1 failed: refused"))
                client.error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
        outages.look({"b:1": True})
        assert outages.now == ["b:1"]
        clock.now_s = 25
        outages.look({"b:1": True})
        outages.look({"b:1": True})
    assert [(line["event"], line.get("after_s")) for line in lines] == [
        ("Kafka is away; waiting for it", None),
        ("Kafka is back", 19.0),
    ]


def test_an_outage_lasts_while_anyone_complains() -> None:
    clock = Clock()
    outages = Outages(clock)
    with capture_logs() as lines:
        for clock.now_s in range(10):
            outages.away("b:1", "to test", "refused")
            outages.answered("b:1")
    assert len(lines) == 1


def test_two_brokers_have_two_outages() -> None:
    outages = Outages(Clock())
    with capture_logs() as lines:
        for where in ("b:1", "b:2", "b:1", "b:2"):
            outages.away(where, "to test", "refused")
    assert [line["where"] for line in lines] == ["b:1", "b:2"]


def test_an_outage_of_a_list_of_addresses_is_over_when_one_of_them_is_up() -> None:
    clock = Clock()
    outages = Outages(clock)
    outages.away("b:1,b:2", "to test", "refused")
    outages.away("b:3", "to test", "refused")
    clock.now_s = 5
    outages.look({"b:1": False, "b:3": False})
    assert outages.now == ["b:1,b:2", "b:3"]
    outages.look({"b:1": True, "b:3": False})
    assert outages.now == ["b:3"]


def test_what_a_client_says_of_something_else_is_told_each_time() -> None:
    client = ClientLog("b:1", Outages())
    with capture_logs() as lines:
        client.log(40, "%s [%s] %s", "MAXPOLL", "c", "Application maximum poll interval exceeded")
        client.error(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    assert [line["log_level"] for line in lines] == ["warning", "warning"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (
            "[thrd:kafka-0.kafka:9092/0]: kafka-0.kafka:9092/0: Disconnected (after 9ms in state UP)",
            "kafka-0.kafka:9092",
        ),
        ("[thrd:sasl_ssl://b.example:9093/1]: sasl_ssl://b.example:9093/1: Timed out", "b.example:9093"),
        ("[thrd:app]: rdkafka#producer-1: something", None),
    ],
)
def test_the_broker_of_a_line_is_found(text: str, address: str | None) -> None:
    assert address_in(text) == address
