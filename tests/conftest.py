"""What all tests need: compiled modules are kept, for many tests start processes of their own."""

import os
import sys

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Where the environment says not to write compiled modules beside their sources, as most container images do, they
    go to pytest's cache: else each child compiles Faust (2 s of a core) or torch (9 s) anew.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        folder = str(config.rootpath / ".pytest_cache" / "bytecode")
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = folder
        sys.dont_write_bytecode = False
