"""Logging, set up once at start: stable event names, facts as keys."""

import logging
import sys
from typing import TextIO

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
QUIET = ("aiokafka", "faust", "mode", "pymilvus", "faster_whisper", "httpx", "asyncio")


def configure_logs(*, level: str, form: str, stream: TextIO | None = None) -> None:
    """Sends structlog's events to `stream` (standard error), as JSON lines or for people.

    `form`: json, console, or auto, which is console on a terminal. The libraries' own logs come through from
    warnings on: ours say what happened, theirs why.
    """
    out = stream or sys.stderr
    console = form == "console" or (form == "auto" and out.isatty())
    last = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            *([] if console else [structlog.processors.format_exc_info]),
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: structlog.PrintLogger(stream or sys.stderr),  # whatever that is by then
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=out, format="%(levelname)s %(name)s %(message)s")
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL if level != "debug" else logging.INFO)
