"""The function that the measurement calls."""

from easyremote.inference.functions import function


@function
def echo(text: str) -> str:
    """Return the text."""
    return text
