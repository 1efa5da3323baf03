from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from easyremote.errors import InvalidArguments
from easyremote.inference.balancer import Balancer
from easyremote.topics.records import Heartbeat, ModelState
from hypothesis import given
from hypothesis import strategies as st


def _beat(node_id: str, partition: int = 0, **told: Any) -> Heartbeat:
    known: dict[str, Any] = {"functions": ["f"], "pool": "nlp", "sent_ms": 0}
    return Heartbeat(node_id=node_id, roles=[], ready=[], partitions=[partition], **(known | told))


def _balancer(*beats: Heartbeat, now_ms: float = 0, **given: Any) -> Balancer:
    balancer = Balancer(timeout_ms=2_000, seed=1, **given)
    for beat in beats:
        balancer.update(beat, now_ms)
    return balancer


def _chosen(balancer: Balancer, times: int = 1, now_ms: float = 0, **asked: Any) -> list[str]:
    choices = [balancer.choose("f", now_ms, **asked) for _ in range(times)]
    return [choice.node_id for choice in choices if choice is not None]


def test_a_dead_node_gets_no_new_call_2_s_after_its_last_heartbeat() -> None:
    balancer = _balancer(_beat("a"))
    assert balancer.choose("f", 2_000) is not None
    assert balancer.choose("f", 2_001) is None
    assert not balancer.serves("f", 2_001)
    assert balancer.knows("f")


def test_a_node_that_left_gets_no_call_at_once() -> None:
    balancer = _balancer(_beat("a"), _beat("b", 1))
    assert set(_chosen(balancer, 20)) == {"a", "b"}
    balancer.forget("a")
    assert set(_chosen(balancer, 20)) == {"b"}


def test_a_call_that_names_a_model_goes_to_a_node_that_answers_with_it() -> None:
    balancer = _balancer(
        _beat("small", function_models={"f": "lite"}), _beat("large", 1, function_models={"f": "resnet50"})
    )
    assert set(_chosen(balancer, 20)) == {"small", "large"}
    assert set(_chosen(balancer, 20, model="resnet50")) == {"large"}
    assert balancer.choose("f", 0, model="vit") is None
    assert balancer.serves("f", 0, model="lite")
    assert not balancer.serves("f", 0, model="vit")


@given(
    silent_ms=st.lists(st.integers(0, 4_000), min_size=1, max_size=6),
    strategy=st.sampled_from(["round_robin", "least_connections", "resource_aware", "model_affinity", "least_wait"]),
    key=st.none() | st.text(max_size=3),
    avoid=st.none() | st.sampled_from(["0", "1"]),
)
def test_a_dead_node_is_never_chosen(silent_ms: list[int], strategy: str, key: str | None, avoid: str | None) -> None:
    balancer = Balancer(timeout_ms=2_000, seed=1)
    for number, silent in enumerate(silent_ms):
        balancer.update(_beat(str(number), number), now_ms=10_000 - silent)
    live = {str(number) for number, silent in enumerate(silent_ms) if silent <= 2_000}
    asked: dict[str, Any] = {"strategy": strategy, "affinity_key": key, "avoid": avoid}
    chosen = _chosen(balancer, 30, now_ms=10_000, **asked)
    assert set(chosen) <= live
    assert len(chosen) == (30 if live else 0)


def test_round_robin_takes_each_node_in_turn() -> None:
    balancer = _balancer(*(_beat(name, number) for number, name in enumerate("abc")))
    names = _chosen(balancer, 6, strategy="round_robin")
    assert sorted(names[:3]) == ["a", "b", "c"]
    assert names[:3] == names[3:]


@given(st.lists(st.sampled_from(["join", "leave", "beat", "call", "call of g"]), max_size=120))
def test_round_robin_is_fair_while_nodes_come_and_go(happenings: list[str]) -> None:
    balancer = Balancer(timeout_ms=2_000, seed=1)
    both: dict[str, Any] = {"functions": ["f", "g"]}
    here: list[str] = []
    since: dict[str, list[str]] = {}  # whom each node saw chosen since its own turn or since it came
    for number, what in enumerate(happenings):
        if what == "join":
            here.append(str(number))
            since[str(number)] = []
            balancer.update(_beat(str(number), number, **both), 0)
        elif what == "leave" and here:
            balancer.forget(here.pop(0))
        elif what == "beat" and here:
            balancer.update(_beat(here[-1], **both), 0)
        elif what == "call of g":
            balancer.choose("g", 0, strategy="round_robin")
        elif here and what == "call":
            (name,) = _chosen(balancer, strategy="round_robin")
            for other in here:
                since[other].append(name)
            since[name] = []
            # Nobody has two turns while another waits for one.
            assert all(max(Counter(since[other]).values(), default=0) <= 1 for other in here)


