import pytest

from streamproc.core.naming import likeness, named, tokens_of

APPLES = [tokens_of(t) for t in ("Royal Gala Apple", "Pink Lady Apple", "Granny Smith Apple", "Golden Delicious Apple")]
JUICES = [
    tokens_of(t)
    for t in ("God Morgon Orange Juice", "God Morgon Orange Red Grapefruit Juice", "God Morgon Red Grapefruit Juice")
]


def shares(text: str, titles: list[tuple[str, ...]]) -> list[float]:
    return named(tokens_of(text), titles)


def test_words_are_lower_case_without_accents_or_fillers() -> None:
    assert ("creme", "brulee", "uncle", "bob") == tokens_of("The Crème Brûlée of Uncle-Bob")


def test_a_script_without_spaces_gives_pairs_of_characters() -> None:
    assert ("保温", "温杯", "500", "ml") == tokens_of("保温杯 500 ml")
    assert ("茶",) == tokens_of("茶")
    assert ("usb", "充电", "电线") == tokens_of("usb充电线")


def test_a_title_in_chinese_is_heard_in_a_sentence_without_spaces() -> None:
    titles = [tokens_of("不锈钢保温杯"), tokens_of("陶瓷马克杯")]

    first, second = named(tokens_of("大家看这个不锈钢保温杯非常好用"), titles)

    assert 1.0 == first
    assert 0.0 == second


def test_the_whole_title_is_heard_wholly() -> None:
    assert 1.0 == shares("and here we go with the royal gala apple", APPLES)[0]


def test_what_four_titles_share_says_little_and_what_one_alone_has_says_much() -> None:
    apple = shares("these apples are lovely, an apple a day", APPLES)
    gala = shares("so that was the royal gala do not miss it", APPLES)

    assert max(apple) < 0.25
    assert gala[0] > 0.75
    assert [0.0, 0.0, 0.0] == gala[1:]


@pytest.mark.parametrize(
    ("heard", "place"),
    [
        ("god morgon orange juice", 0),
        ("god morgon orange red grapefruit juice", 1),
        ("god morgon red grapefruit juice", 2),
    ],
)
def test_of_titles_within_one_another_the_one_that_was_said_wins(heard: str, place: int) -> None:
    found = shares(f"now I want to show you the {heard}", JUICES)

    assert place == max(range(3), key=found.__getitem__)
    assert 1.0 == found[place]


def test_recognition_may_spell_a_name_its_own_way() -> None:
    titles = [tokens_of("Yoggi Strawberry Yoghurt"), tokens_of("Oatly Natural Oatghurt"), tokens_of("Alpro Soyghurt")]

    assert shares("the yogi strawberry yogurt", titles)[0] > 0.7
    assert shares("here is the oatly natural oat gurt", titles)[1] > 0.85
    assert shares("tap for the alpro soy gurt", titles)[2] > 0.85


def test_words_of_a_title_scattered_over_a_long_sentence_are_not_the_title() -> None:
    scattered = (
        "the royal family of course thinks that on sundays a very big gala is just what every farmer needs "
        "to sell one more apple"
    )

    assert shares(scattered, APPLES)[0] < 0.5


def test_silence_names_nothing() -> None:
    assert [0.0] * 4 == shares("", APPLES)


def test_a_title_without_words_is_never_named() -> None:
    assert [0.0] == shares("anything at all", [tokens_of("!!!")])


@pytest.mark.parametrize(
    ("one", "other", "like"),
    [
        ("gala", "gala", 1.0),
        ("gala", "gale", 0.75),
        ("gala", "galaxies", 0.0),
        ("fig", "pig", 0.0),
        ("plum", "rust", 0.0),
        ("satsumas", "satsuma", 0.875),
        ("保温", "保湿", 0.0),
    ],
)
def test_short_words_must_agree_and_long_ones_nearly(one: str, other: str, like: float) -> None:
    assert like == likeness(one, other)
