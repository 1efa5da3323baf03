"""Dead letters as the person on call sees them: `easyremote dlq` on a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from easyremote import CallOptions, Client
from easyremote.cli import app
from easyremote.errors import TopicError
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import DEAD_LETTERS, MALFORMED_READINGS, declarations
from easyremote.topics.dead_letters import DeadLetters, Wanted
from easyremote.topics.letters import Failure, dead_letter_headers
from easyremote.topics.odd_records import Place, window_letter
from easyremote.topics.records import RecordRef, decode_reply
from easyremote.topics.wire import headers_of
from typer.testing import CliRunner, Result
from workers import producer_to, running, tail

pytestmark = pytest.mark.broker


@pytest.fixture
def prepared(settings: Settings) -> Settings:
    TopicAdmin(settings).ensure(declarations())
    return settings


def _dlq(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("easyremote"), "dlq", *arguments],
        env=os.environ
        | {
            "EASYREMOTE_KAFKA": settings.bootstrap_servers(),
            "EASYREMOTE_NAMESPACE": settings.namespace,
            "EASYREMOTE_DATA_DIR": str(settings.data_dir),
            "EASYREMOTE_NODE_ID": "on-call",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _json(settings: Settings, *arguments: str) -> Any:
    said = _dlq(settings, *arguments, "--json")
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def _bury(settings: Settings, topic: str, *letters: tuple[bytes, Exception]) -> None:
    producer = producer_to(settings.bootstrap_servers())
    for number, (value, error) in enumerate(letters):
        origin = RecordRef(settings.namespace + "elsewhere", 0, number)
        headers = dead_letter_headers([("mine", b"kept")], origin, error, Failure(node_id="n", attempts=1))
        producer.produce(settings.namespace + topic, value, key=f"k-{number}", headers=headers, partition=0)  # type: ignore[arg-type]  # the stub's list is invariant
    assert producer.flush(10) == 0


def _call(number: int, function: str = "echo") -> bytes:
    return json.dumps({"function": function, "args": [f"text {number}"], "id": f"c-{number}", "timeout_s": 30}).encode()


def test_a_call_that_died_is_redriven_when_its_cause_is_gone_and_answers_to_where_it_said(
    prepared: Settings, tmp_path: Path
) -> None:
    with running(prepared, "router", "inference"), Client(prepared) as client:
        diary = tmp_path / "diary"
        options = CallOptions(timeout_s=6, id="c-1")
        assert client.reply("flaky", str(diary), 2, options=options).status == "error"

        (listed,) = _json(prepared, "list")["letters"]
        assert (listed["id"], listed["function"], listed["error"]) == ("0/0", "flaky", "ConnectionError")
        assert (listed["attempts"], listed["call_id"]) == (2, "c-1")
        shown = _json(prepared, "show", "0/0")
        assert json.loads(shown["value"])["args"][1] == 2
        assert "no luck at try 2" in shown["stack"]
        assert shown["headers"]["kafka_correlationId"] == "c-1"
        for part in ("ConnectionError", "no luck at try 2", "served.py", "0/0"):
            assert part in _dlq(prepared, "show", "0/0").stdout

        said = _dlq(prepared, "redrive", "0/0")
        assert (said.returncode, said.stdout) == (0, "1 redriven\n"), said.stderr
        with tail(prepared, "replies") as replies:
            messages = replies.wait_for(lambda came: len(came) == 2)
        first, second = (decode_reply(one.value() or b"") for one in messages)
        assert (first.status, second.status, second.result, second.attempts) == ("error", "ok", 3, 1)
        assert second.id == "c-1~1"
        assert dict(headers_of(messages[1]))["kafka_correlationId"] == b"c-1"
        assert messages[0].partition() == messages[1].partition()

        assert _json(prepared, "list")["letters"] == []
        refused = _dlq(prepared, "redrive", "0/0")
        assert refused.returncode == 1
        assert "0/0 was redriven by on-call" in refused.stderr
        assert _dlq(prepared, "redrive", "0/0", "--again").returncode == 0
        (handled,) = _json(prepared, "list", "--handled")["letters"]
        assert handled["handled"] == "redriven"


def test_many_are_listed_by_page_and_chosen_by_function_and_error(prepared: Settings) -> None:
    letters = [(_call(number, "echo" if number % 2 else "shout"), KeyError(str(number))) for number in range(450)]
    _bury(prepared, DEAD_LETTERS, *letters, (b"{not json", ValueError("\x1b[2Jno json")))

    page = _json(prepared, "list", "--limit", "3")
    assert (page["matching"], [one["id"] for one in page["letters"]]) == (451, ["0/448", "0/449", "0/450"])
    older = _json(prepared, "list", "--limit", "2", "--before", "0/448")
    assert [one["id"] for one in older["letters"]] == ["0/446", "0/447"]
    assert _json(prepared, "list", "--function", "shout", "--newer-than", "1h")["matching"] == 225
    assert _json(prepared, "list", "--older-than", "1h")["matching"] == 0
    hostile = _dlq(prepared, "show", "0/450").stdout
    assert "{not json" in hostile
    assert "\x1b" not in hostile + _dlq(prepared, "list", "--error", "ValueError").stdout

    assert _dlq(prepared, "drop", "--function", "shout").returncode == 1  # it asks, and nobody answers
    assert _json(prepared, "drop", "--function", "shout", "--yes") == {"dropped": 225}
    assert _json(prepared, "redrive", "--error", "KeyError", "--yes") == {"redriven": 225}
    with tail(prepared, "requests") as requests:
        messages = requests.wait_for(lambda came: len(came) == 225)
        assert requests.caught_up()
    assert {json.loads(one.value() or b"")["function"] for one in messages} == {"echo"}
    assert {one.key() for one in messages} == {f"k-{number}".encode() for number in range(1, 450, 2)}
    headers = dict(headers_of(messages[0]))
    assert headers["mine"] == b"kept"
    assert not {"easyremote_reason", "easyremote_source_topic", "easyremote_attempts"} & set(headers)
    assert [one["id"] for one in _json(prepared, "list")["letters"]] == ["0/450"]
    assert _json(prepared, "redrive", "--all", "--yes") == {"redriven": 1}
    assert _json(prepared, "redrive", "--all", "--yes") == {"redriven": 0}


def test_malformed_readings_go_back_to_the_readings(prepared: Settings) -> None:
    _bury(prepared, MALFORMED_READINGS, (b'{"value": "hot"}', ValueError("no number")))
    (listed,) = _json(prepared, "list", "--topic", "readings.dlq")["letters"]
    assert listed["reason"] == "no number"
    assert _json(prepared, "redrive", "0/0", "--topic", "readings.dlq") == {"redriven": 1}
    with tail(prepared, "readings") as readings:
        (message,) = readings.wait_for(bool)
    assert (message.key(), message.value()) == (b"k-0", b'{"value": "hot"}')


def test_dead_letters_of_a_users_pipelines_are_listed_shown_redriven_and_dropped_like_any_other(
    prepared: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, setting in (("KAFKA", prepared.bootstrap_servers()), ("NAMESPACE", prepared.namespace)):
        monkeypatch.setenv(f"EASYREMOTE_{name}", setting)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["dlq", *arguments])

    def said(*arguments: str) -> Any:
        found = run(*arguments, "--json")
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    like = next(one for one in declarations() if one.name == MALFORMED_READINGS)
    orders = [replace(like, name="orders.dlq", partitions=2), replace(like, name="orders", partitions=2)]
    TopicAdmin(prepared).ensure(orders)
    _bury(prepared, DEAD_LETTERS, (_call(0), KeyError("x")))
    _bury(prepared, "orders.dlq", (b'{"n": 0}', ZeroDivisionError("n")), (b'{"n": 1}', ZeroDivisionError("n")))
    place = Place(f"{prepared.namespace}orders.dlq", f"{prepared.namespace}orders", 0, "orders.sums")
    window = window_letter(place, b"a", b'{"shop":"a"}', ValueError("no result"), "n", "aggregate own")
    producer = producer_to(prepared.bootstrap_servers())
    producer.produce(window.topic, window.value, key=window.key, headers=window.headers, partition=0)  # type: ignore[arg-type]
    assert producer.flush(10) == 0

    listed = said("list")
    names = ["0/0", "orders.dlq/0/0", "orders.dlq/0/1", "orders.dlq/0/2"]
    assert (listed["matching"], [one["id"] for one in listed["letters"]]) == (4, names)
    assert [one["id"] for one in said("list", "--topic", "orders.dlq", "--limit", "1")["letters"]] == names[3:]
    whole = said("show", names[3])
    assert (whole["pipeline"], whole["stage"], whole["source"]) == (
        "orders.sums",
        "aggregate own",
        f"{prepared.namespace}orders/0",
    )
    assert "ValueError: no result" in whole["stack"]
    refused = run("redrive", names[3])
    assert (refused.exit_code, "of a window" in refused.stderr) == (1, True)
    assert said("redrive", names[1]) == {"redriven": 1}
    assert said("redrive", "--all", "--yes", "--topic", "orders.dlq") == {"redriven": 1}
    with tail(prepared, "orders") as back:
        assert [one.value() for one in back.wait_for(lambda came: len(came) == 2)] == [b'{"n": 0}', b'{"n": 1}']
    assert said("drop", names[3]) == {"dropped": 1}
    assert [one["id"] for one in said("list")["letters"]] == ["0/0"]
    assert run("redrive", names[1], "0/0").exit_code == 2
    missing = run("list", "--topic", "returns.dlq")
    assert "there are requests.dlq, orders.dlq, readings.dlq" in missing.stderr


def test_what_is_not_there_or_not_said_is_told(prepared: Settings) -> None:
    _bury(prepared, DEAD_LETTERS, (_call(0), KeyError("x")))
    for arguments, told in (
        (("show", "0/9"), "no dead letter 0/9"),
        (("show", "../0"), "PARTITION/OFFSET"),
        (("redrive", "0/0", "0/9"), "no dead letter 0/9"),
        (("list", "--topic", "replies"), "no topic of dead letters"),
    ):
        said = _dlq(prepared, *arguments)
        assert (said.returncode, told in said.stderr) == (1, True), said.stderr
    assert _dlq(prepared, "redrive").returncode == 2
    assert _dlq(prepared, "list", "--older-than", "soon").returncode == 2
    assert _json(prepared, "list")["matching"] == 1  # nothing of what was refused was done


def test_of_two_who_redrive_at_once_only_one_does(prepared: Settings) -> None:
    _bury(prepared, DEAD_LETTERS, *((_call(number), KeyError("x")) for number in range(450)))
    first = DeadLetters(prepared).handle("redriven", Wanted())
    done = next(first)
    assert 0 < done < 450
    second = list(DeadLetters(prepared).handle("redriven", Wanted()))
    with pytest.raises(TopicError, match="another writer"):
        next(first)
    assert done + second[-1] == 450
    with tail(prepared, "requests") as requests:
        messages = requests.wait_for(lambda came: len(came) >= 450)
        assert requests.caught_up()
    assert len(messages) == len({one.key() for one in messages}) == 450


def test_a_redrive_that_dies_before_its_end_leaves_neither_the_record_nor_the_mark(prepared: Settings) -> None:
    _bury(prepared, DEAD_LETTERS, (_call(0), KeyError("x")))
    program = """
import os, signal
from easyremote.settings import load_settings
from easyremote.topics import atomic
from easyremote.topics.dead_letters import DeadLetters, Wanted
def dies(self, deadline):
    self._producer.flush(10)  # both records have reached the broker
    os.kill(os.getpid(), signal.SIGKILL)
atomic.AtomicWriter._commit = dies
list(DeadLetters(load_settings()).handle("redriven", Wanted()))
"""
    environment = {"EASYREMOTE_KAFKA": prepared.bootstrap_servers(), "EASYREMOTE_NAMESPACE": prepared.namespace}
    killed = subprocess.run([sys.executable, "-c", program], env=os.environ | environment, timeout=60, check=False)
    assert killed.returncode == -9
    assert _json(prepared, "redrive", "--all", "--yes") == {"redriven": 1}
    with tail(prepared, "requests") as requests:
        assert len(requests.wait_for(bool)) == 1
        assert requests.caught_up()
        assert len(requests.messages) == 1
