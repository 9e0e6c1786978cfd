from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamproc.core.catalog import Shelf
from streamproc.core.embedding import ClipEmbedding, PageEmbedding
from streamproc.core.judgement import Judgement
from streamproc.core.rule import MentionRule
from streamproc.jobs.fit_rule import fit_threshold, main, search
from streamproc.jobs.mention_score import TruthRow
from tests.builders import STREAM, clips, embedding_of, row_of, shown, vector_of

RANDOM = np.random.default_rng(7)
MUG, POT = vector_of(*RANDOM.standard_normal(16)), vector_of(*RANDOM.standard_normal(16))


def write(path: Path, rows: list[ClipEmbedding] | list[PageEmbedding] | list[Shelf] | list[TruthRow]) -> str:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return str(path)


def stream(folder: Path) -> list[str]:
    """The mug for ten seconds, nothing, the mug spoken of; twice. The arguments that name the files."""
    clips, truth = [], []
    for name in (STREAM, "room-8"):
        for i in range(20):
            frame = MUG if i < 5 else vector_of(*RANDOM.standard_normal(16))
            clips.append(
                embedding_of(i, frame, frame, stream=name, spoken=[("here is the mug", POT)] if i in (11, 13) else ())
            )
        truth += [
            TruthRow(
                stream_id=name, product_id="mug", start_ms=0, end_ms=10_000, shown=True, spoken=False, on_shelf=True
            ),
            TruthRow(
                stream_id=name,
                product_id="mug",
                start_ms=20_000,
                end_ms=26_000,
                shown=False,
                spoken=True,
                on_shelf=True,
                spoken_spans_ms=((20_000, 22_000), (24_000, 26_000)),
            ),
            TruthRow(
                stream_id=name,
                product_id=None,
                start_ms=26_000,
                end_ms=40_000,
                shown=False,
                spoken=False,
                on_shelf=False,
            ),
        ]
    rows = [
        row_of("mug", MUG),
        row_of("mug", vector_of(*RANDOM.standard_normal(16)), part="text"),
        row_of("pot", POT),
        row_of("pan", vector_of(*RANDOM.standard_normal(16))),
    ]
    shelves = [Shelf(stream_id=name, version=1, product_ids=("mug", "pot")) for name in (STREAM, "room-8")]
    return [
        "--clips", write(folder / "clips.jsonl", clips), "--rows", write(folder / "rows.jsonl", rows),
        "--shelves", write(folder / "shelves.jsonl", shelves), "--truth", write(folder / "truth.jsonl", truth),
    ]  # fmt: skip


def test_an_easy_stream_is_fitted_to_the_full_score_and_again_to_the_same(tmp_path: Path) -> None:
    files = stream(tmp_path)
    outs = [tmp_path / "one.json", tmp_path / "two.json"]
    for out in outs:
        assert 0 == main([*files, "--rounds", "30", "--seed", "3", "--hold-out", "2", "--out", str(out)])

    assert outs[0].read_bytes() == outs[1].read_bytes()
    fitted = msgspec.json.decode(outs[0].read_bytes(), type=Judgement)
    assert fitted.calibration.spoken.naming_weight > 0.0


def test_nothing_is_searched_with_no_rounds_and_settings_count(tmp_path: Path) -> None:
    out, mentions = tmp_path / "out.json", tmp_path / "mentions.jsonl"
    settings = ["--set", "rule.close_after_ms=7000", "--set", "seen.temperature=0.04"]
    main([*stream(tmp_path), "--rounds", "0", "--keep-calibration", *settings, "--out", str(out),
          "--mentions", str(mentions)])  # fmt: skip
    fitted = msgspec.json.decode(out.read_bytes(), type=Judgement)

    assert MentionRule(close_after_ms=7_000) == fitted.mention_rule
    assert 0.04 == fitted.calibration.seen.temperature
    assert {"started", "ended"} <= {msgspec.json.decode(line)["status"] for line in mentions.read_bytes().splitlines()}


def test_the_search_finds_a_better_rule_and_repeats_itself() -> None:
    def nearness(rule: MentionRule) -> float:
        return -abs(rule.close_after_ms - 9_000) / 1_000 - abs(rule.open_probability - 0.8)

    first = search(MentionRule(), nearness, rounds=200, seed=1)

    assert first == search(MentionRule(), nearness, rounds=200, seed=1)
    assert first[1] > nearness(MentionRule()) / 4


def test_without_shelves_the_truth_counts_the_whole_catalogue_and_the_start_is_the_releases_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = stream(tmp_path)
    at = files.index("--shelves")
    truth = Path(files[files.index("--truth") + 1])
    rows = [msgspec.json.decode(line) for line in truth.read_bytes().splitlines()]
    truth.write_bytes(b"".join(msgspec.json.encode(row | {"on_shelf": False}) + b"\n" for row in rows))
    start, out = tmp_path / "release.json", tmp_path / "out.json"
    own = {"calibration": {"threshold": 0.45}, "mention_rule": {"close_after_ms": 7_000}}
    start.write_bytes(msgspec.json.encode({"calibration": {}, "mention_rule": {}, "without_shelf": own}))

    main(
        [*files[:at], *files[at + 2 :], "--start", str(start), "--rounds", "0", "--keep-calibration", "--out", str(out)]
    )

    assert 4 == msgspec.json.decode(capsys.readouterr().out)["fitted"]["true_spans"]
    fitted = msgspec.json.decode(out.read_bytes(), type=Judgement)
    assert (0.45, 7_000) == (fitted.calibration.threshold, fitted.mention_rule.close_after_ms)


def test_the_threshold_stays_where_others_do_no_better() -> None:
    records = [clips(*[shown("mug", 0.9)] * 10)]
    truth = [
        TruthRow(stream_id=STREAM, product_id="mug", start_ms=0, end_ms=20_000, shown=True, spoken=False, on_shelf=True)
    ]

    assert 0.37 == fit_threshold(records, truth, MentionRule(), 0.37)
    assert 0.95 > fit_threshold(records, truth, MentionRule(), 0.95)  # with 0.95 nothing would be found
