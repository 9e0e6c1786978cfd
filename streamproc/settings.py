"""The environment as a value: where things are. What happens is in topology.yaml, how well in the release."""

import difflib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from streamproc.errors import Misconfigured

PREFIX: Final = "STREAMPROC_"


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field per variable: `broker` is STREAMPROC_BROKER. Defaults suit one machine."""

    broker: Annotated[str, Meta(min_length=1)] = "127.0.0.1:9092"  # Kafka bootstrap servers, comma separated
    milvus_uri: str = "http://127.0.0.1:19530"
    milvus_token: str = ""
    object_store: str = ""  # fsspec URL for large chunks and evidence; empty: CACHE/objects
    media_prefixes: tuple[str, ...] = ()  # URLs that references may lie under, comma separated; the store always may
    release_dir: str = ""  # a directory with release.json; empty: the shipped release `lite`
    cache: str = ""  # empty: $XDG_CACHE_HOME/streamproc, else ~/.cache/streamproc
    group_prefix: str = ""  # before every consumer group, so that two deployments share a broker
    worker_id: str = ""  # stable name for static membership; empty: host name
    health_host: str = "127.0.0.1"  # loopback unless told otherwise
    health_port: Annotated[int, Meta(ge=0, le=65535)] = 0  # 0: no health server
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["auto", "f32"] = "auto"  # of pictures' vectors; auto: bfloat16 where the processor computes it
    # OpenVINO or CTranslate2 in int8, openai-whisper, or none; auto: the faster of the first two on this processor
    speech: Literal["auto", "openvino", "ct2", "whisper", "off"] = "auto"
    speech_model: str = ""  # a directory or model name; empty: the base model that the packages ship
    frame_interval_ms: Annotated[int, Meta(ge=40, le=10_000)] = 1_000
    # PyAV, or NVIDIA DALI before it (on NVDEC where the device is cuda); auto: DALI where the device is cuda
    pictures: Literal["auto", "av", "dali"] = "auto"
    decoders: Annotated[int, Meta(ge=1, le=64)] = 1  # decoding child processes
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"  # auto: console on a terminal
    threads: Annotated[int, Meta(ge=1, le=256)] = 1  # per model; part of `engine`, so bits depend on it

    @property
    def cache_dir(self) -> Path:
        """Where downloads and made files are kept."""
        if self.cache:
            return Path(self.cache)
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamproc"

    @property
    def object_store_url(self) -> str:
        """Where large chunks and evidence frames go."""
        return self.object_store or (self.cache_dir / "objects").as_uri()

    @property
    def worker_name(self) -> str:
        """The name this worker is known by."""
        return self.worker_id or socket.gethostname()


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from variables that begin with STREAMPROC_. Raises Misconfigured, naming the variable, for one that
    is not known or whose value cannot be right."""
    known = {f.name: f for f in msgspec.structs.fields(Settings)}
    values: dict[str, object] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {PREFIX}{near[0].upper()}?" if near else "no setting has this name"
            raise Misconfigured(variable, hint)
        is_list = known[name].type == tuple[str, ...]
        value: object = tuple(part.strip() for part in text.split(",") if part.strip()) if is_list else text
        try:
            values[name] = msgspec.convert(value, known[name].type, strict=False)
        except msgspec.ValidationError as error:
            raise Misconfigured(variable, f"{text!r}: {error}") from error
    return msgspec.convert(values, Settings)
