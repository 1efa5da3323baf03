"""Dead letters: `easyremote dlq ...`."""

from __future__ import annotations

import base64
import json
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from easyremote.cli.told import AsJson, told

if TYPE_CHECKING:
    from easyremote.topics.dead_letters import DeadLetters, Handled, Wanted
    from easyremote.topics.letters import DeadLetter

__all__ = ["app"]

app = typer.Typer(help="What was given up: look at it, send it back, drop it.", no_args_is_help=True)

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

Topic = Annotated[str, typer.Option(help="requests.dlq or readings.dlq.")]
Function = Annotated[str | None, typer.Option(help="Only calls of this function.")]
ErrorClass = Annotated[str | None, typer.Option("--error", help="Only errors of this class.")]
Older = Annotated[str | None, typer.Option(help="Only what was given up so long ago or longer: 90s, 10m, 2h, 7d.")]
Newer = Annotated[str | None, typer.Option(help="Only what was given up since: 90s, 10m, 2h, 7d.")]
Ids = Annotated[list[str] | None, typer.Argument(help="As 'dlq list' names them: PARTITION/OFFSET.")]
Everything = Annotated[bool, typer.Option("--all", help="All open ones that the other options leave.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
@told
def dlq_list(  # noqa: PLR0913, PLR0917  # each is an option
    topic: Topic = "requests.dlq",
    function: Function = None,
    error: ErrorClass = None,
    older_than: Older = None,
    newer_than: Newer = None,
    limit: Annotated[int, typer.Option(help="Most letters shown, the newest ones.", min=1)] = 50,
    before: Annotated[str | None, typer.Option(help="Only letters that stand before this one: the next page.")] = None,
    handled: Annotated[bool, typer.Option("--handled", help="Those dealt with too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the open dead letters, the newest last."""
    letters = _letters(topic)
    known = letters.handled()
    shown: deque[DeadLetter] = deque(maxlen=limit)
    count = 0
    for letter in letters.matching(_wanted(function, error, older_than, newer_than)):
        if letter.id == before:
            break
        if handled or letter.id not in known:
            shown.append(letter)
            count += 1
    if as_json:
        found = [_summary(letter, known.get(letter.id)) for letter in shown]
        typer.echo(json.dumps({"topic": topic, "matching": count, "letters": found}))
        return
    _print_table(list(shown), known)
    more = f"; older ones: --before {shown[0].id}" if count > len(shown) else ""
    typer.echo(f"{len(shown)} of {count}{more}", err=True)


@app.command("show")
@told
def dlq_show(
    letter_id: Annotated[str, typer.Argument(help="As 'dlq list' names it: PARTITION/OFFSET.")],
    topic: Topic = "requests.dlq",
    as_json: AsJson = False,
) -> None:
    """Show one whole: reason, headers, value, stack."""
    letters = _letters(topic)
    letter = letters.get(letter_id)
    summary = _summary(letter, letters.handled().get(letter.id))
    headers = {name: _text(content)[0] for name, content in letter.headers}
    value, encoding = _text(letter.value or b"")
    if as_json:
        whole = summary | {"headers": headers, "value": value, "value_encoding": encoding, "stack": letter.stack}
        typer.echo(json.dumps(whole))
        return
    for name, content in (summary | {f"header {name}": content for name, content in headers.items()}).items():
        if content is not None:
            typer.echo(f"{name}: {_plain(str(content))}")
    typer.echo(f"\n{_plain(value, lines=True)}")
    if letter.stack is not None:
        typer.echo(f"\n{_plain(letter.stack, lines=True)}")


@app.command("redrive")
@told
def dlq_redrive(  # noqa: PLR0913, PLR0917  # each is an option
    ids: Ids = None,
    everything: Everything = False,
    topic: Topic = "requests.dlq",
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
    done = _handle("redriven", _letters(topic), wanted, chosen, again=again, yes=yes)
    typer.echo(json.dumps({"redriven": done}) if as_json else f"{done} redriven")


@app.command("drop")
@told
def dlq_drop(  # noqa: PLR0913, PLR0917  # each is an option
    ids: Ids = None,
    everything: Everything = False,
    topic: Topic = "requests.dlq",
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
    done = _handle("dropped", _letters(topic), wanted, chosen, again=False, yes=yes)
    typer.echo(json.dumps({"dropped": done}) if as_json else f"{done} dropped")


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


def _summary(letter: DeadLetter, handled: Handled | None) -> dict[str, Any]:
    return {
        "id": letter.id,
        "failed_ms": letter.failed_ms,
        "function": letter.function,
        "call_id": letter.call_id,
        "error": letter.error,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "node_id": letter.node_id,
        "source": letter.source,
        "bytes": len(letter.value or b""),
        "handled": None if handled is None else handled.action,
    }


def _print_table(letters: list[DeadLetter], known: dict[str, Handled]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "age", "function", "error", "tries", "reason")
    now_ms = time.time_ns() // 1_000_000
    for letter in letters:
        mark = f" ({known[letter.id].action})" if letter.id in known else ""
        cells = (
            letter.id + mark,
            _age((now_ms - letter.failed_ms) / 1000),
            letter.function or "",
            letter.error or "",
            str(letter.attempts or ""),
            (letter.reason or "")[:200],
        )
        table.add_row(*(Text(_plain(cell)) for cell in cells))
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


def _plain(text: str, *, lines: bool = False) -> str:
    # Anyone can write a record: what would steer a terminal is shown, not sent to it.
    return "".join(one if one.isprintable() or (lines and one == "\n") else repr(one)[1:-1] for one in text)
