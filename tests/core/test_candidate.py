import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.core.calibration import Calibration, SeenCalibration, SpokenCalibration
from streamproc.core.candidate import LISTED, Candidates, background_rows, rank
from streamproc.core.embedding import ClipEmbedding, PageEmbedding, Vector
from streamproc.core.gallery import Gallery
from streamproc.core.rule import MentionRule
from tests.builders import embedding_of, row_of, vector_of

MUG, POT, PAN = vector_of(1, 0, 0), vector_of(0, 1, 0), vector_of(0, 0, 1)
CALIBRATION = Calibration(
    seen=SeenCalibration(temperature=0.05, unknown_score=0.6), spoken=SpokenCalibration(temperature=0.1)
)


def ranked(
    clip: ClipEmbedding,
    *rows: PageEmbedding,
    background: tuple[PageEmbedding, ...] = (),
    calibration: Calibration = CALIBRATION,
    rule: MentionRule | None = None,
) -> Candidates:
    return rank(
        clip,
        shelf=Gallery(rows),
        background=Gallery(background),
        calibration=calibration,
        rule=rule or MentionRule(),
        shelf_version=3,
    )


def seen_in(candidates: Candidates) -> list[dict[str, float]]:
    return [{one.product_id: one.probability for one in frame.scores} for frame in candidates.seen]


def spoken_in(candidates: Candidates) -> list[dict[str, float]]:
    return [{one.product_id: one.probability for one in utterance.scores} for utterance in candidates.spoken]


def test_a_frame_is_the_product_whose_packshot_it_resembles() -> None:
    candidates = ranked(embedding_of(0, MUG), row_of("mug", MUG), row_of("pot", POT))

    assert [{"mug": 0.999665}] == seen_in(candidates)
    assert (1.0, "page-mug") == (candidates.seen[0].scores[0].score, candidates.seen[0].scores[0].page_id)


def test_a_page_that_the_towers_never_learnt_is_lifted_above_a_learnt_one_but_not_above_the_unknown() -> None:
    between, nothing = vector_of(0.8, 0.6, 0), vector_of(0.35, 0.3, 0.89)
    pages = (row_of("mug", MUG), row_of("pot", POT, lift=0.3))

    assert ["pot", "mug"] == list(seen_in(ranked(embedding_of(0, between), *pages))[0])
    assert ["mug", "pot"] == list(seen_in(ranked(embedding_of(0, between), pages[0], row_of("pot", POT)))[0])
    assert [{}] == seen_in(ranked(embedding_of(0, nothing), *pages))
    assert 0.8 == ranked(embedding_of(0, between), *pages).seen[0].scores[1].score  # cosines are told as they are


def test_a_frame_like_no_page_is_of_nothing() -> None:
    candidates = ranked(embedding_of(0, PAN), row_of("mug", MUG), row_of("pot", POT))

    assert [{}] == seen_in(candidates)


def test_a_product_of_the_catalogue_that_is_not_on_the_shelf_is_not_its_look_alike() -> None:
    cup = vector_of(1, 0.4, 0)
    alone = ranked(embedding_of(0, cup), row_of("mug", MUG))
    beside = ranked(embedding_of(0, cup), row_of("mug", MUG), background=(row_of("cup", cup),))

    assert alone.seen[0].scores[0].probability > 0.99
    assert beside.seen[0].scores[0].probability < 0.2
    assert ["mug"] == list(seen_in(beside)[0])
    assert beside.seen[0].off_shelf > 0.75


def test_the_best_of_several_packshots_counts_or_their_mean() -> None:
    rows = (row_of("mug", MUG), row_of("mug", POT, ordinal=1))
    mean = Calibration(seen=SeenCalibration(temperature=0.05, unknown_score=0.6, pooling="mean"))

    assert 1.0 == ranked(embedding_of(0, MUG), *rows).seen[0].scores[0].score
    assert [{"mug": 0.119203}] == seen_in(ranked(embedding_of(0, MUG), *rows, calibration=mean))


def test_a_page_without_an_image_is_not_seen_but_may_be_spoken_of() -> None:
    clip = embedding_of(1, MUG, spoken=[("here is the mug", MUG)])
    candidates = ranked(clip, row_of("mug", MUG, part="text"))

    assert [{}] == seen_in(candidates)
    assert ["mug"] == list(spoken_in(candidates)[0])


def test_a_product_that_is_named_is_spoken_of_though_its_text_is_far() -> None:
    rows = (
        row_of("gala", POT, part="text", title="Royal Gala Apple"),
        row_of("lady", POT, part="text", title="Pink Lady Apple"),
    )
    named = ranked(embedding_of(1, spoken=[("so here we have the royal gala", MUG)]), *rows)
    passing = ranked(embedding_of(1, spoken=[("an apple a day", MUG)]), *rows)

    assert ["gala"] == list(spoken_in(named)[0])
    assert named.spoken[0].scores[0].named > 0.75
    assert max(spoken_in(passing)[0].values()) < 0.05


def test_naming_what_the_room_does_not_sell_is_off_the_shelf() -> None:
    candidates = ranked(
        embedding_of(1, spoken=[("the pink lady apple", MUG)]),
        row_of("gala", POT, part="text", title="Royal Gala Apple"),
        background=(row_of("lady", POT, title="Pink Lady Apple"),),
    )

    assert [{}] == spoken_in(candidates)
    assert candidates.spoken[0].off_shelf > 0.75


def test_words_are_told_only_where_the_rule_says_so() -> None:
    clip = embedding_of(1, spoken=[("the mug", MUG)])
    row = row_of("mug", MUG, part="text")

    assert () == ranked(clip, row).spoken[0].words
    assert ["the", "mug"] == [w.text for w in ranked(clip, row, rule=MentionRule(tell_words=True)).spoken[0].words]


def test_what_was_used_is_written_down() -> None:
    candidates = ranked(embedding_of(4, MUG), row_of("mug", MUG))

    assert (4, 3, CALIBRATION.threshold) == (candidates.sequence, candidates.shelf_version, candidates.threshold)


def test_no_more_than_a_few_products_are_told() -> None:
    rows = [row_of(f"mug-{i:02}", MUG) for i in range(20)]

    assert LISTED == len(ranked(embedding_of(0, MUG), *rows).seen[0].scores)


def test_an_empty_gallery_finds_nothing() -> None:
    candidates = ranked(embedding_of(1, MUG, spoken=[("the mug", MUG)]))

    assert ([{}], [{}]) == (seen_in(candidates), spoken_in(candidates))


@pytest.mark.parametrize(
    ("shop", "row_shop", "competes"),
    [(None, "a", True), ("a", None, True), ("a", "a", True), ("a", "b", False), (None, None, True)],
)
def test_only_products_of_the_same_shop_compete(shop: str | None, row_shop: str | None, competes: bool) -> None:
    near = (row_of("mug", MUG), row_of("pot", POT, shop_id=row_shop))

    assert competes == bool(background_rows(near, shelf=("mug",), shop_id=shop))


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_score_depends_neither_on_the_order_nor_on_the_number_of_rows(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)

    def some() -> Vector:
        return vector_of(*random.standard_normal(256))

    rows = [row_of(f"p{i:02}", some()) for i in range(count)]
    vector = some()
    together = Gallery(rows).cosines(vector, "image", pooling="best")
    backwards = Gallery(rows[::-1]).cosines(vector, "image", pooling="best")
    alone = [Gallery([row]).cosines(vector, "image", pooling="best")[0] for row in rows]

    assert together == backwards == alone
