"""Whatever names and values others write, no command sends them to the terminal as they are, and none ends by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from easyremote import cli
from easyremote.cli import calls, dlq, functions, models, pipelines, replaying, system
from easyremote.cli.told import cells, say, told
from easyremote.errors import RemoteError, TopicError
from easyremote.inference import client, directory
from easyremote.inference.directory import Listed
from easyremote.logs import configure_logging
from easyremote.settings import Settings
from easyremote.terminal import json_line, plain
from easyremote.topics import follower
from easyremote.topics.letters import DeadLetter
from easyremote.topics.records import FunctionInfo, ModelState, RecordRef
from typer.testing import CliRunner

HOSTILE = [
    "[/red]",
    "[bold]b[/bold][link=file:///etc/passwd]x[/link]",
    "\x1b[2J\x1b]0;owned\x07",
    "two\nlines\r\x08",
    "\x9b2J\x85",
    "\u202egnp.exe\u2066",
    "\x7f\x00",
    "\ud800",
]
ALL = "[/red]" + " ".join(HOSTILE)
"""One is enough for a command, which takes its time to run; the first tag closes what was never opened."""
STEERING = {chr(code) for code in (*range(10), *range(11, 32), *range(127, 160), 0x202E, 0x2066, 0xD800)}


@dataclass
class Said:
    """What a command wrote, and how it ended."""

    text: str
    code: int

    def is_harmless(self) -> bool:
        return self.code in {0, 1} and not STEERING & set(self.text)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Return what runs a command, on a terminal of 4,000 columns."""
    monkeypatch.setenv("COLUMNS", "4000")
    monkeypatch.setenv("EASYREMOTE_KAFKA", "none:1")
    runner = CliRunner()

    def run(*arguments: str) -> Said:
        result = runner.invoke(cli.app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.output, result.exit_code)

    return run


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_printable_is_escaped_and_json_stays_json(name: str) -> None:
    assert not STEERING & set(plain(name))
    assert "\n" not in plain(name)
    if name != "\ud800":
        assert json.loads(json_line(json.dumps({"a": name}, indent=2).encode())) == {"a": name}
        assert json.loads(json_line(json.dumps({"a": name}, ensure_ascii=False).encode())) == {"a": name}


@pytest.mark.parametrize("name", [ALL])
def test_status_shows_it(run: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    worker = {
        "node_id": name,
        "ready": [name],
        "roles": [name],
        "functions": [name],
        "in_flight": 0,
        "total_requests": 0,
        "failed_requests": 0,
        "cpu_percent": 0.0,
    }
    found = {"ready": False, "reason": f"still starting: {name}", "workers": [worker]}
    monkeypatch.setattr("easyremote.deploy.status.system_status", lambda: found)
    for arguments in (["status"], ["status", "--json"]):
        said = run(*arguments)
        assert said.is_harmless()
    assert plain(name) in run("status").text


SCHEMAS: list[dict[str, Any]] = [
    {},
    {"required": 3, "properties": {"[/red]": 1}},
    {"properties": None},
    {"anyOf": [3], "type": ["a", "b"]},
    {"type": "array", "items": 3},
]


@pytest.mark.parametrize("name", [ALL])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_functions_shows_it(run: Any, monkeypatch: pytest.MonkeyPatch, name: str, schema: dict[str, Any]) -> None:
    info = FunctionInfo(name=name, doc=name, arguments=schema, result=schema | {"title": name}, model=name)
    monkeypatch.setattr(directory, "list_functions", lambda _settings: [Listed(info, (name,), (name,))])
    said = run("functions")
    assert said.is_harmless()
    assert said.text.count(plain(name)) >= 4
    assert run("functions", "--json").is_harmless()


@pytest.mark.parametrize("name", [ALL])
def test_models_list_shows_it(run: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    state = ModelState(name, name, loaded=True, state="failed", reason=name, coming=name, previous=name)
    monkeypatch.setattr(models, "_held", lambda: [(name, state)])
    said = run("models", "list")
    assert said.is_harmless()
    assert said.text.count(plain(name)) >= 5
    assert run("models", "list", "--json").is_harmless()


@pytest.mark.parametrize("name", [ALL])
def test_an_order_tells_it(capsys: pytest.CaptureFixture[str], name: str) -> None:
    state = ModelState(name, name, loaded=True, state="failed", reason=name)
    with pytest.raises(typer.Exit):
        models._tell({name, name + "2"}, {name: state}, {name: state})
    told_of = capsys.readouterr()
    assert not STEERING & set(told_of.out + told_of.err)


class Letters:
    """Stands for a topic of dead letters with one in it."""

    def __init__(self, name: str) -> None:
        raw = name.encode(errors="replace")
        self.letter = DeadLetter(
            place=RecordRef(name, 0, 0),
            key=raw,
            value=raw,
            headers=[(name, raw)],
            reason=name,
            error=name,
            stack=name,
            attempts=1,
            failed_ms=0,
            node_id=name,
            call_id=name,
            function=name,
            source=name,
        )

    def handled(self) -> dict[str, Any]:
        return {}

    def get(self, _letter_id: str) -> DeadLetter:
        return self.letter

    def matching(self, _wanted: object) -> list[DeadLetter]:
        return [self.letter]

    def handle(self, *_: object, **__: object) -> list[int]:
        raise TopicError(f"{self.letter.function} cannot be sent back")


@pytest.mark.parametrize("name", [ALL])
@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["list", "--json"],
        ["show", "0/0"],
        ["show", "0/0", "--json"],
        ["redrive", "0/0"],
        ["drop", "--all", "--yes"],
    ],
    ids=" ".join,
)
def test_dead_letters_show_it(run: Any, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str]) -> None:
    monkeypatch.setattr(dlq, "_letters", lambda _topic: Letters(name))
    monkeypatch.setattr("easyremote.topics.dead_letters.topics_of_dead_letters", lambda _settings: [])
    assert run("dlq", *arguments).is_harmless()


