"""Readers take what is good, name what is bad, and refuse what is mostly bad; draws are balanced and repeatable."""

import gc
import importlib
from pathlib import Path

import numpy as np
import pytest

from encoders.cope.draws import product_draws
from encoders.cope.look import Look, seen, uniform
from encoders.cope.manifest import read_manifest
from encoders.cope.rope import read_rope
from encoders.cope.samples import Samples, refuse_shared_products
from encoders.cope.shards import read_shards, write_shards
from encoders.cope.titles import hashed_characters, word_pieces
from encoders.errors import DataRefused, WeightsRefused
from tests.encoders.miniature import EACH, FRAMES, SIDE, write_rope


@pytest.fixture(scope="module")
def rope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rope(tmp_path_factory.mktemp("rope"))


@pytest.fixture(scope="module")
def samples(rope: Path) -> Samples:
    return read_rope(rope)


def one(samples: Samples, domain: str, sample_id: str) -> tuple[int, str, str]:
    found = [s for s in samples.of(domain) if s.sample_id == sample_id]  # type: ignore[arg-type]
    return len(found[0].pictures), found[0].product_id, found[0].words


def test_every_sample_of_rope_is_read_under_its_product(samples: Samples) -> None:
    assert 6 == len(samples.products)
    assert (6 * EACH - 1, 6 * EACH, 6 * EACH) == tuple(len(samples.of(d)) for d in ("page", "video", "live"))
    assert (FRAMES, "product3", "look, this is nice, 好的") == one(samples, "video", "tr31")


def test_titles_keep_their_commas_and_may_be_missing(samples: Samples) -> None:
    assert (1, "product4", "Box 4, red, or not") == one(samples, "page", "tr40")
    assert (1, "product0", "") == one(samples, "page", "tr00")


def test_frames_are_in_order_of_time_although_rows_are_not(samples: Samples) -> None:
    for domain in ("video", "live"):
        for sample in samples.of(domain):
            frames = [int(place.path.stem.rsplit("-", 1)[1]) for place in sample.pictures]
            assert sorted(frames) == frames


def test_a_short_clip_repeats_its_frames() -> None:
    assert (0, 0, 0, 1, 1, 2, 2, 2) == uniform(3, 8)
    assert (0, 1, 3, 4, 5, 6, 8, 9) == uniform(10, 8)
    assert tuple(range(8)) == uniform(8, 8)


def test_a_missing_picture_is_counted_and_its_page_left_out(samples: Samples) -> None:
    assert {"missing picture": 1, "no picture": 1} == dict(samples.bad)
    (where, first), second = samples.bad_rows
    assert where.startswith("training_page_images.txt:")
    assert ("missing picture", ("page tr22", "no picture")) == (first, second)


def test_too_many_bad_rows_are_refused_by_name(rope: Path) -> None:
    with pytest.raises(DataRefused, match=r"2 of \d+ rows are bad.*training_page_images\.txt:\d+: missing picture"):
        read_rope(rope, limit=0.001)


def test_odd_rows_are_named(tmp_path: Path) -> None:
    write_rope(tmp_path, missing=False)
    pairs = tmp_path / "training_product_pages_pair.txt"
    pairs.write_text(pairs.read_text("utf-8") + "no comma here\nproduct5,tr00\n", "utf-8")
    frames = tmp_path / "training_video_frames.txt"
    frames.write_text(frames.read_text("utf-8") + "tr00,soon,a.jpg\nstranger,1,training-v00-1.jpg\n", "utf-8")

    found = read_rope(tmp_path)
    expected = {"not 2 fields": 1, "second product of a sample": 1, "time is no number": 1, "no product": 1}
    assert expected == dict(found.bad)
    assert "product0" == one(found, "page", "tr00")[1]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    write_rope(tmp_path)
    (tmp_path / "training_live_asrs.txt").unlink()

    with pytest.raises(DataRefused, match=r"training_live_asrs\.txt: No such file"):
        read_rope(tmp_path)


def test_products_in_both_splits_are_refused(samples: Samples, tmp_path: Path) -> None:
    other = read_rope(write_rope(tmp_path, split="test", name="other"), split="test")
    refuse_shared_products(samples.products, other.products, tmp_path)

    with pytest.raises(DataRefused, match="6 products were trained on too, such as product0"):
        refuse_shared_products(samples.products, samples.products, tmp_path)


def test_a_manifest_reads_like_rope_and_names_bad_lines(rope: Path, tmp_path: Path) -> None:
    for file in ("training-p00", "training-v00-0", "training-v00-1"):
        (tmp_path / f"{file}.jpg").write_bytes((rope / "images" / f"{file}.jpg").read_bytes())
    good = [
        '{"domain": "page", "id": "1", "product_id": "mug", "pictures": ["training-p00.jpg"], "words": "Mug"}',
        '{"domain": "video", "id": "1", "product_id": "mug", "pictures": ["training-v00-0.jpg", "training-v00-1.jpg"]}',
    ]
    bad = [
        '{"domain": "page", "id": "2", "product_id": "mug", "pictures": ["training-p00.jpg"], "titel": "Mug"}',
        good[0],
        '{"domain": "live", "id": "1", "product_id": "mug", "pictures": ["nowhere.jpg"]}',
        "not json",
    ]
    path = tmp_path / "samples.jsonl"
    path.write_text("\n".join(good + bad) + "\n", "utf-8")

    found = read_manifest(path, limit=0.7)
    assert (1, "mug", "Mug") == one(found, "page", "1")
    assert (2, "mug", "") == one(found, "video", "1")
    assert 4 == sum(found.bad.values())
    with pytest.raises(DataRefused, match=r"4 of 6 rows are bad.*samples\.jsonl:3: .*titel"):
        read_manifest(path)


