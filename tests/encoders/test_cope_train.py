"""Preset `cope` in miniature: it learns, goes on exactly after a kill, and stops by name when the loss is no number."""

import json
import math
import multiprocessing
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from encoders.board import Board
from encoders.cli import main as encoders_main
from encoders.cope import evaluate, task
from encoders.cope.backbone import build_towers
from encoders.cope.command import main
from encoders.cope.config import CODE, INTENT, CopeConfig, CopeOptimiser, look_of, quirks_of, read_cope_config
from encoders.cope.draws import product_draws
from encoders.cope.loading import StepDataset
from encoders.cope.optimiser import Learner, rate
from encoders.cope.rope import read_rope
from encoders.cope.shards import read_shards
from encoders.cope.task import CopeTask
from encoders.cope.train import train
from encoders.directions import DIRECTIONS, directions, directions_table
from encoders.errors import ConfigRefused, DataRefused, TrainingStopped, WeightsRefused
from encoders.measure import Labelled
from tests.encoders.miniature import SIDE, colour_means, write_rope

STEPS = 4


def silent(what: str, done: int, total: int, figures: dict[str, float]) -> None:
    """A report that nobody reads."""


def tiny(**changes: Any) -> CopeConfig:
    """Seconds instead of weeks. `changes` are dictionaries by section, or values."""
    told: dict[str, Any] = {
        "dim": 16, "precision": "fp32", "checkpoint_every": 2, "tensorboard": False,
        "visual": {
            "width": 16, "layers": 2, "heads": 2, "hidden": 24, "patch": 8, "pixels": SIDE, "frames": 4, "out": 12,
            "integration_heads": 2, "integration_hidden": 20,
        },
        "text": {"width": 16, "heads": 2, "hidden": 24, "layers": 1, "vocabulary": 50, "longest": 8},
        "data": {"workers": 0, "bad_rows": 0.05},
        "batch": {"products": 6},
        "optimiser": {"steps": STEPS, "rise": 1, "visual_rate": 2e-3, "text_rate": 2e-3, "head_rate": 2e-2},
    }  # fmt: skip
    for name, change in changes.items():
        told[name] = told.get(name, {}) | change if isinstance(change, dict) else change
    return msgspec.convert(told, CopeConfig)


@pytest.fixture(scope="module")
def rope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rope(tmp_path_factory.mktemp("rope"))


def losses(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "losses.jsonl").read_text("utf-8").splitlines()]


