"""The verbs. Each parses, calls one function of wiring or a job, prints what it says, and exits:
0 done, 1 the answer is no, 2 wrong use, 3 the world unavailable."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from streamproc.adapters.logs import configure_logs
from streamproc.errors import BadMessage, Misconfigured, Unavailable
from streamproc.jobs.bench_quality import SIDES, BenchPlan
from streamproc.settings import Settings, read_settings
from streamproc.wiring import commands as verbs

T = TypeVar("T")

DONE: Final = 0
NO: Final = 1
WRONG_USE: Final = 2
UNAVAILABLE: Final = 3

FORMAT = click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class _Time(click.ParamType):
    """A moment as events tell it (2026-11-22T10:00:00.5Z), or less of it; UTC where no zone is given."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment, with a zone."""
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time such as 2026-11-22 or 2026-11-22T10:00:00Z", param, ctx)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


TIME = _Time()


def main() -> None:
    """Runs the command line and exits with the code that says whose fault a failure is."""
    # gRPC tells standard error of every keep-alive that a server found too many; what matters becomes an error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what was opened is closed, as by Ctrl-C
    try:
        commands(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(WRONG_USE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Misconfigured as error:
        click.echo(f"streamproc: {error}", err=True)
        sys.exit(WRONG_USE)
    except Unavailable as error:
        click.echo(f"streamproc: {error}", err=True)
        if "STREAMPROC_" in str(error):
            click.echo("`streamproc doctor` looks at everything; `streamproc up` starts a world to try", err=True)
        sys.exit(UNAVAILABLE)
    except BadMessage as error:
        click.echo(f"streamproc: {error}", err=True)
        sys.exit(NO)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in {"streamproc", "encoders"}:
            raise  # ours are all there
        click.echo(
            f"streamproc: {error.name} is not installed; the extra `demo` brings what every verb needs,"
            " `perceive` what a worker does: pip install 'streamproc[demo]'",
            err=True,
        )
        sys.exit(WRONG_USE)
    except BrokenPipeError:  # the reader of our output has gone: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _settings(*, quiet: bool = False) -> Settings:
    settings = read_settings(os.environ)
    configure_logs(
        level="warning" if quiet and settings.log_level == "info" else settings.log_level, form=settings.log_format
    )
    return settings


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _figures(figures: object) -> None:
    """The last line that machines read: one JSON object."""
    click.echo(msgspec.json.encode(figures))


def _told(form: str, figures: object, lines: Iterable[str]) -> None:
    """What was found, for machines or for people."""
    if form == "json":
        _figures(figures)
    else:
        for line in lines:
            click.echo(line)


def _numbers(_: click.Context, option: click.Parameter, text: str) -> tuple[int, ...]:
    """`1,2,3` as numbers."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no list of numbers such as 1,2,3", param=option) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamproc")
def commands() -> None:
    """Says which product of the catalogue a live stream shows or speaks of, and from when to when.

    Settings are environment variables that begin with STREAMPROC_ (`streamproc doctor` lists them).
    """


# --- the laptop world -------------------------------------------------------------------------------------------


@commands.command()
@click.option("--streams", default=1, show_default=True, type=click.IntRange(1, 8), help="Made streams side by side.")
@click.option("--seconds", default=60, show_default=True, type=click.IntRange(20, 3600), help="Length of each.")
@click.option("--seed", default=8, show_default=True, help="Of the made catalogue and streams.")
@FORMAT
def demo(streams: int, seconds: int, seed: int, form: str) -> None:
    """Embedded Kafka and Milvus Lite, made streams and catalogue, mentions as they happen, a summary.

    Example: streamproc demo --seconds 60
    """
    from streamproc.wiring import show  # media and pictures: not everywhere installed

    settings = _settings(quiet=True)
    summary = show.demo(settings, streams=streams, seconds=seconds, seed=seed, say=click.echo)
    if form == "json":
        _figures(summary)
    sys.exit(DONE if summary.good else NO)


@commands.command()
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Kept between runs; default: the cache.")
def up(data: Path | None) -> None:
    """The demo's world kept running for use; prints its addresses as settings. Ctrl-C ends it.

    Example: streamproc up
    """
    from streamproc.wiring import worlds  # media: not everywhere installed

    worlds.up(_settings(quiet=True), data_dir=data, say=click.echo)


@commands.command()
@click.argument("files", nargs=-1, required=True, type=EXISTING_FILE)
@click.option("--pages", required=True, type=EXISTING_FILE, help="The catalogue, pages.jsonl.")
@click.option("--shelves", type=EXISTING_FILE, help="What each stream may report, shelves.jsonl; default: everything.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The mention log.")
@click.option("--through", type=click.Choice(["memory", "kafka"]), default="memory", show_default=True)
@click.option("--release", type=click.Path(exists=True, file_okay=False), help="A release folder; default: lite.")
@click.option("--record", type=click.Path(file_okay=False, path_type=Path), help="Also keep clips and candidates here.")
@click.option("--without", type=click.Choice(["audio", "video"]), help="Leave one side out, to see what it gives.")
@FORMAT
def recognise(
    files: tuple[Path, ...],
    pages: Path,
    shelves: Path | None,
    out: Path,
    through: str,
    release: str | None,
    record: Path | None,
    without: str | None,
    form: str,
) -> None:
    """The whole pipeline over files, as fast as it goes.

    Example: streamproc recognise streams/*.ts --pages pages.jsonl --shelves shelves.jsonl --out mentions.jsonl
    """
    from streamproc.wiring import worlds  # media: not everywhere installed

    settings = _settings(quiet=True)
    if release is not None:
        settings = msgspec.structs.replace(settings, release_dir=release)
    figures = worlds.recognise(
        settings, files, pages=pages, shelves=shelves, out=out, through=through, record=record, without=without,
        warn=lambda line: click.echo(line, err=True),
    )  # fmt: skip
    _told(form, figures, [figures.told()])


@commands.command()
@click.option("--bench", required=True, type=FOLDER, help="The folder of make_streams.py and score_mentions.py.")
@click.option("--data", required=True, type=FOLDER, help="The folder of grocery/, clothing/ and speech/.")
@click.option(
    "--work", required=True, type=click.Path(file_okay=False, path_type=Path), help="Streams and logs go here."
)
@click.option("--split", default="val", show_default=True, help="Whose photos.")
@click.option("--seeds", default="1,2,3,4,5", show_default=True, callback=_numbers, help="A run of streams each.")
@click.option("--streams", default=6, show_default=True, type=click.IntRange(1, 100))
@click.option("--minutes", default=3, show_default=True, type=click.IntRange(1, 120))
@click.option("--products", default=20, show_default=True, type=click.IntRange(1, 500), help="On each shelf.")
@click.option("--release", type=click.Path(exists=True, file_okay=False), help="A release folder; default: lite.")
@click.option("--side", "sides", multiple=True, type=click.Choice(list(SIDES)), help="Default: all three.")
@FORMAT
def bench(
    bench: Path,
    data: Path,
    work: Path,
    split: str,
    seeds: tuple[int, ...],
    streams: int,
    minutes: int,
    products: int,
    release: str | None,
    sides: tuple[str, ...],
    form: str,
) -> None:
    """Makes bench streams, recognises them with sound and pictures and with either alone, and scores the mentions.

    Example: streamproc bench --bench ../shared/bench --data ../shared/data --work /tmp/bench
    """
    from streamproc.wiring import worlds  # media: not everywhere installed

    settings = _settings(quiet=True)
    if release is not None:
        settings = msgspec.structs.replace(settings, release_dir=release)
    plan = BenchPlan(
        bench=bench,
        data=data,
        work=work,
        split=split,
        seeds=seeds,
        streams=streams,
        minutes=minutes,
        products=products,
    )
    figures = worlds.bench(settings, plan, sides=sides or tuple(SIDES), say=lambda line: click.echo(line, err=True))
    _told(form, figures, (found.told(side) for side, found in figures.items()))


@commands.command()
@click.argument("agents", nargs=-1, required=True)
def run(agents: tuple[str, ...]) -> None:
    """Production workers: perceive, match, spot, index; several names run side by side, a process each.

    Example: streamproc run perceive
    """
    from streamproc.wiring import workers  # it brings Faust: half a second that no other verb need wait

    sys.exit(workers.run(_settings(), agents))


@commands.command()
@click.argument("source")
@click.option("--stream", "stream_id", required=True, help="The stream id to write under.")
@click.option("--shop", "shop_id", help="The shop that the stream belongs to.")
@click.option("--realtime", is_flag=True, help="Pace a file as if it were live.")
@click.option(
    "--give-up",
    "give_up_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End with exit code 3 when a live source has given nothing for so long; default: try again for ever.",
)
@FORMAT
def ingest(
    source: str, stream_id: str, shop_id: str | None, realtime: bool, give_up_s: float | None, form: str
) -> None:
    """A file, HLS, RTMP, RTSP or SRT source to live.chunks, cut on key frames without re-encoding.

    A live source that is lost is asked again with back-off; its new connection is a new broadcast.

    Example: streamproc ingest show.mp4 --stream room-7 --realtime
    """
    chunks = _run(
        verbs.ingest(_settings(), source, stream_id=stream_id, shop_id=shop_id, realtime=realtime, give_up_s=give_up_s)
    )
    _told(form, {"stream_id": stream_id, "chunks": chunks}, [f"{stream_id}: {chunks} chunks"])


# --- catalogue, shelves, mentions -------------------------------------------------------------------------------


@commands.group()
def catalog() -> None:
    """The product pages."""


@catalog.command("load")
@click.argument("pages", type=EXISTING_FILE)
@FORMAT
def catalog_load(pages: Path, form: str) -> None:
    """Publishes pages.jsonl; a wrong row is a clear line, the rest loads.

    Example: streamproc catalog load pages.jsonl
    """
    count, faults = _run(verbs.load_catalog(_settings(quiet=True), pages))
    _load_told(form, "pages loaded", count, faults)


@catalog.command("delete")
@click.argument("page_ids", nargs=-1, required=True)
@FORMAT
def catalog_delete(page_ids: tuple[str, ...], form: str) -> None:
    """Takes pages out of the catalogue and of the index; one that is not there is a clear line, the rest goes.

    Example: streamproc catalog delete page-mug-1 page-mug-2
    """
    count, faults = _run(verbs.delete_pages(_settings(quiet=True), page_ids))
    _load_told(form, "pages deleted", count, faults)


@commands.group()
def shelf() -> None:
    """What a room sells: what may be reported in its stream."""


@shelf.command("set")
@click.argument("stream_id")
@click.argument("product_ids", nargs=-1)
@FORMAT
def shelf_set(stream_id: str, product_ids: tuple[str, ...], form: str) -> None:
    """Replaces a room's shelf; an unknown product is a clear line, the rest counts. No product: nothing is reported.

    Example: streamproc shelf set room-7 mug-1 mug-2
    """
    new, faults = _run(verbs.set_shelf(_settings(quiet=True), stream_id, product_ids))
    for fault in faults:
        click.echo(fault, err=True)
    _told(form, new, [f"{stream_id}: {len(new.product_ids)} products, version {new.version}"])


@shelf.command("load")
@click.argument("shelves", type=EXISTING_FILE)
@FORMAT
def shelf_load(shelves: Path, form: str) -> None:
    """Publishes shelves.jsonl; an unknown product is a clear line, the rest loads.

    Example: streamproc shelf load shelves.jsonl
    """
    count, faults = _run(verbs.load_shelves(_settings(quiet=True), shelves))
    _load_told(form, "shelves loaded", count, faults)


def _load_told(form: str, done: str, count: int, faults: tuple[str, ...]) -> None:
    for fault in faults:
        click.echo(fault, err=True)
    _told(form, {"done": count, "faults": faults}, [f"{count} {done}, {len(faults)} faults"])
    if not count and faults:
        sys.exit(NO)


@commands.group()
def mentions() -> None:
    """The public events."""


@mentions.command("tail")
@click.option("--from", "since", type=TIME, help="Broker time, UTC unless it says; default: from now on.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--once", is_flag=True, help="Stop at the end instead of waiting for more.")
def mentions_tail(since: datetime | None, form: str, once: bool) -> None:
    """Prints mentions as they come.

    Example: streamproc mentions tail --from 2026-11-22 --format json
    """
    _run(verbs.tail(_settings(quiet=True), since=since, form=form, follow=not once, say=click.echo))


@commands.group()
def evidence() -> None:
    """The frames that mentions name: kept 7 days, 90 where a mention cites them."""


@evidence.command("get")
@click.argument("stream_id", metavar="STREAM")
@click.argument("ref")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def evidence_get(stream_id: str, ref: str, out: Path) -> None:
    """Writes the frame of a `ref` (sha256:…) as a JPEG; exit 1 where it is gone.

    Example: streamproc evidence get room-7 sha256:7ae4… frame.jpg
    """
    frame = _run(verbs.evidence_of(_settings(quiet=True)).get(stream_id, ref))
    try:
        out.write_bytes(frame)
    except OSError as error:
        raise Misconfigured("OUT", f"{out} cannot be written: {error.strerror}") from error


@evidence.command("sweep")
@FORMAT
def evidence_sweep(form: str) -> None:
    """Removes the frames whose day has come. Run it daily: what a mention cites is read from product.mentions, which
    forgets after 30 days.

    Example: streamproc evidence sweep
    """
    swept = _run(verbs.sweep_evidence(_settings(quiet=True)))
    _told(form, swept, [f"{swept.removed} removed, {swept.prolonged} kept on because mentions cite them"])


@evidence.command("delete")
@click.argument("stream_id", metavar="STREAM")
def evidence_delete(stream_id: str) -> None:
    """Removes every frame of a stream, cited or not.

    Example: streamproc evidence delete room-7
    """
    click.echo(f"{_run(verbs.evidence_of(_settings(quiet=True)).forget(stream_id))} frames removed")


# --- topics, picture, health ------------------------------------------------------------------------------------


@commands.group()
def topics() -> None:
    """The topics of topology.yaml on the broker."""


@topics.command("apply")
@click.option(
    "--partitions", type=click.IntRange(1, 4096), help="Of every keyed topic; default: as topology.yaml says."
)
@click.option("--replication", type=click.IntRange(1, 9), help="Default: 3, or as many as there are brokers.")
@FORMAT
def topics_apply(partitions: int | None, replication: int | None, form: str) -> None:
    """Creates what is missing and changes settings; refuses a change of partitions.

    Example: streamproc topics apply --partitions 16
    """
    done = _run(verbs.apply_topics(_settings(quiet=True), partitions=partitions, replication=replication))
    _told(form, done, done.told())


@topics.command("diff")
@click.option("--partitions", type=click.IntRange(1, 4096))
@click.option("--replication", type=click.IntRange(1, 9))
@FORMAT
def topics_diff(partitions: int | None, replication: int | None, form: str) -> None:
    """What `apply` would do; exit code 1 where there is something.

    Example: streamproc topics diff
    """
    found = _run(verbs.diff_topics(_settings(quiet=True), partitions=partitions, replication=replication))
    _told(form, {"differences": found}, map(str, found))
    sys.exit(NO if found else DONE)


@commands.command()
@FORMAT
def check(form: str) -> None:
    """Is topology.yaml true? Prints each problem; exit code 1 where there is one.

    Example: streamproc check
    """
    problems = verbs.problems()
    whole = f"{len(problems)} problems" if problems else "the topology is whole"
    _told(form, {"problems": problems}, [*problems, whole])
    sys.exit(NO if problems else DONE)


@commands.command()
@click.option("--format", "form", type=click.Choice(["text", "mermaid"]), default="text", show_default=True)
@click.option("--write", type=EXISTING_FILE, help="Redraw the picture in this page.")
def graph(form: str, write: Path | None) -> None:
    """The picture of agents and topics.

    Example: streamproc graph --write README.md
    """
    if write is not None:
        write.write_text(verbs.redrawn(write.read_text()))
    else:
        click.echo(verbs.drawn(form))


@commands.command()
@FORMAT
def doctor(form: str) -> None:
    """What is set, installed and reachable, and what to do where something is not.

    Example: streamproc doctor
    """
    _settings(quiet=True)  # what drivers log is told as findings
    report = _run(verbs.doctor(os.environ))
    _told(form, report, [report.told()])
    sys.exit(DONE if report.good else NO)


# --- releases and replay ----------------------------------------------------------------------------------------


@commands.group()
def release() -> None:
    """Tower releases: encoder and index swap as one."""


@release.command("prepare")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("collection")
def release_prepare(folder: Path, collection: str) -> None:
    """Announces a release and its collection, so that workers load it; refuses a pair that does not match.

    Example: streamproc release prepare releases/lite pages_0123456789ab_1
    """
    click.echo(_run(verbs.prepare_release(_settings(quiet=True), folder, collection)))


@release.command("activate")
@click.option("--anyway", is_flag=True, help="Although a worker has not loaded it: its streams wait until it has.")
def release_activate(anyway: bool) -> None:
    """Makes the prepared release the active one, at each stream's next chunk; refuses while a worker has not loaded it.

    Example: streamproc release activate
    """
    click.echo(_run(verbs.activate_release(_settings(quiet=True), anyway=anyway)))


@release.command("status")
@FORMAT
def release_status(form: str) -> None:
    """The active and the prepared release, and what the workers say of them.

    Example: streamproc release status
    """
    status = _run(verbs.release_status(_settings(quiet=True)))
    _told(form, status, status.told())


@commands.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--build", default=1, show_default=True, help="Number in the collection's name.")
@FORMAT
def reindex(folder: Path, build: int, form: str) -> None:
    """Builds the collection of a release from catalog.pages, beside the one in use.

    Example: streamproc reindex releases/lite --build 2
    """
    report = _run(verbs.reindex(_settings(quiet=True), folder, build=build))
    for fault in report.faults:
        click.echo(fault, err=True)
    _told(form, report, [report.told()])


@commands.command()
@click.option("--level", type=click.Choice(["candidates"]), default="candidates", show_default=True)
@click.option("--from", "since", type=TIME, help="Broker time, UTC unless it says; default: from the beginning.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the replayed mentions here.")
@FORMAT
def replay(level: str, since: datetime | None, out: Path | None, form: str) -> None:
    """Folds live.candidates again and compares with what was emitted, byte by byte; exit code 1 where they differ.

    Example: streamproc replay --level candidates
    """
    del level
    report = _run(verbs.replay(_settings(quiet=True), since=since, out=out))
    _told(form, report, [report.told()])
    sys.exit(DONE if report.equal else NO)


@commands.group("dead-letters")
def dead_letters() -> None:
    """What was set aside."""


@dead_letters.command("list")
@FORMAT
def dead_letters_list(form: str) -> None:
    """A line per dead letter: reason, where it was, detail.

    Example: streamproc dead-letters list
    """
    letters = _run(verbs.list_dead_letters(_settings(quiet=True)))
    _told(form, {"dead_letters": letters}, (letter.told() for letter in letters))
