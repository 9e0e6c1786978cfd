"""Fits calibration and mention rule to recorded clips with known truth.

    python -m streamproc.jobs.fit_rule --clips clips.jsonl --rows rows.jsonl --shelves shelves.jsonl \\
        --truth truth.jsonl --start release.json --rounds 300 --seed 0 --hold-out 2 --out fitted.json

`clips.jsonl` holds ClipEmbedding values, one a line, each stream's in order; `rows.jsonl` PageEmbedding values, the
whole catalogue. Fit on streams of other photos than the ones you report on. `--set seen.temperature=0.05` (or
`rule.close_after_ms=8000`) starts from that; with `--rounds 0` nothing is searched, only replayed and scored. Without
`--shelves` no stream has one: all of the catalogue may be told, and the truth counts all of it.

Four steps: probabilities of single frames and utterances by least Brier score against the truth; the rule by a
seeded random coordinate search over replays; the threshold by trying some; the confidence by logistic regression on the
mentions that the rule gives.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec.structs import asdict, replace
from numpy.typing import NDArray

from streamproc.agents.match import NEAREST
from streamproc.core.calibration import Calibration
from streamproc.core.candidate import CandidateRecord, Candidates, ClipScores, RawScore, background_rows
from streamproc.core.candidate import judge as judge_clip
from streamproc.core.candidate import score as score_clip
from streamproc.core.catalog import Shelf
from streamproc.core.continuity import Continuity, arrive
from streamproc.core.embedding import ClipEmbedding, PageEmbedding, unpack
from streamproc.core.gallery import Gallery
from streamproc.core.judgement import Judgement
from streamproc.core.mention import ProductMention
from streamproc.core.rule import ConfidenceRule, MentionRule
from streamproc.core.span import Span
from streamproc.core.spotting import Closing, StreamMentions, features_of, trace
from streamproc.jobs.mention_score import MentionScore, Told, TruthRow, pair, score, told_of

T = TypeVar("T")
Axis = NDArray[np.float64]


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One stream: its clips and their raw scores, which no parameter changes."""

    stream_id: str
    clips: tuple[tuple[ClipEmbedding, ClipScores], ...]
    shelf_version: int | None
    clear: float = 0.0  # ReleaseFacts.clear


class _Nearest:
    """Some rows of the catalogue, searched as the index does it."""

    def __init__(self, rows: Sequence[PageEmbedding]) -> None:
        self._rows = rows
        self._vectors = np.stack([unpack(row.vector) for row in rows]) if rows else np.zeros((0, 0), np.float32)

    def of(self, asked: Sequence[bytes]) -> list[PageEmbedding]:
        if not asked or not self._rows:
            return []
        scores = np.stack([unpack(vector) for vector in asked]) @ self._vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]
        return [self._rows[i] for i in sorted(set(best.ravel().tolist()))]


def recorded(
    clips: Iterable[ClipEmbedding],
    rows: Sequence[PageEmbedding],
    shelves: Sequence[Shelf],
    calibration: Calibration,
    *,
    clear: float = 0.0,
) -> list[Recorded]:
    """Scores every clip as match would: against its shelf, and what of the catalogue is near."""
    by_stream: dict[str, list[ClipEmbedding]] = {}
    for clip in clips:
        by_stream.setdefault(clip.stream_id, []).append(clip)
    shelf_of = {shelf.stream_id: shelf for shelf in shelves}
    rows_of: dict[str, list[PageEmbedding]] = {}
    for row in rows:
        rows_of.setdefault(row.product_id, []).append(row)

    @cache
    def gallery_of(products: tuple[str, ...]) -> Gallery:
        return Gallery([row for product in products for row in rows_of.get(product, ())])

    images, texts = (_Nearest([row for row in rows if row.part == part]) for part in ("image", "text"))

    def near(clip: ClipEmbedding) -> list[PageEmbedding]:
        return [*images.of([one.vector for one in clip.seen]), *texts.of([one.vector for one in clip.spoken])]

    found = []
    for stream_id, own in by_stream.items():
        shelf = shelf_of.get(stream_id)
        sold = shelf.product_ids if shelf else ()
        scored = []
        for clip in own:
            rivals = background_rows(near(clip), shelf=sold, shop_id=clip.shop_id)
            others = gallery_of(tuple(sorted({row.product_id for row in rivals})))
            first, second = (gallery_of(sold), others) if shelf else (others, Gallery(()))
            scored.append((clip, score_clip(clip, first, second, calibration)))
        version = shelf.version if shelf else None
        found.append(Recorded(stream_id=stream_id, clips=tuple(scored), shelf_version=version, clear=clear))
    return found


