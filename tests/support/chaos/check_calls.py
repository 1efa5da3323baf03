"""Accounts for every sending of every call: its reply, its dead letter, how often its function ran."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Message

from chaos import check_items, large
from chaos.answers import LETTERED, SUSPECTED, Final, fits
from chaos.calls import EXHAUSTED, MALFORMED, PASSED, SENDING, STREAMED, TIGHT, UNHEARD, UNKNOWN, Call, Sending
from chaos.check_items import Item
from chaos.nemesis import BROKER, Fault
from chaos.plan import OWN_TOPICS, ROUTERS, SHARED
from chaos.topics import headers, read
from chaos.verdict import Verdict

_SETTLES_MS = 4_000
"""What a fault leads to elsewhere, such as a session that runs out, may come so much later."""
_SESSION_MS = 1_500
"""Of the groups: whoever is silent for so long has a successor."""
_ON_ITS_WAY_MS = 200
"""What was sent so long before a link fell silent may still be held back by it."""
_KNOWN_MS = 500
"""What one node has answered, the others know by then."""


@dataclass
class Run:
    """One execution, as the function wrote it down."""

    node: str
    pid: int
    at_ms: int


@dataclass
class Calls:
    """Everything that is known of the calls of a run."""

    calls: dict[str, Call]
    sent: dict[str, list[Sending]]
    finals: dict[str, list[Final]]
    runs: dict[str, list[Run]]
    letters: Counter[int]
    """Dead letters by the number of the sending, of records that are dead letters as they came."""
    given_up: Counter[str]
    """Dead letters by the id of the call, of those that were on their way."""
    items: dict[str, list[Item]] = field(default_factory=lambda: defaultdict(list))
    """What streams have told, in order: items, and final replies."""
    unclear: set[str] = field(default_factory=set)
    """Ids of which the broker may or may not have a sending."""
    strange: list[str] = field(default_factory=list)
    """Records that no call explains."""


def gather(servers: str, sendings: Sequence[Sending], journal: Path, blobs: Path) -> Calls:
    """Read what the topics and the journal say of the calls."""
    found = Calls({}, defaultdict(list), defaultdict(list), runs_of(journal), Counter(), Counter())
    for one in sendings:
        found.calls[one.call.id] = one.call
        if one.error is None:
            found.sent[one.call.id].append(one)
        else:
            found.unclear.add(one.call.id)
    for topic in (SHARED, *OWN_TOPICS):
        for message in read(servers, topic):
            _take(found, topic, message, blobs)
    for message in read(servers, "requests.dlq"):
        said = headers(message)
        call_id = said.get("easyremote_id", b"").decode(errors="replace")
        if SENDING in said:
            found.letters[int(said[SENDING])] += 1
        elif call_id in found.calls:
            found.given_up[call_id] += 1
        else:
            found.strange.append(f"in requests.dlq: {message.value()!r:.200}")
    return found


def _take(found: Calls, topic: str, message: Message, blobs: Path) -> None:
    body = json.loads(message.value() or b"")
    call = found.calls.get(body["id"])
    if call is None:
        found.strange.append(f"in {topic}: {body!r:.200}")
        return
    trace = headers(message).get("traceparent")
    if call.kind == STREAMED or "seq" in body:
        found.items[call.id].append(
            Item(body.get("seq"), body.get("final", True), body["status"], body.get("result"), trace)
        )
    if body.get("final") is False:
        return
    if "result_claim" in body:
        body["result"] = large.get(blobs, body["result_claim"])
    if isinstance(result := body.get("result"), dict) and "text" in result:
        result["text"] = large.digest(result["text"])
    error = body.get("error") or {}
    told = json.dumps(body.get("result"), sort_keys=True) if body["status"] == "ok" else str(error.get("type"))
    kind = error.get("type")
    found.finals[call.id].append(Final(call.id, topic, message.timestamp()[1], body["status"], told, kind, body, trace))


def runs_of(journal: Path) -> dict[str, list[Run]]:
    """Return every execution by the id of its call."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for line in journal.read_text().splitlines() if journal.exists() else []:
        call, node, pid, at_ms = line.split()
        runs[call].append(Run(node, int(pid), int(at_ms)))
    return runs


