import importlib
from pathlib import Path

import pytest
from easyremote import errors, settings
from easyremote.errors import ConfigError, EasyRemoteError
from easyremote.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _fresh() -> None:
    load_settings.cache_clear()


def test_lists_are_read_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EASYREMOTE_ROLES", "router, streams")
    monkeypatch.setenv("EASYREMOTE_MODELS", "")
    assert load_settings().roles == ("router", "streams")
    assert load_settings().models == ()


@pytest.mark.parametrize(
    ("name", "value"), [("ROLES", "cook"), ("WINDOW_S", "0"), ("NAMESPACE", "a b"), ("NODE_TYPE", "big")]
)
def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"EASYREMOTE_{name}", value)
    with pytest.raises(ConfigError, match=f"EASYREMOTE_{name}"):
        load_settings()


def test_no_kafka_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="easyremote broker start"):
        Settings(data_dir=tmp_path).bootstrap_servers()


def test_every_setting_is_in_the_operators_page() -> None:
    page = (Path(settings.__file__).parents[1] / "docs" / "settings.md").read_text()
    missing = [name for name in Settings.model_fields if f"EASYREMOTE_{name.upper()}" not in page]
    assert not missing


def test_every_error_is_exported_and_of_one_tree() -> None:
    defined = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    assert defined == {name for name in errors.__all__ if name[0].isupper()}
    assert all(issubclass(getattr(errors, name), EasyRemoteError) for name in defined)


def test_the_public_names_are_there() -> None:
    package = importlib.import_module("easyremote")
    for name in package.__all__:
        if name != "app":  # the app needs a Kafka
            assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        package.nothing  # noqa: B018  # the access is the point
