"""Call a function, and follow what comes on a topic."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from easyremote.cli.told import say, told
from easyremote.terminal import json_line

__all__ = ["call", "tail"]


@told
def call(
    function: Annotated[str, typer.Argument(help="Name of the function.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="Each as JSON, else taken as text; @FILE sends the file's bytes as base64."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0.001)] = 30.0,
    target: Annotated[str | None, typer.Option(help="This node and no other.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print a generator's items, a line each, as made.")] = False,
) -> None:
    """Call a function and print its result as JSON."""
    from easyremote.inference.client import CallOptions, Client
    from easyremote.topics.replying import encode_reply

    values = [_argument(one) for one in arguments or []]
    with Client() as client:
        options = CallOptions(timeout_s=timeout, target=target)
        if not stream:
            say(encode_reply(client.call(function, *values, options=options)).decode())
            return
        with client.stream(function, *values, options=options) as items:
            for item in items:
                say(encode_reply(item).decode())


@told
def tail(
    topic: Annotated[str, typer.Argument(help="alerts, aggregates, requests.dlq, ...")],
    from_beginning: Annotated[bool, typer.Option(help="All that is there, not only what comes.")] = False,
    count: Annotated[int, typer.Option("-n", help="Stop after so many records; 0: never.", min=0)] = 0,
) -> None:
    """Print a topic's values, one line each, as they come; Ctrl+C ends it."""
    import queue

    from easyremote.settings import load_settings
    from easyremote.topics.follower import Follower

    settings = load_settings()
    arrived: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
    start = "beginning" if from_beginning else "end"
    follower = Follower(
        settings,
        settings.namespace + topic,
        lambda messages: arrived.put(list(messages)),
        start=start,  # type: ignore[arg-type]  # mypy widens the literal
    )
    say(f"following {settings.namespace + topic}", err=True)
    seen = 0
    try:
        while count == 0 or seen < count:
            for message in arrived.get():
                if count and seen >= count:
                    break
                say(json_line(message.value() or b"null"))
                seen += 1
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # the reader has seen enough
    finally:
        follower.close()


def _argument(text: str) -> Any:  # Any: whatever the JSON says
    if text.startswith("@"):
        try:
            return base64.b64encode(Path(text[1:]).read_bytes()).decode()
        except OSError as error:
            raise typer.BadParameter(f"{text}: {error.strerror}; write '\"{text}\"' for the text itself") from error
    try:
        return json.loads(text)
    except ValueError:
        return text
