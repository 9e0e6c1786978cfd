"""topology.yaml decodes strictly, and what is wrong is said with the entry's name."""

import os
from pathlib import Path

import pytest

from streamproc.errors import Misconfigured
from streamproc.topology import model
from streamproc.topology.model import in_bytes, load, milliseconds, parse

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "topology.yaml").read_text()


def refusal_of(old: str, new: str) -> str:
    """What parse says when the first `old` of the real file is `new`."""
    assert old in TEXT

    with pytest.raises(Misconfigured) as refused:
        parse(TEXT.replace(old, new, 1))
    return str(refused.value)


def test_the_installed_topology_is_the_one_at_the_root() -> None:
    assert parse(TEXT) == load() == load(ROOT / "topology.yaml")


def test_the_picture_fits_on_one_screen() -> None:
    assert 50 >= len(TEXT.splitlines())
    assert 120 >= max(len(line) for line in TEXT.splitlines())


def test_units_are_what_they_say() -> None:
    topology = load()

    assert [60_000, 21_600_000, 86_400_000] == [milliseconds(text) for text in ("1min", "6h", "1d")]
    assert [2048, 3_145_728] == [in_bytes(text) for text in ("2KiB", "3MiB")]
    assert 21_600_000 == topology.topics["live.chunks"].retention_ms
    assert topology.topics["speech.state"].retention_ms is None
    assert 0 == topology.topics["releases"].lag_ms
    assert 86_400_000 == topology.topics["speech.state"].lag_ms


def test_a_duration_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="does not begin with a number"):
        milliseconds("h")


def test_another_number_of_partitions_is_for_every_topic_that_names_none() -> None:
    topology = load().with_partitions(4)

    assert 4 == topology.partitions_of("live.chunks") == topology.partitions_of("mentions.current")
    assert 1 == topology.partitions_of("releases")
    assert topology == topology.with_partitions(None)


def test_zero_partitions_are_refused_by_name() -> None:
    with pytest.raises(Misconfigured, match="partitions"):
        load().with_partitions(0)


def test_readers_and_writers_are_found_by_topic() -> None:
    topology = load()

    assert ("perceive",) == topology.writers_of("live.clips") == topology.writers_of("speech.state")
    assert ("match",) == topology.readers_of("live.clips") == topology.readers_of("live.shelves")
    assert ("perceive", "match", "index") == topology.readers_of("releases")
    assert "live.chunks" in topology.co_keyed()["stream_id"]
    assert ("releases",) == topology.co_keyed()["role"]


def test_an_unknown_key_is_refused_with_the_topic() -> None:
    said = refusal_of("retention: 6h", "retentoin: 6h")

    assert "topic live.chunks" in said
    assert "retentoin" in said


def test_an_unknown_key_is_refused_with_the_agent() -> None:
    said = refusal_of("follows: [releases]", "host: [releases]")

    assert "agent perceive" in said
    assert "host" in said


@pytest.mark.parametrize(
    ("old", "new", "entry"),
    [
        ("retention: 6h", "retention: 6 hours", "topic live.chunks"),
        ("retention: 6h", "retention: 6", "topic live.chunks"),
        ("max_message: 3MiB", "max_message: 3MB", "topic live.chunks"),
        ("key: mention_id", "key: product_id", "topic mentions.current"),
        ("partitions: 1,", "partitions: 0,", "topic releases"),
        ("from: outside, retention", "from: somewhere, retention", "topic live.chunks"),
        ("reads: [live.candidates]", "reads: []", "agent spot"),
        ("needs: [objects]", "needs: [milvus:19530]", "agent perceive"),
        ("live.chunks:", "Live-Chunks:", "topic Live-Chunks"),
        ("  spot:", "  Spot:", "agent Spot"),
        ("partitions: 64", "partitions: many", "partitions"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_entry(old: str, new: str, entry: str) -> None:
    assert f"topology.yaml: {entry}: " in refusal_of(old, new)


def test_a_section_that_is_unknown_or_missing_is_refused() -> None:
    assert "hosts: unknown section" in refusal_of("topics:", "hosts: [a]\ntopics:")
    assert "partitions: is missing" in refusal_of("partitions: 64", "")


def test_a_file_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(Misconfigured, match="mapping"):
        parse("[]")


def test_an_entry_that_is_there_twice_is_refused_with_its_line() -> None:
    said = refusal_of("  live.clips:", "  live.chunks:")

    assert "live.chunks is here twice" in said
    assert "line 11" in said


def test_a_key_that_is_no_word_is_refused() -> None:
    assert "unhashable" in refusal_of("topics:", "[a]: b\ntopics:")


def test_text_that_is_no_yaml_is_refused() -> None:
    assert "topology.yaml" in refusal_of("topics:", "topics: {")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be read"):
        load(tmp_path / "topology.yaml")


def test_the_copies_in_the_package_and_in_the_chart_are_links_to_the_one_at_the_root() -> None:
    for copy in (Path(model.__file__).with_name("topology.yaml"), ROOT / "helm/streamproc/files/topology.yaml"):
        assert copy.is_symlink()
        assert ROOT / "topology.yaml" == Path(os.path.realpath(copy))
