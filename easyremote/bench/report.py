"""What a measurement prints and writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from easyremote.deploy.broker import EmbeddedBroker
from easyremote.deploy.jars import KAFKA_VERSION
from easyremote.settings import Settings, load_settings

__all__ = ["Report", "measured_kafka", "progress", "step"]

console = Console(stderr=True)


@dataclass
class Report:
    """Figures of one run, and the ratios between them."""

    results: list[tuple[str, float, str]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: float, unit: str) -> None:
        """Add a figure."""
        self.results.append((name, value, unit))

    def value(self, name: str) -> float:
        """Return a figure by its name."""
        return next(value for known, value, _ in self.results if known == name)

    def finish(self, json_file: Path | None) -> None:
        """Print the table, and write it as JSON where that is wanted."""
        out = Console()
        table = Table("measured", "value", "unit")
        for name, value, unit in self.results:
            table.add_row(name, f"{value:,.2f}" if value < 1_000 else f"{value:,.0f}", unit)
        out.print(table)
        ratios = Table("ratio", "value")
        for name, value in self.ratios.items():
            ratios.add_row(name, f"{value:.2f}")
        out.print(ratios)
        if json_file is not None:
            results = [{"name": name, "value": value, "unit": unit} for name, value, unit in self.results]
            json_file.write_text(json.dumps({"results": results, "ratios": self.ratios}, indent=2) + "\n")


@contextmanager
def measured_kafka(namespace: str) -> Iterator[Settings]:
    """Yield the settings of a Kafka to measure on: the configured one, or an embedded one that is new and then gone."""
    given = load_settings()
    if given.kafka:
        yield given.model_copy(update={"namespace": namespace})
        return
    home = given.data_dir / "bench"
    broker = EmbeddedBroker(home, jars_dir=given.data_dir / "kafka" / KAFKA_VERSION)
    with step("starting Apache Kafka"):
        broker.reset()
        state = broker.start()
    try:
        yield given.model_copy(
            update={"kafka": state.bootstrap_servers, "namespace": namespace, "data_dir": home, "node_id": "bench"}
        )
    finally:
        broker.reset()


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how far something is; call what is yielded after each of `total` parts."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(what, total=total)
        yield lambda: shown.advance(task)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show what is going on."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield
