"""A model of one's own: how easy a text reads, by Flesch's formula (100: very easy, 0: very hard).

EASYREMOTE_MODELS=01_own_model:ReadingEase PYTHONPATH=examples faust -A easyremote worker
easyremote call reading_ease "The cat sat on the mat."
"""

import re
from collections.abc import Sequence

from easyremote import BaseAIModel, InvalidInput


class ReadingEase(BaseAIModel):
    name = "flesch"
    function = "reading_ease"

    def load_model(self) -> re.Pattern[str]:
        return re.compile(r"(?P<syllable>[aeiouy]+)|(?P<word>\s+)|(?P<sentence>[.!?]+)", re.IGNORECASE)

    def preprocess(self, input: object) -> str:
        if not isinstance(input, str) or not input.strip():
            raise InvalidInput(f"{self.name} takes a text of one word or more, not {input!r}")
        return input.strip()

    def inference(self, batch: Sequence[str]) -> list[list[str | None]]:
        return [[found.lastgroup for found in self.model.finditer(text)] for text in batch]

    def postprocess(self, output: list[str | None]) -> tuple[float, float]:
        words, sentences = 1 + output.count("word"), max(1, output.count("sentence"))
        return round(206.835 - 1.015 * words / sentences - 84.6 * output.count("syllable") / words, 1), 1.0