def candidates_of(
    stream: Recorded, calibration: Calibration, rule: MentionRule, *, hear: bool = True, see: bool = True
) -> list[CandidateRecord]:
    """What match writes for the stream. `hear` or `see` False: as if there were no sound or no picture."""
    records: list[CandidateRecord] = []
    known = Continuity()
    for clip, scores in stream.clips:
        arrival = arrive(known, clip)
        known = arrival.continuity
        records += arrival.before
        if arrival.usable:
            used = replace(clip, seen=clip.seen if see else (), spoken=clip.spoken if hear else ())
            raw = ClipScores(seen=scores.seen if see else (), spoken=scores.spoken if hear else ())
            records.append(
                judge_clip(
                    used,
                    raw,
                    calibration=calibration,
                    rule=rule,
                    shelf_version=stream.shelf_version,
                    clear=stream.clear,
                )
            )
        records += arrival.after
    return records


def replayed(
    streams: Sequence[Sequence[CandidateRecord]], rule: MentionRule
) -> tuple[list[ProductMention], dict[str, Closing]]:
    """The events of all streams under another rule, and what each mention rested on."""
    events: list[ProductMention] = []
    closings: dict[str, Closing] = {}
    for records in streams:
        state = StreamMentions()
        for record in records:
            used = replace(record, rule=rule) if isinstance(record, Candidates) else record
            (state, mentions, _), closed = trace(state, used)
            events += mentions
            closings |= {one.mention_id: one for one in closed}
    return events, closings


# --- step 1: probabilities ------------------------------------------------------------------------------------------


def fit_calibration(streams: Sequence[Recorded], truth: Sequence[TruthRow], start: Calibration) -> Calibration:
    """Temperature and unknown score (and the weight of naming) that come nearest to the truth, as Brier scores: much
    talk about a product says nothing of it ("my family loves it"), and its label must not cost a fortune.

    A frame is right about the shelf product that is shown, or about the unknown (and what is not on the shelf)
    where none is; an utterance likewise about what is spoken of for most of its length.
    """
    rows_of: dict[str, list[TruthRow]] = {}
    for row in truth:
        rows_of.setdefault(row.stream_id, []).append(row)
    seen: list[Case] = []
    spoken: list[Case] = []
    for stream in streams:
        rows = rows_of.get(stream.stream_id, [])
        for clip, scores in stream.clips:
            for frame, raw in zip(clip.seen, scores.seen, strict=True):
                on = [row.product_id for row in rows if row.shown and row.start_ms <= frame.at_ms < row.end_ms]
                compared = [one for one in raw if one.cosine is not None]
                seen.append(_case(compared, on[0] if on else None))
            for utterance, raw in zip(clip.spoken, scores.spoken, strict=True):
                spoken.append(_case(raw, _spoken_of(rows, utterance.span)))
    temperatures = np.geomspace(0.01, 0.4, 22)
    unknowns = np.linspace(-0.2, 1.0, 41)
    found = start
    if seen:
        cost, temperature, unknown, _ = _likeliest(seen, temperatures, unknowns, (0.0,))
        sys.stderr.write(f"frames: {len(seen)}, Brier {cost:.4f}\n")
        found = replace(found, seen=replace(found.seen, temperature=temperature, unknown_score=unknown))
    if spoken:
        weights = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
        cost, temperature, unknown, weight = _likeliest(spoken, temperatures, np.linspace(-0.2, 2.0, 45), weights)
        sys.stderr.write(f"utterances: {len(spoken)}, Brier {cost:.4f}\n")
        found = replace(
            found,
            spoken=replace(found.spoken, temperature=temperature, unknown_score=unknown, naming_weight=weight),
        )
    return found


def _spoken_of(rows: Sequence[TruthRow], span: Span) -> str | None:
    """The product that most of the time is about, if any."""
    about: Counter[str] = Counter()
    for row in rows:
        for start_ms, end_ms in row.spoken_spans_ms:
            if row.product_id is not None:
                about[row.product_id] += span.overlap_ms(Span(start_ms=start_ms, end_ms=end_ms))
    product, shared_ms = max(about.items(), key=lambda one: one[1], default=("", 0))
    return product if 2 * shared_ms >= span.duration_ms and shared_ms else None


Case = tuple[list[float], list[float], list[bool], bool]
"""Cosines, shares of titles named, which of them are right, and whether the unknown is."""


def _case(raw: Sequence[RawScore], target: str | None) -> Case:
    """Where no shelf product is there, all that is off the shelf is right together with the unknown: none is told."""
    listed = any(one.listed and one.product_id == target for one in raw)
    right = [one.product_id == target if listed else not one.listed for one in raw]
    return [one.cosine or 0.0 for one in raw], [one.named for one in raw], right, not listed


def _likeliest(
    cases: Sequence[Case], temperatures: Axis, unknowns: Axis, weights: Sequence[float]
) -> tuple[float, float, float, float]:
    """The least mean cost, and the temperature, unknown score and naming weight that have it."""
    width = max(1, *(len(cosines) for cosines, *_ in cases))
    cosines, named = np.full((len(cases), width), -1e3), np.zeros((len(cases), width))
    right = np.zeros((len(cases), width), dtype=bool)
    for i, (cosine, share, ok, _) in enumerate(cases):
        cosines[i, : len(cosine)], named[i, : len(cosine)], right[i, : len(cosine)] = cosine, share, ok
    unknown_right = np.array([unknown for *_, unknown in cases])
    best = (math.inf, 0.0, 0.0, 0.0)
    for weight in weights:
        scores = cosines + weight * named
        for temperature in temperatures:
            top = scores.max(axis=1, initial=float(np.max(unknowns)))
            shares = np.exp((scores - top[:, None]) / temperature)
            total, hit = shares.sum(axis=1), (shares * right).sum(axis=1)
            for unknown in unknowns:
                rest = np.exp((unknown - top) / temperature)
                likely = (hit + rest * unknown_right) / (total + rest)
                cost = float(((1.0 - likely) ** 2).mean())
                if cost < best[0]:
                    best = (cost, round(float(temperature), 4), round(float(unknown), 4), float(weight))
    return best


# --- step 2: the rule -----------------------------------------------------------------------------------------------

STEPS: Mapping[str, tuple[float, float, float]] = {  # least, most, and a usual step (as a factor where least > 0)
    "stay_ms": (4_000, 120_000, 1.4),
    "come_ms": (30_000, 3_600_000, 1.6),
    "belief_limit": (1.5, 10.0, 1.25),
    "seen_weight": (0.1, 2.0, 1.25),
    "seen_prior": (0.02, 0.5, 1.3),
    "seen_floor": (0.0005, 0.1, 1.6),
    "spoken_weight": (0.1, 3.0, 1.25),
    "spoken_prior": (0.02, 0.6, 1.3),
    "rival_weight": (0.01, 4.0, 1.6),
    "topic_keep": (0.02, 0.98, 1.25),
    "topic_hold_ms": (500, 20_000, 1.4),
    "topic_boost": (0.05, 60.0, 1.6),
    "spoken_reach_ms": (100, 15_000, 1.5),
    "open_probability": (0.3, 0.95, 1.1),
    "close_probability": (0.03, 0.7, 1.25),
    "support_probability": (0.1, 0.8, 1.15),
    "close_after_ms": (1_000, 15_000, 1.25),
    "spoken_close_after_ms": (1_000, 20_000, 1.25),
    "unsupported_ms": (5_000, 40_000, 1.3),
    "minimum_ms": (100, 7_000, 1.3),
    "keep_confidence": (0.02, 0.7, 1.2),
}


def objective(found: MentionScore, *, slow_ms: int = 4_000) -> float:
    """What is searched for: F1 at tIoU 0.5, with some of 0.3 and 0.7 so that it rises in small steps; recognising
    late, and missing what is only spoken of, cost."""
    value = 0.6 * (found.f1["0.5"] or 0.0) + 0.2 * (found.f1["0.3"] or 0.0) + 0.2 * (found.f1["0.7"] or 0.0)
    late_ms = max(0, (found.recognise_p50_ms or 0) - slow_ms)
    return value - 0.05 * late_ms / 1_000 + 0.05 * (found.recall["spoken@0.3"] or 0.0)


def search(
    rule: MentionRule, value_of: Callable[[MentionRule], float], *, rounds: int, seed: int
) -> tuple[MentionRule, float]:
    """Tries one to three parameters at a time and keeps what is better: seeded, so that it can be done again."""
    random = np.random.default_rng(seed)
    best, value = rule, value_of(rule)
    names = sorted(STEPS)
    for number in range(rounds):
        changed: dict[str, float | int] = {}
        for name in random.choice(names, size=int(random.integers(1, 4)), replace=False).tolist():
            least, most, step = STEPS[name]
            now = max(float(getattr(best, name)), least)
            moved = min(max(now * step ** float(random.normal(0.0, 1.5)), least), most)
            changed[name] = round(moved) if name.endswith("_ms") else round(moved, 4)
        tried = replace(best, **changed)
        if tried.close_probability > tried.open_probability:
            continue
        found = value_of(tried)
        if found > value:
            best, value = tried, found
            sys.stderr.write(f"{number}: {value:.4f} {changed}\n")
    return best, value


# --- step 3: the threshold ------------------------------------------------------------------------------------------

THRESHOLDS = tuple(round(0.2 + 0.05 * i, 2) for i in range(13))


def fit_threshold(
    streams: Sequence[Sequence[CandidateRecord]], truth: Sequence[TruthRow], rule: MentionRule, start: float
) -> float:
    """The probability from which a frame or utterance counts as of something known; of equals the nearest to `start`,
    since on easy streams many do equally well."""

    def value_of(threshold: float) -> float:
        return _value_of([with_threshold(records, threshold) for records in streams], truth, rule)

    return max(sorted({*THRESHOLDS, start}, key=lambda tried: abs(tried - start)), key=value_of)


def with_threshold(records: Sequence[CandidateRecord], threshold: float) -> list[CandidateRecord]:
    """The records as match would have written them with another threshold."""
    return [replace(one, threshold=threshold) if isinstance(one, Candidates) else one for one in records]


# --- step 4: the confidence -----------------------------------------------------------------------------------------


