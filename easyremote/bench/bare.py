"""A model by itself, without Kafka: what its best batches and its single items take, in a process of its own.

    python -m easyremote.bench.bare sentiment

answers each line `BATCH SECONDS` on its input, after that time, with a line of JSON: `rate` (items/s in batches of that
size) and `median_ms` (of one batch). As many loops run at once as a node runs passes of the model: `OMP_NUM_THREADS`
of all cores makes it one. Preprocessing and results belong to it; the inputs are those that the calls bring.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, get_args

import numpy as np

from easyremote.inference.models import models_of
from easyremote.settings import Backend, Settings

__all__ = ["KINDS", "NODE_TYPES", "BareModel", "Kind", "inputs", "main"]

Kind = Literal["sentiment", "image"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NODE_TYPES: dict[Kind, Literal["nlp", "vision"]] = {"sentiment": "nlp", "image": "vision"}

_WORDS = (  # noqa: SIM905  # sixty words in quotation marks read worse
    "the a my your this that very so really not never love hate like want need think know see good bad great awful "
    "day night morning meeting work school music game phone movie coffee rain sun friend team today tomorrow again "
    "just now because when with without about before after happy sad tired excited waiting working watching and but"
).split()


def inputs(kind: Kind, count: int = 256) -> list[str]:
    """Return what callers send, the same in each run: sentences of 4 to 24 words, or photographs in base64."""
    order = random.Random(1)  # noqa: S311  # the same in each run
    if kind == "sentiment":
        return [" ".join(order.choices(_WORDS, k=order.randint(4, 24))) for _ in range(count)]
    photographs = [_photograph(number) for number in range(8)]
    return [photographs[number % len(photographs)] for number in range(count)]


def _photograph(number: int) -> str:
    # Of the size and the weight of a usual one, 500 x 375 pixels and about 50 kB: shades with a grain.
    from PIL import Image

    grain = np.random.default_rng(number).normal(0, 14, (375, 500, 3))
    down, across = np.mgrid[0:375, 0:500]
    shades = np.stack([down / 375 * 200, across / 500 * 200, 100 + 80 * np.sin((down + across) / (30 + number))], 2)
    out = io.BytesIO()
    Image.fromarray(np.clip(shades + grain, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=80)
    return base64.b64encode(out.getvalue()).decode()


class BareModel:
    """The program, from outside; `backend` is the settings' if unset, and so are the threads of a pass."""

    def __init__(self, kind: Kind, backend: Backend | None = None, threads: int | None = None) -> None:
        chosen: dict[str, str] = {"EASYREMOTE_BACKEND": backend} if backend is not None else {}
        if threads is not None:
            chosen["OMP_NUM_THREADS"] = str(threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "easyremote.bench.bare", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"EASYREMOTE_LOG_LEVEL": "WARNING"} | chosen,
        )

    def run(self, batch: int, seconds: float) -> tuple[float, float]:
        """Return items/s in batches of that size, and the median of one batch, ms."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(batch, seconds, file=self._process.stdin, flush=True)
        # Libraries print as well.
        line = next(line for line in self._process.stdout if line.startswith("{"))
        found = json.loads(line)
        return found["rate"], found["median_ms"]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def main(kind: Kind) -> None:
    """Measure what is asked for, until there is no more."""
    (model,) = models_of(Settings(node_type=NODE_TYPES[kind]))
    given = inputs(kind)
    loading, running = ThreadPoolExecutor(1), ThreadPoolExecutor(model.instances)
    loading.submit(model.predict, given[0]).result()
    for line in sys.stdin:
        batch, seconds = line.split()
        # Loaded on one thread and run on others, as on a node: OpenMP's threads then wait for each other without
        # burning a core, and on one that is wanted elsewhere that is ten times as fast.
        loops = [
            running.submit(_times, model.predict_each, given, int(batch), float(seconds))
            for _ in range(model.instances)
        ]
        found = [loop.result() for loop in loops]
        rate = sum(int(batch) * len(times) / sum(times) for times in found)
        median_s = statistics.median(time for times in found for time in times)
        print(json.dumps({"rate": rate, "median_ms": median_s * 1000}), flush=True)


def _times(run: Callable[[Sequence[str]], object], given: Sequence[str], batch: int, seconds: float) -> list[float]:
    times: list[float] = []
    place = 0
    ends = time.perf_counter() + seconds
    while not times or time.perf_counter() < ends:
        some = [given[(place + number) % len(given)] for number in range(batch)]
        place += batch
        started = time.perf_counter()
        run(some)
        times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    main(KINDS[KINDS.index(sys.argv[1])])