def test_least_connections_counts_what_was_sent_since_the_heartbeat() -> None:
    balancer = _balancer(_beat("busy", in_flight=2), _beat("free", 1))
    assert _chosen(balancer, 2, strategy="least_connections") == ["free", "free"]
    balancer.done("busy", 0)
    balancer.done("busy", 0)
    assert _chosen(balancer, strategy="least_connections") == ["busy"]


def test_resource_aware_adds_cpu_memory_response_and_calls_in_flight() -> None:
    # 0.5 + 0.4 + 0.1 + 0.2 = 1.2 against 0.1 + 0.2 + 0.79 + 0.1 = 1.19
    told = {"cost_ms": {"f": 1_000_000.0}}  # nothing ends meanwhile
    one = _beat("a", 0, cpu_percent=50, memory_percent=40, mean_response_s=1.0, in_flight=2, **told)
    other = _beat("b", 1, cpu_percent=10, memory_percent=20, mean_response_s=7.9, in_flight=1, **told)
    balancer = _balancer(one, other)
    # b takes the first; a call more in flight there is 0.1 more.
    assert _chosen(balancer, 2, strategy="resource_aware") == ["b", "a"]


def test_model_affinity_takes_the_least_loaded_of_those_that_hold_the_model() -> None:
    def holding(node_id: str, number: int, model: str, *, loaded: bool, in_flight: int) -> Heartbeat:
        models = [ModelState("other", "1", loaded=True), ModelState(model, "1", loaded=loaded)]
        return _beat(node_id, number, models=models, function_models={"f": model}, in_flight=in_flight)

    balancer = _balancer(
        holding("busy", 0, "m", loaded=True, in_flight=9),
        holding("held", 1, "m", loaded=True, in_flight=3),
        holding("cold", 2, "m", loaded=False, in_flight=0),
        _beat("none", 3),
    )
    assert _chosen(balancer, strategy="model_affinity") == ["held"]


def test_model_affinity_is_resource_aware_where_no_node_holds_the_model() -> None:
    cold = {"models": [ModelState("m", "1", loaded=False)], "function_models": {"f": "m"}}
    balancer = _balancer(_beat("hot", 0, cpu_percent=90, **cold), _beat("idle", 1, cpu_percent=5, in_flight=1, **cold))
    assert _chosen(balancer, strategy="model_affinity") == ["idle"]


def test_least_wait_takes_where_the_call_is_finished_soonest() -> None:
    balancer = _balancer(
        _beat("quick and busy", 0, in_flight=9, cost_ms={"f": 10.0}),  # 100 ms
        _beat("slow and idle", 1, cost_ms={"f": 150.0}),
        _beat("between", 2, in_flight=2, cost_ms={"f": 20.0}),  # 60 ms
    )
    assert _chosen(balancer) == ["between"]


def test_least_wait_counts_the_loading_of_a_model() -> None:
    told = {"function_models": {"f": "m"}, "cost_ms": {"f": 10.0}}
    balancer = _balancer(
        _beat("cold", 0, models=[ModelState("m", "1", loaded=False)], **told),
        _beat("held", 1, models=[ModelState("m", "1", loaded=True, load_s=3.0)], in_flight=100, **told),
    )
    assert _chosen(balancer) == ["held"]  # 1,010 ms against 3,010 ms


def test_a_node_that_never_ran_the_function_costs_what_the_others_do() -> None:
    known = [_beat("a", 0, in_flight=1, cost_ms={"f": 10.0}), _beat("b", 1, in_flight=1, cost_ms={"f": 30.0})]
    balancer = _balancer(*known, _beat("new", 2))
    # a and new: 20 ms, but new begins at once; then new: 40 ms
    assert _chosen(balancer, 2) == ["new", "a"]


def test_equals_are_chosen_at_random_so_that_routers_do_not_herd() -> None:
    beats = [_beat(str(number), number, cost_ms={"f": 10.0 + number / 10}) for number in range(8)]
    first = set()
    for seed in range(60):
        balancer = Balancer(timeout_ms=2_000, seed=seed)
        for beat in beats:
            balancer.update(beat, 0)
        first.update(_chosen(balancer))
    assert len(first) == 8


