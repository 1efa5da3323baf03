"""`python -m chaos minutes=3 seed=7`: one run; ends with 1 if anything was found."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from chaos.plan import Plan
from chaos.run import RESULTS, run


def main(arguments: list[str]) -> int:
    """Run as the arguments say: `minutes`, `seed`, `without` (comma separated)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it has started is ended too
    given = dict(one.split("=", 1) for one in arguments if "=" in one)
    wrong = given.keys() - {"minutes", "seed", "without"}
    if wrong or len(given) != len(arguments):
        print("usage: make chaos [minutes=3] [seed=7] [without=poison,swaps]")
        return 2
    seed = int(given.get("seed", "7"))
    plan = Plan(
        directory=(RESULTS / f"chaos-{seed}").absolute(),
        seed=seed,
        minutes=float(given.get("minutes", "3")),
        without=frozenset(filter(None, given.get("without", "").split(","))),
    )
    return 1 if run(plan).problems else 0


if __name__ == "__main__":
    Path(RESULTS).mkdir(exist_ok=True)
    sys.exit(main(sys.argv[1:]))
