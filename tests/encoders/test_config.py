"""Configs are read whole or refused by name."""

from pathlib import Path

import pytest

from encoders.config import TrainingConfig, preset, read_config
from encoders.errors import ConfigRefused


def test_the_shipped_preset_reads() -> None:
    assert "lite" == preset("lite").name


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"dim": 128, "loss": {"prefixes": [64]}}', "utf-8")
    (tmp_path / "a.toml").write_text("dim = 128\n[loss]\nprefixes = [64]\n", "utf-8")

    assert read_config(tmp_path / "a.json") == read_config(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"optimiser": {"stepz": 3}}', "stepz"),
        ('{"optimiser": {"steps": 0}}', "optimiser.steps"),
        ('{"data": {"holdout": 1.5}}', "data.holdout"),
        ('{"vision": {"square": [200, 200]}}', "vision.square"),
        ('{"dim": 64}', "loss.prefixes"),
        ('{"batch": {"products": 1}}', "batch.products"),
        ("{", "a.json"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "a.json").write_text(content, "utf-8")

    with pytest.raises(ConfigRefused, match=named.replace(".", r"\.")):
        read_config(tmp_path / "a.json")


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigRefused, match=r"b\.json"):
        read_config(tmp_path / "b.json")


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigRefused, match="heavy"):
        preset("heavy")


def test_configs_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        TrainingConfig().dim = 3  # type: ignore[misc]
