"""Writes kafka.lock anew: `python -m streamproc.embedded.lock_kafka 4.4.0`, then read the difference and commit it."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from streamproc.embedded.jars import download
from streamproc.embedded.kafka import LOCK

# Kafka logs through slf4j and its package names no backend; this one (16 KB) writes to stderr.
LOGGING = "org.slf4j:slf4j-simple:1.7.36"
HEADER = """\
# Apache Kafka and all that it needs to run, from Maven Central: group:artifact:version[:classifier] sha256
# Made by `python -m streamproc.embedded.lock_kafka VERSION`. Every byte is checked before the JVM starts.
"""


def main(version: str) -> None:
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch))
        wanted = [
            context.create_dependency(f"org.apache.kafka:kafka_2.13:{version}"),
            context.create_dependency(LOGGING),
        ]
        given, needed = context.resolver.resolve(wanted)
        kept = [*given, *(one for one in needed if one.scope in ("compile", "runtime"))]
        parts = [(one.groupId, one.artifactId, one.version, one.classifier) for one in kept]
        coordinates = sorted(":".join(part for part in four if part) for four in parts)
        files = download(coordinates, Path(scratch))
        lines = [f"{c} {hashlib.sha256(f.read_bytes()).hexdigest()}\n" for c, f in zip(coordinates, files, strict=True)]
    LOCK.write_text(HEADER + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
