"""Dead letters: `easyremote dlq ...`."""

from __future__ import annotations

import base64
import json
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from easyremote.cli.told import AsJson, cells, say, told

if TYPE_CHECKING:
    from easyremote.topics.dead_letters import DeadLetters, Handled, Wanted
    from easyremote.topics.letters import DeadLetter

__all__ = ["app"]

app = typer.Typer(help="What was given up: look at it, send it back, drop it.", no_args_is_help=True)

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

Topic = Annotated[
    str | None, typer.Option(help="Such as readings.dlq; unset: requests.dlq, or the one that an id begins with.")
]
Function = Annotated[str | None, typer.Option(help="Only calls of this function.")]
ErrorClass = Annotated[str | None, typer.Option("--error", help="Only errors of this class.")]
Older = Annotated[str | None, typer.Option(help="Only what was given up so long ago or longer: 90s, 10m, 2h, 7d.")]
Newer = Annotated[str | None, typer.Option(help="Only what was given up since: 90s, 10m, 2h, 7d.")]
Ids = Annotated[list[str] | None, typer.Argument(help="As 'dlq list' names them: [TOPIC/]PARTITION/OFFSET.")]
Everything = Annotated[bool, typer.Option("--all", help="All open ones that the other options leave.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
@told
def dlq_list(  # noqa: PLR0913, PLR0917  # each is an option
    topic: Annotated[str | None, typer.Option(help="Such as readings.dlq; unset: all there are.")] = None,
    function: Function = None,
    error: ErrorClass = None,
    older_than: Older = None,
    newer_than: Newer = None,
    limit: Annotated[int, typer.Option(help="Most letters shown, the newest ones.", min=1)] = 50,
    before: Annotated[str | None, typer.Option(help="Only letters that stand before this one: the next page.")] = None,
    handled: Annotated[bool, typer.Option("--handled", help="Those dealt with too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the open dead letters of calls, readings and pipelines, the newest last."""
    from easyremote.settings import load_settings
    from easyremote.topics.catalog import DEAD_LETTERS
    from easyremote.topics.dead_letters import topics_of_dead_letters

    wanted = _wanted(function, error, older_than, newer_than)
    if before is not None:
        topic, before = _named(before, topic)
    topics = [topic] if topic else topics_of_dead_letters(load_settings()) or [DEAD_LETTERS]
    shown: list[_Listed] = []
    count = 0
    for name in topics:
        letters = _letters(name)
        known = letters.handled()
        newest: deque[_Listed] = deque(maxlen=limit)
        for letter in letters.matching(wanted):
            if letter.id == before:
                break
            if handled or letter.id not in known:
                newest.append(_Listed(name, letter, known.get(letter.id)))
                count += 1
        shown += newest
    if len(topics) > 1:
        shown.sort(key=lambda one: one.letter.failed_ms)
    shown = shown[-limit:]
    if as_json:
        found = [one.summary() for one in shown]
        say(json.dumps({"topic": topic, "matching": count, "letters": found}))
        return
    _print_table(shown)
    more = ""
    if count > len(shown):
        more = f"; older ones: --before {shown[0].name}" if len(topics) == 1 else "; older ones: --topic and --before"
    typer.echo(f"{len(shown)} of {count}{more}", err=True)


@app.command("show")
@told
def dlq_show(
    letter_id: Annotated[str, typer.Argument(help="As 'dlq list' names it: [TOPIC/]PARTITION/OFFSET.")],
    topic: Topic = None,
    as_json: AsJson = False,
) -> None:
    """Show one whole: reason, headers, value, stack."""
    topic, letter_id = _named(letter_id, topic)
    letters = _letters(topic)
    letter = letters.get(letter_id)
    summary = _Listed(topic, letter, letters.handled().get(letter.id)).summary()
    headers = {name: _text(content)[0] for name, content in letter.headers}
    value, encoding = _text(letter.value or b"")
    if as_json:
        whole = summary | {"headers": headers, "value": value, "value_encoding": encoding, "stack": letter.stack}
        say(json.dumps(whole))
        return
    for name, content in (summary | {f"header {name}": content for name, content in headers.items()}).items():
        if content is not None:
            say(f"{name}: {content}")
    say(f"\n{value}", lines=True)
    if letter.stack is not None:
        say(f"\n{letter.stack}", lines=True)


@app.command("redrive")
@told
def dlq_redrive(  # noqa: PLR0913, PLR0917  # each is an option
    ids: Ids = None,
    everything: Everything = False,
    topic: Topic = None,
    function: Function = None,
    error: ErrorClass = None,
    older_than: Older = None,
    newer_than: Newer = None,
    again: Annotated[bool, typer.Option("--again", help="Also what was redriven or dropped already.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters back to where they came from; their calls begin anew, and answer to where they said."""
    wanted = _wanted(function, error, older_than, newer_than)
    chosen = _chosen(ids, wanted, everything=everything)
    topic, chosen = _all_named(chosen, topic)
    done = _handle("redriven", _letters(topic), wanted, chosen, again=again, yes=yes)
    say(json.dumps({"redriven": done}) if as_json else f"{done} redriven")


@app.command("drop")
@told
def dlq_drop(  # noqa: PLR0913, PLR0917  # each is an option
    ids: Ids = None,
    everything: Everything = False,
    topic: Topic = None,
    function: Function = None,
    error: ErrorClass = None,
    older_than: Older = None,
    newer_than: Newer = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take dead letters off the list; they stay in their topic until it forgets them."""
    wanted = _wanted(function, error, older_than, newer_than)
    chosen = _chosen(ids, wanted, everything=everything)
    topic, chosen = _all_named(chosen, topic)
    done = _handle("dropped", _letters(topic), wanted, chosen, again=False, yes=yes)
    say(json.dumps({"dropped": done}) if as_json else f"{done} dropped")


def _letters(topic: str) -> DeadLetters:
    from easyremote.settings import load_settings
    from easyremote.topics.dead_letters import DeadLetters

    return DeadLetters(load_settings(), topic)


def _wanted(function: str | None, error: str | None, older_than: str | None, newer_than: str | None) -> Wanted:
    from easyremote.topics.dead_letters import Wanted

    now_ms = time.time_ns() // 1_000_000
    before_ms = None if older_than is None else now_ms - _duration_ms(older_than)
    after_ms = None if newer_than is None else now_ms - _duration_ms(newer_than)
    return Wanted(function=function, error=error, before_ms=before_ms, after_ms=after_ms)


def _duration_ms(text: str) -> int:
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time: write 90s, 10m, 2h or 7d")
    return int(match[1]) * _UNITS_S[match[2]] * 1_000


def _chosen(ids: list[str] | None, wanted: Wanted, *, everything: bool) -> list[str]:
    from easyremote.topics.dead_letters import Wanted

    is_filtered = wanted != Wanted()
    if bool(ids) == (everything or is_filtered):
        raise typer.BadParameter("name dead letters by their ids, or say --all, --function, --error or an age")
    return ids or []


def _handle(
    action: Literal["redriven", "dropped"],
    letters: DeadLetters,
    wanted: Wanted,
    ids: list[str],
    *,
    again: bool,
    yes: bool,
) -> int:
    from rich.console import Console
    from rich.progress import Progress

    total = len(set(ids))
    if not ids:
        known = letters.handled()
        total = sum(again or letter.id not in known for letter in letters.matching(wanted))
        if total and not yes:
            typer.confirm(f"{total} dead letters will be {action}. Go on?", abort=True, err=True)
    done = 0
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(action, total=total)
        for done in letters.handle(action, wanted, ids, again=again):
            progress.update(task, completed=done)
    return done


def _named(letter_id: str, topic: str | None) -> tuple[str, str]:
    """Return topic and id of a letter that is named `[TOPIC/]PARTITION/OFFSET`."""
    from easyremote.topics.catalog import DEAD_LETTERS

    named, _, rest = letter_id.partition("/")
    if rest.count("/") != 1:
        return topic or DEAD_LETTERS, letter_id
    if topic not in {None, named}:
        raise typer.BadParameter(f"{letter_id} is not of {topic}")
    return named, rest


def _all_named(ids: list[str], topic: str | None) -> tuple[str, list[str]]:
    """Return the topic that all ids are of, and the ids in it."""
    named = [_named(one, topic) for one in ids] or [_named("", topic)]
    topics = {one for one, _ in named}
    if len(topics) > 1:
        raise typer.BadParameter(f"these are of several topics, {', '.join(sorted(topics))}: one at a time")
    return named[0][0], [one for _, one in named if one]


class _Listed(NamedTuple):
    """A letter, the topic that it stands in, and what was done with it."""

    topic: str
    letter: DeadLetter
    handled: Handled | None

    @property
    def name(self) -> str:
        """What the other commands call it."""
        return self.letter.id if self.topic == "requests.dlq" else f"{self.topic}/{self.letter.id}"

    def summary(self) -> dict[str, Any]:
        """Return what is said of it."""
        letter = self.letter
        return {
            "id": self.name,
            "topic": self.topic,
            "failed_ms": letter.failed_ms,
            "function": letter.function,
            "call_id": letter.call_id,
            "pipeline": letter.pipeline,
            "stage": letter.stage,
            "error": letter.error,
            "reason": letter.reason,
            "attempts": letter.attempts,
            "node_id": letter.node_id,
            "source": letter.source,
            "bytes": len(letter.value or b""),
            "handled": None if self.handled is None else self.handled.action,
        }


def _print_table(shown: list[_Listed]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "age", "of", "error", "tries", "reason")
    now_ms = time.time_ns() // 1_000_000
    for one in shown:
        letter = one.letter
        mark = f" ({one.handled.action})" if one.handled else ""
        of = f"{letter.pipeline}: {letter.stage}" if letter.pipeline else letter.function
        row = (
            one.name + mark,
            _age((now_ms - letter.failed_ms) / 1000),
            of or "",
            letter.error or "",
            str(letter.attempts or ""),
            (letter.reason or "")[:200],
        )
        table.add_row(*cells(*row))
    Console().print(table)


def _age(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS_S[unit]:
            return f"{seconds // _UNITS_S[unit]:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def _text(content: bytes) -> tuple[str, str]:
    try:
        return content.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(content).decode(), "base64"