def test_one_command_trains_and_evaluates(rope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "tiny.json", tmp_path / "run"
    path.write_bytes(msgspec.json.encode(tiny(optimiser={"steps": 12, "ema": 0.5})))

    assert 0 == encoders_main(["train", "--quiet", "--config", str(path), "--data", str(rope), "--out", str(out)])
    found = losses(out)
    assert list(range(12)) == [row["step"] for row in found]
    assert found[-1]["loss"] < found[0]["loss"]

    shown = ["evaluate", "--quiet", "--run", str(out), "--data", str(rope), "--split", "training"]
    assert 2 == main(shown)
    assert "6 products were trained on too, such as product0" in capsys.readouterr().err
    assert 0 == main(
        [*shown, "--trained", "--json", str(tmp_path / "figures.json"), "--plots", str(tmp_path / "plots")]
    )
    assert (tmp_path / "plots" / "directions.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["mean R@1"] > 1 / 6
    assert (6, {"missing picture": 1, "no picture": 1}) == (told["trained products"], told["bad rows"])
    bad = [json.loads(line) for line in (out / "bad_rows.jsonl").read_text("utf-8").splitlines()]
    assert {"missing picture", "no picture"} == {row["fault"] for row in bad}
    assert all(row["row"].startswith("training_page_images.txt:") or row["row"] == "page tr22" for row in bad)
    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    assert set(DIRECTIONS) == set(figures["directions"])
    assert {"retrieval", "off_shelf"} <= set(figures["live to pages"])


def test_clips_are_ranked_among_pages_that_were_trained_on_and_others() -> None:
    products = np.array(["a", "b", "c", "d"])
    pages = Labelled(np.eye(4, dtype=np.float32), products)
    clips = Labelled(np.eye(4, dtype=np.float32)[[0, 1, 2, 1, 0]], np.array(["a", "b", "c", "d", "gone"]))
    figures = evaluate.to_pages({"P": pages, "L": clips}, frozenset({"a", "b"}))
    table = evaluate.to_pages_table(figures)

    assert (0.75, 0.5, 1.0) == (
        figures["retrieval"]["R@1"], figures["mixed"]["new R@1"], figures["mixed"]["trained R@1"]
    )  # fmt: skip
    assert (4, True) == (figures["products"], "mixed: harmonic" in table)
    assert "unseen" not in evaluate.to_pages({"P": pages, "L": clips}, frozenset(products))
    with pytest.raises(DataRefused, match="no clip is of a product that has a page"):
        evaluate.to_pages({"P": pages, "L": clips.of(np.array(["gone"]))}, frozenset())


def test_clips_of_one_product_leave_nothing_to_tell_apart_and_no_figure_that_is_none() -> None:
    products = np.array(["a", "b"])
    pages = Labelled(np.eye(2, dtype=np.float32), products)
    figures = evaluate.to_pages({"P": pages, "L": pages.of(products[:1])}, frozenset())

    assert 1.0 == figures["retrieval"]["R@1"]
    assert "off_shelf" not in figures
    assert json.dumps(figures, allow_nan=False)  # NaN is not JSON
    assert "off_shelf" not in evaluate.to_pages_table(figures)


def test_of_many_products_a_fixed_draw_is_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MOST_PRODUCTS", 3)
    every = Labelled(np.eye(8, dtype=np.float32), np.array([f"p{i}" for i in range(8)]))
    told = [evaluate.to_pages({"P": every, "L": every}, frozenset()) for _ in range(2)]

    assert told[0] == told[1]
    assert 3 == told[0]["products"]


def test_a_run_that_was_cut_short_goes_on_exactly(rope: Path, tmp_path: Path) -> None:
    config = tiny(loss={"learnable": True, "multi_positive": 0.3, "auxiliary": 0.2})
    train(config, rope, tmp_path / "whole", report=silent)
    train(config, rope, tmp_path / "cut", steps=2, report=silent)
    (tmp_path / "cut" / "checkpoints" / "00000004.part").mkdir()  # killed while it wrote the next one
    train(config, rope, tmp_path / "cut", report=silent)

    for whole, cut in zip(losses(tmp_path / "whole"), losses(tmp_path / "cut"), strict=True):
        assert whole == pytest.approx(cut, abs=1e-6)
    assert ["00000004"] == [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()]


class Killed(BaseException):
    """Stands for SIGKILL: nothing that follows is done."""


def test_a_run_that_was_killed_writes_each_step_once(rope: Path, tmp_path: Path) -> None:
    """Killed after a step that no checkpoint has, and while it wrote a line."""

    def kill(what: str, done: int, total: int, figures: dict[str, float]) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        train(tiny(), rope, tmp_path, report=kill)
    with (tmp_path / "losses.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "lo')
    (tmp_path / "unreadable.jsonl").write_text(
        '{"step": 1, "pictures": ["a"]}\n{"step": 2, "pictures": ["b"]}\n', "utf-8"
    )
    train(tiny(), rope, tmp_path, report=silent)

    assert list(range(STEPS)) == [row["step"] for row in losses(tmp_path)]
    assert '{"step": 1, "pictures": ["a"]}\n' == (tmp_path / "unreadable.jsonl").read_text("utf-8")


def test_a_run_that_goes_on_shows_every_step_once_in_tensorboard(tmp_path: Path) -> None:
    for first, last in ((0, 5), (3, 6)):  # the first run got two steps further than its checkpoint
        board = Board(tmp_path, first=first)
        for step in range(first, last):
            board.write(step, {"loss": float(first)})
        board.close()
        ended = int(time.time())  # files are read by the second in their names, as two runs have different ones
        while int(time.time()) == ended:
            time.sleep(0.01)

    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(0, 0.0), (1, 0.0), (2, 0.0), (3, 3.0), (4, 3.0), (5, 3.0)] == [(one.step, one.value) for one in shown]


def test_parts_have_the_gradient_of_the_whole_batch(rope: Path) -> None:
    gradients = []
    for parts in (1, 3):
        config = tiny(batch={"accumulate": parts}, text={"dropout": 0.0}, loss={"auxiliary": 0.2, "learnable": True})
        samples = read_rope(rope)
        towers, backbone = build_towers(config)
        made = CopeTask(config, towers, 6, torch.device("cpu"))
        draws = product_draws(samples, count=6, seed=0)
        data = StepDataset(draws, backbone.look, backbone.tokenise, frames=4, parts=parts, seed=0)
        made.gradients(data[0].parts, 0)
        trained = [*towers.parameters(), made.classifier.weight, *made.temperature.parameters()]
        gradients.append(torch.cat([p.grad.flatten() for p in trained if p.grad is not None]))

    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(
    rope: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = torch.tensor(math.nan)
    monkeypatch.setattr(task, "cross_domain_contrast", lambda rows, **_: rows.page.sum() * broken)

    with pytest.raises(TrainingStopped) as stopped:
        train(tiny(), rope, tmp_path, report=silent)
    batch = json.loads(stopped.value.path.read_text("utf-8"))["batch"]
    assert {f"product{i}" for i in range(6)} == {row["product"] for row in batch}
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_of_another_config_or_a_pickle_is_refused(rope: Path, tmp_path: Path) -> None:
    train(tiny(), rope, tmp_path, steps=2, report=silent)
    with pytest.raises(WeightsRefused, match="of another config"):
        train(tiny(dim=8), rope, tmp_path, report=silent)

    (tmp_path / "checkpoints" / "00000002" / "towers.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(WeightsRefused, match="not a readable checkpoint"):
        train(tiny(), rope, tmp_path, report=silent)


ALONE = tiny(loss={"learnable": True}, text={"dropout": 0.0})  # which rank draws which dropout may differ


def one_of_two(place: int, folder: str, rope: str) -> None:
    os.environ.update(
        RANK=str(place), LOCAL_RANK=str(place), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=(Path(folder) / "port").read_text("utf-8"),
    )  # fmt: skip
    train(ALONE, Path(rope), Path(folder) / "two", report=silent)


def test_two_ranks_learn_what_one_does_and_one_takes_their_run_up(rope: Path, tmp_path: Path) -> None:
    """Started with the environment that torchrun gives."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]), "utf-8")
    train(ALONE, rope, tmp_path / "one", report=silent)  # also loads what the forked ranks need
    forked = multiprocessing.get_context("fork")
    ranks = [forked.Process(target=one_of_two, args=(place, str(tmp_path), str(rope))) for place in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [0, 0] == [process.exitcode for process in ranks]

    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    for alone, both in zip(one, two, strict=True):
        assert alone == pytest.approx(both, rel=1e-3)
    folder = tmp_path / "two" / "checkpoints" / f"{STEPS:08d}"
    assert {"towers.pt", "classifier-0.pt", "classifier-1.pt"} == {path.name for path in folder.iterdir()}
    train(ALONE, rope, tmp_path / "two", report=silent)
    assert STEPS == len(losses(tmp_path / "two"))


def test_half_precision_trains(rope: Path, tmp_path: Path) -> None:
    train(tiny(precision="bf16"), rope, tmp_path, steps=1, report=silent)

    assert math.isfinite(losses(tmp_path)[0]["loss"])


def test_precision_is_left_to_the_device_unless_it_is_told() -> None:
    device = torch.device("cpu")
    for precision, half in (("auto", task.multiplies_bf16(device)), ("bf16", True), ("fp32", False)):
        config = tiny(precision=precision)

        assert half == CopeTask(config, build_towers(config)[0], 6, device).half


def test_colours_alone_find_every_product(rope: Path) -> None:
    samples = read_rope(rope)
    vectors = {letter: Labelled(*colour_means(samples, domain)) for letter, domain in evaluate.LETTERS.items()}
    result = directions(vectors)

    assert 1.0 == result["mean R@1"] == result["mean one-shot"]
    assert "P2V" in directions_table(result)


def test_quirks_are_those_of_the_published_code() -> None:
    code, meant = CopeConfig(quirks="code"), CopeConfig()

    assert (CODE, INTENT) == (quirks_of(code), quirks_of(meant))
    assert (4, 1 / 16) == (quirks_of(code).integration_layers, quirks_of(code).contrast)
    assert not look_of(code, 224).crops
    told = msgspec.convert(
        {"quirks": "code", "loss": {"contrast": 1.0}, "visual": {"integration_layers": 1}}, CopeConfig
    )
    assert (1, 1.0) == (quirks_of(told).integration_layers, quirks_of(told).contrast)


def test_weight_decay_is_what_was_meant_unless_the_code_is_followed_or_it_is_told() -> None:
    told = CopeConfig(quirks="code", optimiser=msgspec.convert({"weight_decay": 0.0}, CopeOptimiser))

    assert [5e-4, 0.01, 0.0] == [quirks_of(one).weight_decay for one in (CopeConfig(), CopeConfig(quirks="code"), told)]


def test_a_learnt_temperature_is_not_decayed_and_comes_back_from_its_bounds() -> None:
    config = tiny(loss={"learnable": True}, optimiser={"weight_decay": 0.5})
    made = CopeTask(config, build_towers(config)[0], 6, torch.device("cpu"))
    learner, scale = Learner(config, made), made.temperature.logarithm
    start = scale.detach().clone()
    scale.grad = torch.zeros_like(scale)
    learner.step(made, 1)
    assert torch.equal(start, scale)

    with torch.no_grad():
        scale.fill_(-100.0)
    learner.step(made, 1)
    torch.autograd.backward(made.temperature())
    assert float(scale.grad) > 0


def test_shards_hold_as_many_frames_as_the_config_looks_at_and_name_what_cannot_be_read(
    rope: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(rope, tmp_path / "rope")
    (tmp_path / "rope" / "images" / "training-l00-3.jpg").write_bytes(b"no picture")
    path = tmp_path / "tiny.json"
    path.write_bytes(msgspec.json.encode(tiny(visual={"frames": 10})))
    data = ["--config", str(path), "--data", str(tmp_path / "rope")]

    assert 0 == main(["shards", *data, "--out", str(tmp_path / "shards")])
    told = capsys.readouterr()
    assert 1 == json.loads(told.out)["unreadable pictures"]
    assert "training-l00-3.jpg: cannot be read" in told.err
    counts = {one.sample_id: len(one.pictures) for one in read_shards(tmp_path / "shards").of("live")}
    assert (9, 10) == (counts["tr00"], counts["tr01"])


def test_the_rate_falls_to_nothing_and_stays_there_unless_the_code_is_followed() -> None:
    meant, code = CopeConfig(), CopeConfig(quirks="code")

    assert (0.001, 1.0, 0.0, 0.0) == pytest.approx([rate(meant, step) for step in (0, 1000, 50_000, 80_000)])
    assert rate(code, 80_000) > 0.5
    assert rate(code, 1010) == rate(code, 1019)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"loss": {"temprature": 1}}', "temprature"),
        ('{"batch": {"products": 1}}', r"batch\.products"),
        ('{"preset": "clip"}', r"clip\.weights"),
        ('{"batch": {"products": 9, "accumulate": 2}}', r"batch\.products"),
        ("[", "a.json"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "a.json").write_text(content, "utf-8")

    with pytest.raises(ConfigRefused, match=named):
        read_cope_config(tmp_path / "a.json")


def test_wrong_use_is_told_by_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(tiny()))
    shown = ["train", "--quiet", "--config", str(tmp_path / "a.json"), "--data", str(tmp_path), "--out", str(tmp_path)]

    assert 2 == main(shown)
    assert "images: no such folder" in capsys.readouterr().err
    with pytest.raises(DataRefused):
        train(tiny(), tmp_path, tmp_path / "run", report=silent)


def test_a_step_tells_its_time_and_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(tiny(batch={"accumulate": 2})))

    assert 0 == main(["step", "--config", str(tmp_path / "a.json"), "--products", "4", "--classes", "50"])
    told = json.loads(capsys.readouterr().out)
    assert told["moved"]
    assert told["step_cpu_s"] > 0
    assert "fp32" == told["precision"]
    assert told["peak_gib"] > 0
