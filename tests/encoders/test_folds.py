"""Folds: every photo is held out once, and a run that was cut short goes on."""

import json
from pathlib import Path

import msgspec
import pytest

from encoders.cli import main
from encoders.config import TrainingConfig
from encoders.errors import ReleaseRefused
from encoders.folds import summary, train_folds
from encoders.release import FIGURES
from tests.encoders.conftest import PHOTOS, silent


def test_the_mean_is_over_folds() -> None:
    told = summary([{"retrieval": {"R@1": value, "R@5": 1.0, "R@10": 1.0, "mAP": value}} for value in (0.5, 0.7)])

    assert pytest.approx({"R@1": 0.6, "R@5": 1.0, "R@10": 1.0, "mAP": 0.6}) == told["mean"]
    assert pytest.approx(0.1) == told["deviation"]["R@1"]


@pytest.mark.slow  # two miniature trainings by the real command
def test_folds_are_trained_measured_and_kept(
    tiny: TrainingConfig, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = tmp_path / "tiny.json", tmp_path / "folds"
    config.write_bytes(msgspec.json.encode(tiny))
    shown = ["folds", "--quiet", "--config", str(config), "--data", str(shop), "--out", str(out), "--count", "2"]

    assert 0 == main(shown)
    told = json.loads((out / "folds.json").read_text("utf-8"))
    assert [6 * PHOTOS // 2] * 2 == [one["photos"] for one in told["folds"]]
    (out / "1" / FIGURES).unlink()
    written = (out / "0/release/image.safetensors").stat().st_mtime_ns

    assert 0 == main(shown)
    assert told == json.loads((out / "folds.json").read_text("utf-8"))
    assert written == (out / "0/release/image.safetensors").stat().st_mtime_ns
    assert "mean" in capsys.readouterr().out
    with pytest.raises(ReleaseRefused, match="another config"):
        train_folds(msgspec.structs.replace(tiny, seed=1), shop, out, count=2, report=silent)
