"""How good a log of mentions is against the truth of made-up streams: what the fitting of a rule looks at.

The definitions are those of the benchmark's scorer (one-to-one matching greedy by confidence, by temporal overlap);
figures that are published come from that scorer.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from streamproc.core.mention import ProductMention

LOOSE = 0.3


class TruthRow(Struct, frozen=True, kw_only=True):
    """A row of truth.jsonl: what is on for how long."""

    stream_id: str
    product_id: str | None
    start_ms: int
    end_ms: int
    shown: bool
    spoken: bool
    on_shelf: bool
    spoken_spans_ms: tuple[tuple[int, int], ...] = ()


class Told(Struct, frozen=True, kw_only=True):
    """A mention as it stood at last, and when it was first told."""

    mention_id: str
    stream_id: str
    product_id: str
    start_ms: int
    end_ms: int
    confidence: float
    first_ms: int  # observed_until_ms of its first event


class MentionScore(Struct, frozen=True, kw_only=True):
    """None where there is nothing to divide by."""

    true_spans: int
    predictions: int
    f1: Mapping[str, float | None]  # by tIoU
    recall: Mapping[str, float | None]  # by kind and tIoU, `shown@0.5`
    false_per_hour: float
    recognise_p50_ms: int | None
    recognise_p95_ms: int | None
    mentions_per_span: float | None
    ece: float | None


def told_of(events: Iterable[ProductMention]) -> list[Told]:
    """The final state of every mention that was not taken back."""
    first: dict[str, ProductMention] = {}
    final: dict[str, ProductMention] = {}
    for event in events:
        first.setdefault(event.mention_id, event)
        final[event.mention_id] = event
    return [
        Told(
            mention_id=mention_id,
            stream_id=event.stream_id,
            product_id=event.product_id,
            start_ms=event.span.start_ms,
            end_ms=event.observed_until_ms if event.span.end_ms is None else event.span.end_ms,
            confidence=event.confidence,
            first_ms=first[mention_id].observed_until_ms,
        )
        for mention_id, event in final.items()
        if event.status != "retracted"
    ]


class Timed(Protocol):
    """Something that lasts from `start_ms` to `end_ms`."""

    @property
    def start_ms(self) -> int: ...

    @property
    def end_ms(self) -> int: ...


def overlap_ms(one: Timed, other: Timed) -> int:
    return max(0, min(one.end_ms, other.end_ms) - max(one.start_ms, other.start_ms))


def tiou(one: Timed, other: Timed) -> float:
    """Temporal intersection over union."""
    shared = overlap_ms(one, other)
    whole = one.end_ms - one.start_ms + other.end_ms - other.start_ms - shared
    return shared / whole if shared else 0.0


def pair(truth: Sequence[TruthRow], told: Sequence[Told], least: float) -> dict[str, TruthRow]:
    """Which true span each mention is, by mention id: the surest choose first."""
    free: dict[tuple[str, str | None], list[TruthRow]] = defaultdict(list)
    for row in truth:
        if row.on_shelf:
            free[row.stream_id, row.product_id].append(row)
    pairs = {}
    for mention in sorted(told, key=lambda one: (-one.confidence, one.start_ms, one.mention_id)):
        rows = free[mention.stream_id, mention.product_id]
        best = max(rows, key=lambda row: tiou(row, mention), default=None)
        if best is not None and tiou(best, mention) >= least:
            pairs[mention.mention_id] = best
            rows.remove(best)
    return pairs


def score(truth: Sequence[TruthRow], told: Sequence[Told]) -> MentionScore:
    """Everything at once, all streams pooled."""
    spans = [row for row in truth if row.on_shelf]
    kinds = {
        "shown": [row for row in spans if row.shown and not row.spoken],
        "spoken": [row for row in spans if row.spoken and not row.shown],
        "both": [row for row in spans if row.shown and row.spoken],
    }
    f1: dict[str, float | None] = {}
    recall: dict[str, float | None] = {}
    for least in (0.3, 0.5, 0.7):
        hits = pair(truth, told, least)
        whole = len(told) + len(spans)
        f1[str(least)] = 2 * len(hits) / whole if whole else None
        found = Counter((row.stream_id, row.start_ms, row.product_id) for row in hits.values())
        for kind, rows in kinds.items():
            hit = sum(found[row.stream_id, row.start_ms, row.product_id] for row in rows)
            recall[f"{kind}@{least}"] = hit / len(rows) if rows else None
    loose = pair(truth, told, LOOSE)
    delays = sorted(one.first_ms - loose[one.mention_id].start_ms for one in told if one.mention_id in loose)
    ends: dict[str, int] = {}
    for row in truth:
        ends[row.stream_id] = max(ends.get(row.stream_id, 0), row.end_ms)
    hours = sum(ends.values()) / 3_600_000
    return MentionScore(
        true_spans=len(spans),
        predictions=len(told),
        f1=f1,
        recall=recall,
        false_per_hour=(len(told) - len(loose)) / hours if hours else 0.0,
        recognise_p50_ms=delays[len(delays) // 2] if delays else None,
        recognise_p95_ms=delays[len(delays) * 95 // 100] if delays else None,
        mentions_per_span=_pieces(spans, told),
        ece=_calibration_error([(one.confidence, one.mention_id in loose) for one in told]),
    )


def _pieces(spans: Sequence[TruthRow], told: Sequence[Told]) -> float | None:
    pieces: Counter[tuple[str, int]] = Counter()
    for one in told:
        own = [row for row in spans if (row.stream_id, row.product_id) == (one.stream_id, one.product_id)]
        best = max(own, key=lambda row: overlap_ms(row, one), default=None)
        if best is not None and overlap_ms(best, one):
            pieces[best.stream_id, best.start_ms] += 1
    return pieces.total() / len(pieces) if pieces else None


def _calibration_error(judged: Sequence[tuple[float, bool]]) -> float | None:
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, right in judged:
        bins[min(14, int(confidence * 15))].append((confidence, right))
    if not judged:
        return None
    return sum(abs(sum(c for c, _ in one) - sum(r for _, r in one)) for one in bins.values()) / len(judged)
