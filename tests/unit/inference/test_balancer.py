from easyremote.inference.balancer import Balancer
from easyremote.topics.records import Heartbeat


def _beat(node_id: str, partition: int, in_flight: int = 0) -> Heartbeat:
    return Heartbeat(
        node_id=node_id,
        sent_ms=0,
        roles=[],
        ready=[],
        pool="nlp",
        partitions=[partition],
        functions=["f"],
        in_flight=in_flight,
    )


def test_a_silent_node_gets_no_call() -> None:
    balancer = Balancer(timeout_ms=2_000)
    balancer.update(_beat("a", 0), now_ms=0)
    assert balancer.choose("f", 2_000) is not None
    assert balancer.choose("f", 2_001) is None
    assert balancer.knows("f")


def test_round_robin_takes_each_node_in_turn() -> None:
    balancer = Balancer(timeout_ms=2_000)
    for number, name in enumerate("abc"):
        balancer.update(_beat(name, number), now_ms=0)
    chosen = [balancer.choose("f", 0, strategy="round_robin") for _ in range(6)]
    names = [choice.node_id for choice in chosen if choice is not None]
    assert sorted(names[:3]) == ["a", "b", "c"]
    assert names[:3] == names[3:]


def test_least_connections_counts_what_was_sent_since_the_heartbeat() -> None:
    balancer = Balancer(timeout_ms=2_000)
    balancer.update(_beat("busy", 0, in_flight=2), now_ms=0)
    balancer.update(_beat("free", 1), now_ms=0)
    names = [balancer.choose("f", 0, strategy="least_connections") for _ in range(2)]
    assert [choice and choice.node_id for choice in names] == ["free", "free"]
    balancer.done("busy")
    balancer.done("busy")
    last = balancer.choose("f", 0, strategy="least_connections")
    assert last is not None
    assert last.node_id == "busy"


def test_a_target_is_that_node_and_no_other() -> None:
    balancer = Balancer(timeout_ms=2_000)
    balancer.update(_beat("a", 3), now_ms=0)
    choice = balancer.choose("f", 0, target="a")
    assert choice is not None
    assert (choice.pool, choice.partition) == ("nlp", 3)
    assert balancer.choose("f", 0, target="b") is None