def test_a_sample_of_a_manifest_that_lacks_a_picture_goes_on_without_it_and_is_named(
    tmp_path: Path, rope: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes((rope / "images" / "training-p00.jpg").read_bytes())
    path = tmp_path / "samples.jsonl"
    path.write_text('{"domain": "live", "id": "1", "product_id": "mug", "pictures": ["a.jpg", "b.jpg"]}\n', "utf-8")

    found = read_manifest(path, limit=1.0)
    assert (1, "mug", "") == one(found, "live", "1")
    assert (("samples.jsonl:1", "missing picture"),) == found.bad_rows
    with pytest.raises(DataRefused, match=r"samples\.jsonl:1: missing picture"):
        read_manifest(path)


def test_shards_hold_what_was_written(samples: Samples, tmp_path: Path) -> None:
    shards = write_shards(samples, tmp_path, bytes_each=60_000, side=None)
    found = read_shards(tmp_path)

    assert len(shards) > 1
    assert samples.products == found.products
    short, whole = one(found, "video", "tr11"), one(found, "live", "tr20")
    assert (3, 8) == (short[0], whole[0])
    page = found.of("page")[0]
    assert np.array_equal(samples.of("page")[0].pictures[0].picture(), page.pictures[0].picture())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_shards_are_webdataset(samples: Samples, tmp_path: Path) -> None:
    shards = write_shards(samples, tmp_path)
    webdataset = importlib.import_module("webdataset")
    entries = list(webdataset.WebDataset([str(path) for path in shards], shardshuffle=False))
    gc.collect()  # the library leaves its files to the garbage collector, which is not to complain in another test

    assert 53 == len(entries)
    assert {"json", "000.jpg"} <= set(entries[0])


def test_a_shard_cut_short_costs_its_last_sample_and_a_folder_without_any_is_refused(
    samples: Samples, tmp_path: Path
) -> None:
    with pytest.raises(DataRefused, match="holds no shards"):
        read_shards(tmp_path)
    (path,) = write_shards(samples, tmp_path)
    path.write_bytes(path.read_bytes()[:-12_000])

    with pytest.raises(DataRefused, match="unreadable"):
        read_shards(tmp_path, limit=0.0)
    assert 50 <= sum(len(read_shards(tmp_path, limit=0.1).of(d)) for d in ("page", "video", "live")) < 53


def test_an_epoch_passes_once_over_all_products(samples: Samples) -> None:
    draws = product_draws(samples, count=2, seed=0)

    for epoch in range(2):
        steps = [draws.draw(epoch * 3 + step) for step in range(3)]
        assert set(samples.products) == {choice.ids[0] for step in steps for choice in step}
    for choice in draws.draw(0):
        assert {samples.products[choice.label]} == {s.product_id for s in (choice.page, choice.video, choice.live)}


def test_draws_depend_on_seed_and_step_alone(samples: Samples) -> None:
    forth, back = product_draws(samples, count=2, seed=0), product_draws(samples, count=2, seed=0)
    other = product_draws(samples, count=2, seed=1)
    steps = [forth.draw(step) for step in range(7)]

    assert steps == [back.draw(step) for step in reversed(range(7))][::-1]
    assert steps != [other.draw(step) for step in range(7)]


def test_more_products_than_there_are_is_refused(samples: Samples) -> None:
    with pytest.raises(DataRefused, match="takes 7 products, but only 6"):
        product_draws(samples, count=7, seed=0)


def test_all_frames_of_a_clip_are_cropped_alike_and_a_test_crops_nothing() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    look = Look(pixels=SIDE)
    trained = seen([picture, picture], look, np.random.default_rng(1))

    assert (2, 3, SIDE, SIDE) == tuple(trained.shape)
    assert np.array_equal(trained[0], trained[1])
    assert not np.array_equal(trained[0], seen([picture], look)[0])
    assert np.array_equal(seen([picture], look), seen([picture], look))


def test_titles_become_numbers_of_one_length(tmp_path: Path) -> None:
    with pytest.raises(WeightsRefused, match=r"vocab\.txt: is missing"):
        word_pieces(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "杯"]), "utf-8")
    tokens = word_pieces(tmp_path, longest=6)(["Red 杯杯", ""])

    assert [[2, 5, 6, 6, 3, 0], [2, 3, 0, 0, 0, 0]] == tokens.ids.tolist()
    assert [5, 2] == tokens.mask.sum(dim=1).tolist()
    assert (2, 6) == tuple(hashed_characters(30, longest=6)(["好的 and much more", ""]).ids.shape)