def test_a_node_that_slows_down_gets_fewer_calls() -> None:
    balancer, shares = _balancer(), []
    # Each second both do 100 calls of 10 ms; then b takes 40 ms for one.
    for second, (calls, cost_ms) in enumerate([(0, 10.0), (100, 10.0), (100, 10.0), (25, 40.0), (25, 40.0)]):
        now_ms = 1_000 * second
        for number, name in enumerate("ab"):
            done, worked_s = 100 * second, 1.0 * second
            if name == "b" and cost_ms > 10:
                done, worked_s = 200 + calls * (second - 2), 1.0 * second
            told = {"cost_ms": {"f": cost_ms if name == "b" else 10.0}, "mean_response_s": worked_s / max(1, done)}
            balancer.update(_beat(name, number, sent_ms=now_ms, total_requests=done, **told), now_ms)
        if second in (2, 4):
            shares.append(Counter(_chosen(balancer, 100, now_ms=now_ms))["b"])
    assert 45 <= shares[0] <= 55
    assert 15 <= shares[1] <= 35


def test_a_strategy_is_the_calls_or_the_functions_or_the_default_one() -> None:
    beats = [_beat("a", 0, in_flight=1, cpu_percent=0, functions=["f", "g"]),
             _beat("b", 1, in_flight=0, cpu_percent=90, functions=["f", "g"])]  # fmt: skip
    balancer = _balancer(*beats, default="resource_aware", by_function={"g": "least_connections"})
    names = [balancer.choose("f", 0), balancer.choose("g", 0), balancer.choose("f", 0, strategy="round_robin")]
    assert [choice.node_id for choice in names[:2] if choice is not None] == ["a", "b"]
    with pytest.raises(InvalidArguments, match="'fastest' is none of round_robin"):
        balancer.choose("f", 0, strategy="fastest")


def test_a_target_is_that_node_and_no_other() -> None:
    balancer = _balancer(_beat("a", 3))
    choice = balancer.choose("f", 0, target="a")
    assert choice is not None
    assert (choice.pool, choice.partition) == ("nlp", 3)
    assert balancer.choose("f", 0, target="b") is None


def test_a_retry_avoids_the_node_that_failed_while_another_is_alive() -> None:
    balancer = _balancer(_beat("failed", 0), _beat("other", 1, in_flight=50))
    assert set(_chosen(balancer, 10, avoid="failed")) == {"other"}
    assert set(_chosen(balancer, 10, avoid="failed", affinity_key="k")) == {"other"}
    assert set(_chosen(balancer, 10, now_ms=2_000, avoid="failed")) == {"other"}
    balancer.update(_beat("failed", 0), 1_900)
    assert set(_chosen(balancer, 10, now_ms=2_001, avoid="failed")) == {"failed"}  # the other one is dead by now


@given(st.integers(2, 8), st.lists(st.text(max_size=8), min_size=1, max_size=30, unique=True), st.data())
def test_a_key_stays_with_its_node_and_few_keys_move(count: int, keys: list[str], data: st.DataObject) -> None:
    def homes(names: list[str]) -> dict[str, str]:
        found = {}
        for key in keys:
            balancer = _balancer(*(_beat(name, number) for number, name in enumerate(names)))
            twice = _chosen(balancer, 2, affinity_key=key, strategy="round_robin")
            assert twice[0] == twice[1]
            found[key] = twice[0]
        return found

    names = [f"node-{number}" for number in range(count)]
    before = homes(names)
    gone = data.draw(st.sampled_from(names))
    after = homes([name for name in names if name != gone])
    assert all(after[key] == home for key, home in before.items() if home != gone)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=8), st.lists(st.sampled_from("abc"), min_size=1, max_size=60))
def test_a_key_never_overloads_its_node(loads: list[int], keys: list[str]) -> None:
    slow = {"cost_ms": {"f": 1_000_000.0}}  # nothing ends meanwhile
    balancer = _balancer(*(_beat(str(number), number, in_flight=load, **slow) for number, load in enumerate(loads)))
    in_flight = Counter({str(number): load for number, load in enumerate(loads)})
    for key in keys:
        (name,) = _chosen(balancer, affinity_key=key)
        in_flight[name] += 1
        assert in_flight[name] <= max(4, 1.25 * in_flight.total() / len(loads) + 1)


def test_keys_are_spread_over_the_nodes() -> None:
    homes: Counter[str] = Counter()
    for number in range(400):
        balancer = _balancer(*(_beat(f"node-{one}", one) for one in range(4)))
        homes.update(_chosen(balancer, affinity_key=f"user-{number}"))
    assert min(homes.values()) > 50