def judge(found: Calls, faults: Sequence[Fault], versions: set[str]) -> Verdict:
    """Say which calls came to what they must not."""
    verdict = Verdict()
    for name in (
        "lost",
        "double",
        "contradicted",
        "astray",
        "wrong",
        "traceparent not brought back",
        "ran again without a fault",
    ):
        verdict.find(name, [])
    for call_id, call in found.calls.items():
        if call_id not in found.unclear:
            _judge_replies(verdict, found, call, faults)
            _judge_letters(verdict, found, call)
        check_items.judge(verdict, call, found.items.get(call_id, []), len(found.runs.get(call_id, [])))
        _judge_content(verdict, call, found.finals.get(call_id, []), versions)
        _judge_runs(verdict, found, call, faults)
    verdict.find("records that no call explains", found.strange)
    _tell(verdict, found, faults)
    return verdict


def _judge_replies(verdict: Verdict, found: Calls, call: Call, faults: Sequence[Fault]) -> None:
    finals, sent = found.finals.get(call.id, []), found.sent[call.id]
    expected = 0 if call.kind == UNHEARD else len(sent)
    where = f"{_told_of(call)}, sent at {[one.sent_ms for one in sent]}, replies {[_brief(one) for one in finals]}"
    runs = [(one.node, one.at_ms) for one in found.runs.get(call.id, [])]
    if len(finals) < expected:
        verdict.find("lost", [f"{where}, runs {runs}"] * (expected - len(finals)))
    held_back = _held_back(finals, faults)
    if len(finals) - held_back > expected:
        verdict.find("double", [f"{where}, runs {runs}"] * (len(finals) - held_back - expected))
    if len({one.told for one in finals}) > 1 and not _together(found, call) and not held_back:
        verdict.find("contradicted", [f"{where}, runs {runs}"])
    verdict.find("astray", [f"{where} in {one.topic}" for one in finals if one.topic != call.topic])


def _together(found: Calls, call: Call) -> bool:
    """Say whether a call was sent again and run again before it was known to be answered: then answers may differ."""
    begun = sorted(one.at_ms for one in found.runs.get(call.id, []))
    answered = min(one.at_ms for one in found.finals[call.id])
    return len(found.sent[call.id]) > 1 and len(begun) > 1 and begun[1] < answered + _KNOWN_MS


def _held_back(finals: Sequence[Final], faults: Sequence[Fault]) -> int:
    """Return how many replies links may have swallowed for longer than a session, and given back beside another's.

    At most one for each link that was silent: what its process has sent twice itself is found. A successor that repeats
    an answer names the node that made it, so that others are known by their time.
    """
    return sum(
        any(
            _sent_in(fault, final) and any(_may_be_of_a_successor(fault, other) for other in finals if other != final)
            for final in finals
        )
        for fault in faults
        if fault.action.kind == "silence" and fault.ended_ms - fault.began_ms > _SESSION_MS
    )


def _sent_in(fault: Fault, final: Final) -> bool:
    is_in_time = fault.began_ms - _ON_ITS_WAY_MS <= final.at_ms <= fault.ended_ms
    return is_in_time and fault.hits == final.body.get("node_id")


def _may_be_of_a_successor(fault: Fault, final: Final) -> bool:
    return final.at_ms > fault.began_ms + _SESSION_MS - _ON_ITS_WAY_MS


