"""The checker of chaos barks at what is wrong and at nothing else; its nemesis depends on the seed alone."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from chaos import large
from chaos.answers import Final
from chaos.calls import STREAMED, WEIGHS, Call, Sending, make
from chaos.check_calls import Calls, Run, judge
from chaos.check_items import Item
from chaos.check_streams import READERS, Reading, expect
from chaos.nemesis import Action, Fault, schedule
from chaos.plan import IDLE_MS, LATENESS_MS, POISON, WINDOW_MS, Plan

T = 1_000_000_000_000


def _found(kind: str = "note", sent: int = 1) -> Calls:
    call = Call("1-a", kind, "replies", b"", [], 1)
    sendings = {call.id: [Sending(call, number, T) for number in range(sent)]}
    return Calls({call.id: call}, defaultdict(list, sendings), defaultdict(list), {}, Counter(), Counter())


def _ok(run: str = "r", topic: str = "replies") -> Final:
    body = {"id": "1-a", "status": "ok", "result": {"call": "1-a", "value": 2, "run": run}, "node_id": "node-1"}
    return Final("1-a", topic, T + 100, "ok", json.dumps(body["result"]), None, body)


def _error(kind: str) -> Final:
    return Final("1-a", "replies", T + 100, "error", kind, kind, {"id": "1-a", "status": "error"})


def _problems(found: Calls, faults: list[Fault] | None = None) -> dict[str, int]:
    return judge(found, faults or [], {"configured"}).problems


def test_a_call_with_its_reply_is_no_finding() -> None:
    found = _found()
    found.finals["1-a"] = [_ok()]
    found.runs["1-a"] = [Run("node-1", 1, T)]
    assert _problems(found) == {}


def test_each_sending_has_one_reply() -> None:
    found = _found(sent=2)
    found.finals["1-a"] = [_ok()]
    assert _problems(found) == {"lost": 1}
    found.finals["1-a"] = [_ok()] * 2
    assert _problems(found) == {}
    found.finals["1-a"] = [_ok()] * 3
    assert _problems(found) == {"double": 1}


def test_replies_that_differ_or_go_astray_or_are_not_what_was_asked_are_found() -> None:
    found = _found(sent=2)
    found.finals["1-a"] = [_ok("one"), _ok("other")]
    assert _problems(found) == {"contradicted": 1}
    found.runs["1-a"] = [Run("node-1", 1, T), Run("node-2", 2, T + 700)]
    assert _problems(found, [Fault(Action("kill", "router-1"), T, T)]) == {"contradicted": 1}
    found.runs = {}
    found.finals["1-a"] = [_ok(), _ok(topic="chaos-own-a")]
    assert _problems(found) == {"astray": 1}
    found = _found()
    found.finals["1-a"] = [_error("ModelError")]
    assert _problems(found) == {"wrong": 1}


def test_two_sendings_that_ran_at_once_may_be_answered_differently_and_are_counted() -> None:
    found = _found(sent=2)
    found.finals["1-a"] = [_ok("one"), _ok("other")]
    found.runs["1-a"] = [Run("node-1", 1, T), Run("node-2", 2, T + 50)]
    verdict = judge(found, [Fault(Action("kill", "router-1"), T, T)], {"configured"})
    assert verdict.problems == {}
    assert verdict.facts["answered differently, since both sendings ran at once"] == 1
    assert _problems(found) == {"ran again without a fault": 1}


def test_a_reply_that_a_link_held_back_for_longer_than_a_session_may_stand_beside_another_and_is_counted() -> None:
    def judged(length_ms: int, link: str = "LINKA") -> dict[str, int]:
        found = _found()
        other = _error("DeadlineExceeded")
        found.finals["1-a"] = [_ok(), replace(other, at_ms=T + 2_000, body=other.body | {"node_id": "node-2"})]
        verdict = judge(found, [Fault(Action("silence", link, 1.0), T + 50, T + 50 + length_ms)], {"configured"})
        told = verdict.facts["answered twice, since a link held a reply back for longer than a session"]
        return verdict.problems | ({"held back": told} if told else {})

    assert judged(2_000) == {"held back": 1, "wrong": 1}  # what the other says is judged all the same
    assert judged(1_000) == {"double": 1, "contradicted": 1, "wrong": 1}
    assert judged(2_000, "LINKB") == {"double": 1, "contradicted": 1, "wrong": 1}
    found = _found()
    silence = [Fault(Action("silence", "LINKA", 2.0), T + 50, T + 2_050)]
    repeated = replace(_ok(), at_ms=T + 1_900)  # a successor repeats it as the node said it
    found.finals["1-a"] = [_ok(), repeated]
    assert _problems(found, silence) == {}
    found.finals["1-a"] = [_ok(), replace(_ok(), at_ms=T + 300)]
    assert _problems(found, silence) == {"double": 1}
    found.finals["1-a"] = [_ok(), repeated, replace(repeated, at_ms=T + 1_950)]
    assert _problems(found, silence) == {"double": 1}


def _traced(trace: bytes | None) -> Calls:
    found = _found()
    found.calls["1-a"] = replace(found.calls["1-a"], headers=[("traceparent", b"00-a-b-01")])
    found.finals["1-a"] = [replace(_ok(), trace=trace)]
    return found


def test_each_reply_brings_its_call_s_trace_back() -> None:
    assert _problems(_traced(b"00-a-b-01")) == {}
    assert _problems(_traced(b"00-a-c-01")) == {"traceparent not brought back": 1}
    assert _problems(_traced(None)) == {"traceparent not brought back": 1}
    found = _found()
    found.finals["1-a"] = [replace(_ok(), trace=b"00-a-b-01")]
    assert _problems(found) == {"traceparent not brought back": 1}


def _stream(told: list[int | str], runs: int = 1) -> dict[str, int]:
    """Judge a stream of three items: numbers are items, `3` as text is a final reply that says three."""
    found = _found(STREAMED, sent=sum(isinstance(one, str) for one in told))
    found.calls["1-a"] = replace(found.calls["1-a"], items=3)
    found.finals["1-a"] = [
        Final("1-a", "replies", T, "ok", "null", None, {"status": "ok"}) for one in told if isinstance(one, str)
    ]
    found.runs["1-a"] = [Run("node-1", 1, T)] * runs
    found.items["1-a"] = [
        Item(int(one), True, "ok", None)
        if isinstance(one, str)
        else Item(one, False, "ok", {"call": "1-a", "item": one, "value": one})
        for one in told
    ]
    return _problems(found, [Fault(Action("kill", "node-1"), T, T)])


def test_at_a_stream_s_end_its_reader_has_all_items_in_order() -> None:
    assert _stream([0, 1, 2, "3"]) == {}
    assert _stream([0, 1, 0, 1, 2, "3"], runs=2) == {}
    assert _stream([0, 1, 2, "3", "3"]) == {}
    assert _stream([0, 2, "3"]) == {"items missing at a stream's end": 1}
    assert _stream([0, 1, "3", 2]) == {"items missing at a stream's end": 1}
    assert _stream([0, 2, 1, "3"]) == {"items missing at a stream's end": 1}
    assert _stream([0, 1, 2, "2"]) == {"items missing at a stream's end": 1}
    assert _stream([0, 1, 1, 2, "3"]) == {"items double in one run": 1}


def test_an_item_that_says_something_else_or_has_another_trace_or_nobody_asked_for_is_found() -> None:
    found = _found(STREAMED)
    found.calls["1-a"] = replace(found.calls["1-a"], items=1)
    found.finals["1-a"] = [Final("1-a", "replies", T, "ok", "null", None, {"status": "ok"})]
    found.runs["1-a"] = [Run("node-1", 1, T)]
    end = Item(1, True, "ok", None)
    found.items["1-a"] = [Item(0, False, "ok", {"call": "1-b", "item": 0, "value": 0}), end]
    assert _problems(found) == {"items wrong": 1}
    found.items["1-a"] = [Item(0, False, "ok", {"call": "1-a", "item": 0, "value": 0}, b"00-x"), end]
    assert _problems(found) == {"traceparent not brought back": 1}
    found = _found()
    found.finals["1-a"] = [_ok()]
    found.items["1-a"] = [end]
    assert _problems(found) == {"items that nobody asked for": 1}


def test_a_large_argument_that_did_not_come_as_it_was_sent_is_found(tmp_path: Path) -> None:
    chance = random.Random(1)
    calls = [one for number in range(400) if (one := make(number, chance, tmp_path)).kind == WEIGHS]
    assert {"claims" in json.loads(one.value) for one in calls} == {True, False}
    for call in calls:
        digest = large.digest(large.text_of(call.id, call.size))
        result = {"call": call.id, "value": 2 * call.number, "sha256": digest}
        result |= {"text": digest} if json.loads(call.value)["args"][3] else {}
        for wrong in ({}, {"sha256": "0"}, {"text": "x"}):
            body = {"id": call.id, "status": "ok", "result": result | wrong}
            final = Final(call.id, call.topic, T, "ok", "r", None, body, call.trace)
            sent = defaultdict(list, {call.id: [Sending(call, 0, T)]})
            found = Calls({call.id: call}, sent, defaultdict(list, {call.id: [final]}), {}, Counter(), Counter())
            assert _problems(found) == ({"wrong": 1} if wrong else {})


def test_a_result_in_the_store_is_what_is_claimed_or_is_found(tmp_path: Path) -> None:
    claim = large.put(tmp_path, "a text")
    assert large.get(tmp_path, claim) == "a text"
    assert large.get(tmp_path, claim | {"bytes": 7}) != "a text"
    assert "no blob" in large.get(tmp_path, claim | {"sha256": "0" * 64})
    (tmp_path / "calls" / claim["sha256"][:2] / claim["sha256"]).write_bytes(b'"a fake"')
    assert "another blob" in large.get(tmp_path, claim)


def test_a_call_whose_deadline_has_passed_must_be_told_so_and_not_run() -> None:
    found = _found("passed")
    found.finals["1-a"] = [_error("DeadlineExceeded")]
    assert _problems(found) == {}
    found.runs["1-a"] = [Run("node-1", 1, T)]
    assert _problems(found) == {"ran what must not run": 1}


@pytest.mark.parametrize("kind", ["unknown", "malformed"])
def test_what_is_refused_is_a_dead_letter_once(kind: str) -> None:
    found = _found(kind)
    found.finals["1-a"] = [_error({"unknown": "UnknownFunction", "malformed": "MalformedRequest"}[kind])]
    assert _problems(found) == {"dead letters missing": 1}
    found.letters[0] = 1
    assert _problems(found) == {}
    found.letters[0] = 2
    assert _problems(found) == {"dead letters too many": 1}


def test_a_second_run_needs_a_fault_that_may_have_led_to_it() -> None:
    found = _found()
    found.finals["1-a"] = [_ok()]
    found.runs["1-a"] = [Run("node-1", 1, T + 10), Run("node-2", 2, T + 2_000)]
    assert _problems(found) == {"ran again without a fault": 1}
    assert _problems(found, [Fault(Action("kill", "streams-1"), T + 20, T + 20)]) == {"ran again without a fault": 1}
    assert _problems(found, [Fault(Action("kill", "node-1"), T + 20, T + 20)]) == {}
    assert _problems(found, [Fault(Action("kill", "broker"), T + 20, T + 900)]) == {}
    assert _problems(found, [Fault(Action("kill", "node-1"), T + 9_000, T + 9_000)]) == {"ran again without a fault": 1}


def _reading(offset: int, event_ms: int, value: float = 1.0, arrived_ms: int | None = None) -> Reading:
    return Reading((0, offset), event_ms if arrived_ms is None else arrived_ms, "d", value, event_ms)


def test_a_reading_is_in_its_window_or_late_by_the_newest_before_it() -> None:
    built_in = READERS[0]
    newest = T + WINDOW_MS + LATENESS_MS
    assert T % WINDOW_MS == 0
    expected = expect([_reading(0, T), _reading(1, newest - 1), _reading(2, T + 1), _reading(3, newest)], built_in)
    assert expected.windows["d", T] == [1.0, 1.0]
    assert expected.late == set()
    expected = expect([_reading(0, T), _reading(1, newest), _reading(2, T + 1)], built_in)
    assert (expected.windows["d", T], expected.late) == ([1.0], {(0, 2)})


def test_poison_and_what_is_no_reading_are_dead_and_the_future_is_late() -> None:
    built_in, sums, _ = READERS
    rows = [
        _reading(0, T, POISON),
        Reading((0, 1), T, None, 0.0, 0),
        _reading(2, T + 3_600_000, arrived_ms=T),
    ]
    assert expect(rows, built_in).dead == {(0, 1)}
    assert expect(rows, sums).dead == {(0, 0), (0, 1)}
    assert expect(rows, sums).late == {(0, 2)}


def test_a_hopping_window_s_reading_is_in_all_its_windows() -> None:
    expected = expect([_reading(0, T + 2_500)], READERS[2])
    assert dict(expected.windows) == {("d", T): [1.0], ("d", T + 2_000): [1.0]}


def test_what_came_after_a_silence_for_a_window_that_it_may_have_closed_is_left_open() -> None:
    rows = [_reading(0, T), _reading(1, T + 1, arrived_ms=T + IDLE_MS)]
    assert expect(rows, READERS[0]).open_windows == {("d", T)}


def test_the_same_seed_does_the_same() -> None:
    one = schedule(Plan(Path(), seed=3))
    assert one == schedule(Plan(Path(), seed=3))
    assert one != schedule(Plan(Path(), seed=4))
    assert {action.kind for step in one for action in step.actions} == {
        "kill",
        "freeze",
        "terminate",
        "reset",
        "silence",
    }
