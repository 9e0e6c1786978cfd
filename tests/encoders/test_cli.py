"""The commands: exit codes, and the JSON on the last line."""

import json
from pathlib import Path

import msgspec
import pytest

from encoders.cli import main
from encoders.config import TrainingConfig


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return found


@pytest.mark.slow  # miniature training by the real command
def test_train_then_evaluate(
    tiny: TrainingConfig, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.json"
    config.write_bytes(msgspec.json.encode(tiny))
    out = tmp_path / "run"

    train = ["train", "--config", str(config), "--data", str(shop), "--out", str(out), "--max-steps", "2", "--quiet"]
    assert 0 == main([*train, "--release", "mini"])
    digest = last_line(capsys)["digest"]
    figures = tmp_path / "figures.json"
    evaluate = ["evaluate", "--release", str(out / "release"), "--data", str(shop), "--quiet", "--json", str(figures)]
    assert 0 == main(evaluate)
    assert digest == last_line(capsys)["release"] == json.loads(figures.read_text("utf-8"))["release"]
    assert 1 == main([*evaluate, "--fail-under", "R@1=1.1"])
    assert 2 == main([*evaluate, "--fail-under", "R@1"])


def test_holdout_copies_photos(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "third.json"
    config.write_text('{"data": {"holdout": 0.34}}', "utf-8")

    assert 0 == main(["holdout", "--config", str(config), "--grocery", str(shop), "--out", str(tmp_path / "held")])
    assert 12 == last_line(capsys)["photos"]


def test_wrong_use_is_told_and_ends_with_2(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "wrong.json"
    config.write_text('{"dimm": 3}', "utf-8")

    assert 2 == main(["train", "--config", str(config), "--data", str(shop), "--out", str(tmp_path / "out")])
    assert "dimm" in capsys.readouterr().err
    assert 2 == main(["export", "--run", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "warm.safetensors: is missing" in capsys.readouterr().err
    assert 2 == main([])


def test_products_without_a_page_are_refused_by_name(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "unseen.txt"
    wrong = ["train", "--data", str(shop), "--out", str(tmp_path / "out"), "--unseen", str(listed)]

    for content, named in ((None, "No such file"), ("grocery-999", "no page of grocery-999"), ("", "names no product")):
        if content is not None:
            listed.write_text(content, "utf-8")
        assert 2 == main(wrong)
        assert f"unseen.txt: {named}" in capsys.readouterr().err


def test_torchrun_is_refused_for_lite(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")

    assert 2 == main(["train", "--data", str(shop), "--out", str(tmp_path / "out")])
    assert "trains in one process" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "verb", ["train", "adapt", "evaluate", "folds", "card", "speed", "calibrate", "export", "hint", "holdout"]
)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])

    assert 0 == ended.value.code
    assert f"example: python -m encoders {verb}" in " ".join(capsys.readouterr().out.split())
