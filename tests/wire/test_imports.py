"""What must install and run without torch, Faust or Milvus does."""

import importlib.util
import json
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


def test_a_consumer_needs_no_numpy_and_no_cloudevents_either() -> None:
    assert set() == loaded_by("streamproc.client") & (HEAVY | {"numpy", "cloudevents", "structlog"})
