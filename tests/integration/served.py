"""Functions that the worker of the integration tests serves."""

import easyremote


@easyremote.function
def echo(text: str) -> str:
    return text


@easyremote.function
async def shout(text: str) -> str:
    return text.upper()


@easyremote.function
def fail(text: str) -> str:
    raise LookupError(text)