class Followed:
    """Stands for a follower of a topic with one record."""

    def __init__(self, _settings: object, _topic: str, take: Callable[[list[Any]], None], **_: object) -> None:
        take([SimpleNamespace(value=VALUES.pop)])

    def close(self) -> None: ...


VALUES: list[bytes] = []


@pytest.mark.parametrize("name", [ALL])
def test_tail_shows_it_as_one_line(run: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(follower, "Follower", Followed)
    VALUES.append(name.encode(errors="replace"))
    said = run("tail", "alerts", "-n", "1")
    assert said.is_harmless()
    assert len(said.text.splitlines()) == 2


class Calling:
    """Stands for a client whose calls return or raise what somebody wrote."""

    def __enter__(self) -> Calling:
        return self

    def __exit__(self, *_: object) -> None: ...

    def call(self, function: str, name: str, **_: object) -> str:
        if function == "fail":
            raise RemoteError(f"{name}\nerror: nothing is wrong", type=name)
        return name


@pytest.mark.parametrize("name", [ALL.replace("\ud800", "")])
def test_a_calls_result_and_error_are_shown(run: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(client, "Client", Calling)
    argument = json.dumps(name)
    returned = run("call", "echo", argument)
    assert returned.is_harmless()
    assert json.loads(returned.text) == name
    failed = run("call", "fail", argument)
    assert failed.is_harmless()
    assert "\nerror: nothing is wrong" not in failed.text


@pytest.mark.parametrize("name", [ALL])
def test_what_a_pipeline_and_a_replay_say_is_shown(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr("easyremote.modules.import_module", lambda *_: None)
    monkeypatch.setattr("easyremote.pipelines.registered", {"one": None})
    monkeypatch.setattr("easyremote.pipelines.explaining.explain", lambda _pipeline: [(name, name)])
    assert run("pipelines", "explain", "mine").is_harmless()
    told_then: Any = [(b"key", name.encode(errors="replace"))]
    replaying._tell("were told then and are not now", told_then)
    assert not STEERING & set(capsys.readouterr().out)


@pytest.mark.parametrize("name", [ALL])
def test_a_log_line_shows_it(capsys: pytest.CaptureFixture[str], name: str) -> None:
    import structlog

    try:
        configure_logging("INFO")
        structlog.get_logger("here").error(name, call=name, function=name, exc_info=ValueError(name))
    finally:
        structlog.reset_defaults()
    assert not STEERING & set(capsys.readouterr().err)


def test_every_command_that_prints_others_texts_goes_by_one_function() -> None:
    used = {module.__name__: vars(module) for module in (calls, dlq, functions, models, pipelines, replaying, system)}
    assert all(one.get("say") is say or one.get("cells") is cells for one in used.values())
    assert all(one.get("told") is told for one in used.values())
    assert Settings(kafka="none:1").kafka == "none:1"
