"""The picture shows what the file says, and README shows the picture."""

from pathlib import Path

import pytest

from streamproc.errors import Misconfigured
from streamproc.topology.draw import BEGIN, END, mermaid, redraw, text
from streamproc.topology.model import load, parse
from tests.topology.test_model import TEXT

README = Path(__file__).parents[2] / "README.md"


def test_every_agent_and_every_public_topic_is_in_the_picture() -> None:
    topology = load()
    drawn = mermaid(topology)

    assert [] == [name for name in topology.agents if f'  {name}["{name}' not in drawn]
    assert ["dead.letters"] == [name for name in topology.topics if name not in drawn]
    assert "  live_chunks --> perceive\n" in drawn
    assert "  releases -.-> match\n" in drawn
    assert "  spot --> product_mentions\n" in drawn


def test_a_report_is_no_second_arrow_beside_the_dotted_one() -> None:
    assert "perceive --> releases" not in mermaid(load())


def test_the_text_says_who_touches_what_and_what_is_kept() -> None:
    lines = text(load().with_partitions(4)).splitlines()

    assert "  follows  live.shelves, releases" in lines
    assert [] != [line for line in lines if line.split() == ["live.chunks", "4", "x", "stream_id", "6h", "LiveChunk"]]
    assert [] != [line for line in lines if line.startswith("mentions.current") and "compacted + 30d lag 1d" in line]
    assert [] != [line for line in lines if line.startswith("releases") and "  1 x role" in line]


def test_redrawing_replaces_what_is_between_the_markers_and_nothing_else() -> None:
    page = redraw(f"# Title\n{BEGIN}\nold\n{END}\nrest\n", load())

    assert page.startswith(f"# Title\n{BEGIN}\n```mermaid\nflowchart LR\n")
    assert page.endswith(f"{END}\nrest\n")
    assert "old" not in page
    assert "All agents also write `dead.letters`." in page
    assert page == redraw(page, load())


def test_a_picture_in_which_no_topic_is_written_by_all_says_nothing_of_it() -> None:
    topology = parse(TEXT.replace("live.transcripts, releases, dead.letters]", "live.transcripts, releases]", 1))

    assert "All agents" not in redraw(BEGIN + END, topology)


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}{BEGIN}"])
def test_a_page_without_both_markers_is_refused(page: str) -> None:
    with pytest.raises(Misconfigured, match="topology:begin"):
        redraw(page, load())


def test_the_picture_in_readme_is_fresh() -> None:
    if not README.exists() or not README.read_text().strip():
        pytest.skip("README.md is not written yet")
    page = README.read_text()

    assert redraw(page, load()) == page, "run `streamproc graph --write README.md`"
