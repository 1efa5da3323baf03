"""Who may write to `models` chooses among what the operator has put there, and runs nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from easyremote.errors import ConfigError
from easyremote.inference.models.catalog import orderable_classes
from easyremote.inference.models.sources import check_ordered_weights
from easyremote.inference.node import AINodeManager
from easyremote.inference.slots import Slot
from easyremote.inference.swapping import Swapper
from easyremote.settings import Settings
from easyremote.topics.limits import Unreadable, attempt
from easyremote.topics.model_control import ModelOrder, ModelSource, Orders, decode_order
from easyremote.topics.records import MOST_MODELS, decode_heartbeat, encode

MODULE = "raises_system_exit"


@pytest.fixture
def swapper(tmp_path: Path) -> Swapper:
    settings = Settings(data_dir=tmp_path, models=(), model_classes=(f"{MODULE}:Model", "versioned:Another"))
    service: Any = SimpleNamespace(executor=SimpleNamespace(add_model=lambda _: None, widen=lambda _: None))
    service.ledger = SimpleNamespace(read_to=dict)
    return Swapper(settings, AINodeManager("general"), service, lambda: None)


def _order(path: str, **more: Any) -> ModelOrder:
    source = ModelSource(version="1", path=path, **more)
    return ModelOrder(id=path, model="another", wanted=source)


def test_an_order_imports_no_module_that_the_settings_do_not_offer(swapper: Swapper) -> None:
    slot = Slot("another")
    assert "this" not in sys.modules
    swapper._obey(slot, _order("this:Zen"))
    assert "do not offer the class this:Zen" in (slot.state().reason or "")
    assert "this" not in sys.modules
    assert slot.is_settled("this:Zen")


def test_a_module_that_exits_fails_its_order_and_holds_up_no_other(
    swapper: Swapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{MODULE}.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    slot = Slot("another")
    swapper._obey(slot, _order(f"{MODULE}:Model"))
    assert (slot.state().state, slot.state().reason) == ("failed", "SystemExit: 3")
    swapper._obey(slot, _order("versioned:Another"))
    assert slot.state().state == "ready"


def test_what_the_settings_name_and_what_comes_along_may_be_ordered() -> None:
    settings = Settings(models=("a:B",), sentiment_model="c:D", image_model="/a/path", model_classes=("e:F",))
    found = orderable_classes(settings)
    assert found[:3] == ("a:B", "c:D", "e:F")
    assert "easyremote.inference.models.sentiment:BertSentimentModel" in found


@pytest.mark.parametrize(
    "weights",
    [
        "/etc/passwd",
        "models/../../elsewhere",
        "package:os/path.py",
        "package:easyremote/../os.py",
        "org/name",
        7,
        "link",
    ],
)
def test_an_order_takes_no_weights_from_elsewhere(weights: object, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "models").mkdir(parents=True)
    if weights == "link":
        link = tmp_path / "data" / "models" / "link"
        link.symlink_to("/etc")
        weights = str(link / "passwd")
    with pytest.raises(ConfigError, match="EASYREMOTE_WEIGHTS"):
        check_ordered_weights(weights, Settings(data_dir=tmp_path / "data"))


def test_weights_of_the_models_folder_and_of_what_the_settings_name_may_be_ordered(tmp_path: Path) -> None:
    check_ordered_weights(str(tmp_path / "models" / "mine.pt"), Settings(data_dir=tmp_path))
    check_ordered_weights("package:easyremote/inference/models/weights/sentiment.safetensors", Settings())
    mine = Settings(weights=(str(tmp_path / "mine"), "package:own"))
    check_ordered_weights(str(tmp_path / "mine" / "w.pt"), mine)
    check_ordered_weights("package:own/w.pt", mine)
    with pytest.raises(ConfigError):
        check_ordered_weights(str(tmp_path / "models" / "w.pt"), mine)


def test_orders_of_any_size_and_number_leave_a_heartbeat_that_can_be_read() -> None:
    large = ModelOrder(id="1", model="m" * 255, wanted=ModelSource(version="1", params={"x": "y" * 70_000}))
    assert isinstance(attempt(decode_order, encode(large)), Unreadable)
    orders, node = Orders(), AINodeManager("general")
    for number in range(3_000):
        one = ModelOrder(id=str(number), model=f"{number:0255}", wanted=ModelSource(version="v" * 255))
        orders.add(one.key, decode_order(encode(one)))
    held = orders.meant_for("n", None, None)
    assert len(held) == 1_000
    for name in held:
        slot = node.slot(name)
        slot.begin("v" * 255)
        slot.fail("x" * 100_000)
    states = node.model_states()
    assert len(states) == MOST_MODELS
    beat = {"node_id": "n", "sent_ms": 1, "roles": [], "ready": [], "models": states}
    assert decode_heartbeat(encode(beat)).models == states
