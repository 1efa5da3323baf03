from easyremote.bench.balance import Load, central_queue, through_balancer

LOAD = Load.poisson(15_000, 0.25, seed=3)
IDEAL_MS = central_queue(LOAD).mean_ms


def test_least_wait_is_near_the_ideal_with_one_router() -> None:
    assert through_balancer(LOAD, "least_wait", routers=1).mean_ms <= 1.25 * IDEAL_MS


def test_least_wait_is_near_the_ideal_with_three_routers() -> None:
    assert through_balancer(LOAD, "least_wait", routers=3).mean_ms <= 1.4 * IDEAL_MS


def test_least_wait_is_near_the_ideal_by_heartbeats_alone_with_one_router() -> None:
    assert through_balancer(LOAD, "least_wait", routers=1, sees_replies=False).mean_ms <= 1.3 * IDEAL_MS


def test_least_wait_beats_the_strategies_that_know_less() -> None:
    best = through_balancer(LOAD, "least_wait", routers=1)
    for strategy in ("round_robin", "least_connections"):
        other = through_balancer(LOAD, strategy, routers=1)
        assert (best.mean_ms, best.p99_ms) < (other.mean_ms, other.p99_ms)


def test_the_same_seed_gives_the_same_figures() -> None:
    few = Load.poisson(2_000, 0.25, seed=7)
    assert through_balancer(few, "least_wait", 3, seed=5) == through_balancer(few, "least_wait", 3, seed=5)