def fit_confidence(
    streams: Sequence[Sequence[CandidateRecord]], truth: Sequence[TruthRow], rule: MentionRule, *, ridge: float = 1.0
) -> ConfidenceRule:
    """Logistic regression over all mentions that the rule gives when it takes none back."""
    everything = replace(rule, keep_confidence=0.0, minimum_ms=0)
    events, closings = replayed(streams, everything)
    told = told_of(events)
    right = pair(truth, told, 0.3)
    features = np.array(
        [features_of(closings[one.mention_id].support, length_ms=closings[one.mention_id].length_ms) for one in told]
    ).reshape(-1, 4)
    labels = np.array([one.mention_id in right for one in told], dtype=float)
    design = np.hstack([np.ones((len(told), 1)), features])
    prior = np.array([rule.confidence.constant, rule.confidence.seen, rule.confidence.rival])
    weights = np.array([*prior, rule.confidence.spoken, rule.confidence.length])
    start = weights.copy()
    pull = ridge * np.array([0.01, 1.0, 1.0, 1.0, 1.0])  # few mentions: stay near what was
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (labels - p) - pull * (weights - start)
        hessian = (design * (p * (1.0 - p))[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step
        if float(np.abs(step).max()) < 1e-6:
            break
    constant, seen, rival, spoken, length = (round(float(weight), 4) for weight in weights)
    return replace(rule.confidence, constant=constant, seen=seen, rival=rival, spoken=spoken, length=length)


# --- all of it ------------------------------------------------------------------------------------------------------


def scored(
    streams: Sequence[Sequence[CandidateRecord]], truth: Sequence[TruthRow], rule: MentionRule
) -> tuple[MentionScore, list[Told]]:
    """What the rule reaches."""
    told = told_of(replayed(streams, rule)[0])
    return score(truth, told), told


def fit(
    streams: Sequence[Recorded], truth: Sequence[TruthRow], start: Judgement, *, rounds: int, seed: int, calibrate: bool
) -> Judgement:
    """All four steps; the last three twice, because each looks at the others."""
    calibration = fit_calibration(streams, truth, start.calibration) if calibrate else start.calibration
    rule = start.mention_rule
    records = [candidates_of(stream, calibration, rule) for stream in streams]
    for turn in range(2 if rounds else 0):
        rule, _ = search(rule, partial(_value_of, records, truth), rounds=rounds // 2, seed=seed + turn)
        if calibrate:
            calibration = replace(calibration, threshold=fit_threshold(records, truth, rule, calibration.threshold))
            records = [with_threshold(one, calibration.threshold) for one in records]
        rule = replace(rule, confidence=fit_confidence(records, truth, rule))
    return Judgement(calibration=calibration, mention_rule=rule)


def _value_of(records: Sequence[Sequence[CandidateRecord]], truth: Sequence[TruthRow], rule: MentionRule) -> float:
    return objective(scored(records, truth, rule)[0])


def _lines(path: Path, kind: type[T]) -> list[T]:
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as file:
        return [decoder.decode(line) for line in file if line.strip()]


def _started(path: Path | None, settings: Sequence[str], *, shelf: bool) -> Judgement:
    """Of a release that has one of its own for streams without a shelf, where there is none, that."""
    plain: dict[str, Any] = {"calibration": {}, "mention_rule": {}}
    if path is not None:
        manifest = msgspec.json.decode(path.read_bytes())
        judged = manifest if shelf else manifest.get("without_shelf", manifest)
        plain = {name: judged.get(name, {}) for name in plain}
    for setting in settings:
        name, _, value = setting.partition("=")
        place: dict[str, Any] = plain
        head, *parts = name.split(".")
        path_to = ["mention_rule", *parts] if head == "rule" else ["calibration", head, *parts]
        for part in path_to[:-1]:
            place = place.setdefault(part, {})
        place[path_to[-1]] = msgspec.json.decode(value)
    return msgspec.convert(plain, Judgement)


def _clear_of(path: Path | None) -> float:
    """ReleaseFacts.clear of the release.json to start from; 0 of another start."""
    manifest: dict[str, Any] = msgspec.json.decode(path.read_bytes()) if path else {}
    return msgspec.convert(manifest.get("newcomers", {}).get("clear", 0.0), float)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the scores as JSON, of the streams fitted on and of those held out; writes what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--clips", type=Path, required=True, nargs="+", help="ClipEmbedding values, one a line")
    parser.add_argument("--rows", type=Path, required=True, help="PageEmbedding values of the whole catalogue")
    parser.add_argument(
        "--shelves", type=Path, nargs="+", default=(), help="shelves.jsonl; none: streams without a shelf"
    )
    parser.add_argument("--truth", type=Path, required=True, nargs="+", help="truth.jsonl")
    parser.add_argument("--start", type=Path, help="release.json, or an earlier --out, to start from")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=JSON", help="see above")
    parser.add_argument("--rounds", type=int, default=300, help="rules to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hold-out", type=int, default=0, metavar="N", help="every Nth stream is only scored")
    parser.add_argument("--keep-calibration", action="store_true", help="fit the rule only")
    parser.add_argument("--out", type=Path, help="where calibration and mention_rule go, as JSON")
    parser.add_argument("--mentions", type=Path, help="where the final mentions of all streams go, for the scorer")
    args = parser.parse_args(argv)

    start = _started(args.start, args.settings, shelf=bool(args.shelves))
    clips = [clip for path in args.clips for clip in _lines(path, ClipEmbedding)]
    shelves = [shelf for path in args.shelves for shelf in _lines(path, Shelf)]
    truth = [row for path in args.truth for row in _lines(path, TruthRow)]
    rows = _lines(args.rows, PageEmbedding)
    if not shelves:
        catalogue = {row.product_id for row in rows}
        truth = [replace(row, on_shelf=row.product_id in catalogue) for row in truth]
    streams = recorded(clips, rows, shelves, start.calibration, clear=_clear_of(args.start))
    held = {s.stream_id for i, s in enumerate(streams) if args.hold_out and i % args.hold_out == args.hold_out - 1}
    known = {stream.stream_id for stream in streams}
    groups = {"fitted": known - held, "held_out": held}
    inside = [stream for stream in streams if stream.stream_id not in held]
    own = [row for row in truth if row.stream_id in groups["fitted"]]
    found = fit(inside, own, start, rounds=args.rounds, seed=args.seed, calibrate=not args.keep_calibration)
    report: dict[str, Any] = {}
    for name, members in groups.items():
        expected = [row for row in truth if row.stream_id in members]
        for sense, see, hear in (("", True, True), (".audio_off", True, False), (".video_off", False, True)):
            records = [
                candidates_of(stream, found.calibration, found.mention_rule, see=see, hear=hear)
                for stream in streams
                if stream.stream_id in members
            ]
            if records:
                report[name + sense] = asdict(scored(records, expected, found.mention_rule)[0])
    if args.mentions:
        records = [candidates_of(stream, found.calibration, found.mention_rule) for stream in streams]
        events, _ = replayed(records, found.mention_rule)
        args.mentions.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
    if args.out:
        args.out.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