def _judge_letters(verdict: Verdict, found: Calls, call: Call) -> None:
    errors = {one.error for one in found.finals.get(call.id, [])}
    sent = found.sent[call.id]
    counts = Counter({one.number: found.letters[one.number] for one in sent})
    total = counts.total() + found.given_up[call.id]
    told = f"{_told_of(call)}, errors {errors}: {dict(counts)} and {found.given_up[call.id]}"
    wanted = len(sent) if call.kind in LETTERED else int("ConnectionError" in errors and call.kind == EXHAUSTED)
    if total < wanted:
        verdict.find("dead letters missing", [told])
    if total > max(wanted, int(SUSPECTED in errors or call.kind == EXHAUSTED)):
        verdict.find("dead letters too many", [told])


def _judge_content(verdict: Verdict, call: Call, finals: Sequence[Final], versions: set[str]) -> None:
    for final in finals:
        if final.trace != call.trace:
            told = f"{_told_of(call)}: {final.trace!r}, not {call.trace!r}, with {final.error or 'ok'}"
            verdict.find("traceparent not brought back", [told])
        if not fits(call, final, versions):
            verdict.find("wrong", [f"{_told_of(call)}: {json.dumps(final.body)[:400]}"])


def _judge_runs(verdict: Verdict, found: Calls, call: Call, faults: Sequence[Fault]) -> None:
    runs = found.runs.get(call.id, [])
    if call.kind in {PASSED, UNKNOWN, MALFORMED} and runs:
        verdict.find("ran what must not run", [f"{_told_of(call)}: {runs}"])
    expected = 1 + call.failures
    if len(runs) <= expected or call.kind == EXHAUSTED:
        return
    first_ms, last_ms = min(one.at_ms for one in runs), max(one.at_ms for one in runs)
    sent_ms = min(one.sent_ms for one in found.sent[call.id]) if found.sent[call.id] else first_ms
    nodes = {one.node for one in runs}
    if not any(_explains(fault, nodes, sent_ms, last_ms) for fault in faults):
        verdict.find("ran again without a fault", [f"{_told_of(call)}, sent at {sent_ms}: {runs}"])


def _explains(fault: Fault, nodes: set[str], sent_ms: int, last_ms: int) -> bool:
    if fault.began_ms > last_ms or fault.ended_ms + _SETTLES_MS < sent_ms:
        return False
    return fault.hits == BROKER or fault.hits in nodes or fault.hits in ROUTERS


def _tell(verdict: Verdict, found: Calls, faults: Sequence[Fault]) -> None:
    kinds = Counter(call.kind for call in found.calls.values())
    errors = Counter(one.error or "ok" for finals in found.finals.values() for one in finals)
    ran = Counter(
        len(found.runs.get(call_id, [])) - call.failures
        for call_id, call in found.calls.items()
        if call.kind not in {EXHAUSTED, "which", *LETTERED, PASSED, TIGHT}
    )
    verdict.facts |= {
        "calls": len(found.calls),
        "sendings": sum(map(len, found.sent.values())),
        "not known whether sent": len(found.unclear),
        "final replies": sum(map(len, found.finals.values())),
        "calls by kind": dict(kinds),
        "replies by what they say": dict(errors),
        "executions per id": {str(times): count for times, count in sorted(ran.items())},
        "answered differently, since both sendings ran at once": sum(
            len({one.told for one in finals}) > 1 and _together(found, found.calls[call_id])
            for call_id, finals in found.finals.items()
        ),
        "answered twice, since a link held a reply back for longer than a session": sum(
            len(finals) > len(found.sent[call_id]) and bool(_held_back(finals, faults))
            for call_id, finals in found.finals.items()
        ),
        "items of streams": sum(not one.final for items in found.items.values() for one in items),
        "results in the store": sum("result_claim" in one.body for finals in found.finals.values() for one in finals),
    }


def _told_of(call: Call) -> str:
    return f"{call.kind} {call.id} to {call.topic}"


def _brief(final: Final) -> str:
    run = final.body["result"].get("run", "")[:6] if isinstance(final.body.get("result"), dict) else ""
    return f"{final.error or 'ok'} {run} by {final.body.get('node_id')} at {final.at_ms}"
