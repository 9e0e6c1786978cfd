"""Who is not ready for a release: what `release activate` asks before it activates."""

from typing import Literal

from streamproc.core.release import ReleaseReport
from streamproc.wiring.commands import without_release

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def report(
    agent: str, release: str, status: Literal["loading", "ready", "refused"] = "ready", detail: str = ""
) -> ReleaseReport:
    return ReleaseReport(worker=f"{agent}-0", agent=agent, release=release, status=status, detail=detail)


def test_a_worker_that_has_both_releases_is_ready_for_either() -> None:
    reports = [report("perceive", OLD), report("perceive", NEW)]

    assert ((), ()) == (without_release(reports, OLD), without_release(reports, NEW))


def test_who_loads_refuses_or_says_nothing_is_named_with_its_word() -> None:
    reports = [
        *(report(agent, OLD) for agent in ("perceive", "match", "index", "idle")),
        report("match", NEW, "refused", "no folder"),
        report("index", NEW, "loading"),
        report("perceive", NEW),
    ]

    assert (
        "idle idle-0 (has said nothing of it)",
        "index index-0 (loading)",
        "match match-0 (refused: no folder)",
    ) == without_release(reports, NEW)


def test_without_workers_there_is_nobody_to_wait_for() -> None:
    assert () == without_release([], NEW)
