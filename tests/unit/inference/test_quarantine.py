"""How many suspects run beside one another, and until when."""

from __future__ import annotations

from easyremote.inference.quarantine import Quarantine


def _given_out(quarantine: Quarantine[str], now_s: float) -> list[str]:
    return list(iter(lambda: quarantine.next(now_s), None))


def test_as_many_run_as_each_of_them_allows() -> None:
    quarantine = Quarantine[str]()
    for name, company in {"a": 3, "b": 2, "c": 3, "alone": 1, "d": 3}.items():
        quarantine.put(name, company, deaths=1)
    assert _given_out(quarantine, 0.0) == ["a", "b"]
    assert quarantine.end("b")
    assert _given_out(quarantine, 0.0) == ["c"]
    quarantine.end("a")
    assert _given_out(quarantine, 0.0) == []
    quarantine.end("c")
    assert _given_out(quarantine, 0.0) == ["alone"]
    quarantine.end("alone")
    assert _given_out(quarantine, 0.0) == ["d"]
    assert quarantine.holds_any
    quarantine.end("d")
    assert not quarantine.holds_any
    assert not quarantine.end("d")


def test_a_slow_one_is_waited_for_and_longer_after_each_death() -> None:
    for deaths, patience_s in ((1, 10.0), (2, 20.0), (4, 80.0)):
        quarantine = Quarantine[str]()
        quarantine.put("slow", 1, deaths)
        quarantine.put("next", 1, 1)
        assert _given_out(quarantine, 5.0) == ["slow"]
        assert _given_out(quarantine, 5.0 + patience_s) == []
        assert _given_out(quarantine, 5.1 + patience_s) == ["next"]
