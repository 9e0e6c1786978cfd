"""What all tests need: compiled modules are kept, threads are few, and the fast suite runs on several cores."""

import gc
import importlib.util
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import hypothesis
import pytest

FAST: Final = "not slow"
MOST_WORKERS: Final = 4  # about 1 GB each
LONGEST: Final = ("tests/end_to_end/", "tests/encoders/", "tests/contract/test_clip_encoder.py")  # and transformers


def pytest_configure(config: pytest.Config) -> None:
    """One thread per process unless the environment asks for more: where several processes share few cores, OpenMP's
    threads spin while they wait for each other.

    Where the environment says not to write compiled modules beside their sources, as most container images do, ours do
    all the same where those of the packages lie there (README's command has them compiled by the install, on all cores
    at once), and else all go to pytest's cache: or each child compiles Faust (2 s of a core) or torch (9 s) anew.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        sys.dont_write_bytecode = False
        if not Path(importlib.util.cache_from_source(str(hypothesis.__file__))).exists():
            folder = str(config.rootpath / ".pytest_cache" / "bytecode")
            os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = folder


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collecting loads (torch, Faust: a million objects) stays to the end, so that the garbage collector need not
    walk it: not while it is loaded, and not each time a test asks what it has left behind (0.4 s of a core)."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker per core, up to four, for the whole fast suite. None for a few chosen tests, which loading everything
    twice would only slow down, nor for the slow ones: they measure, and fill the cores with processes of their own.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return min(MOST_WORKERS, len(os.sched_getaffinity(0))) if whole and config.option.markexpr == FAST else 0


@pytest.hookimpl(trylast=True)  # after the shuffle
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first and side by side: the first worker gets the first half of the list, so that what they share is
    loaded once, and others take over what is short at its end."""
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in LONGEST])


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of this run share, for `made_once`."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent
