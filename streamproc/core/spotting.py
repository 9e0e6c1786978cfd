"""The fold of one stream's candidates into its mentions: pure, so that folding again gives the same events.

State in, record in; state, mentions and status changes out. Nothing here knows of topics, time of day or vectors.
"""

import math
from datetime import datetime, timedelta

from msgspec.structs import replace

from streamproc.core.belief import Support, Topic, Track, after_frame, after_time, after_utterance, unmoved
from streamproc.core.candidate import CandidateRecord, Candidates, Ended, Gap, Stalled
from streamproc.core.embedding import Quality
from streamproc.core.mention import (
    EndReason,
    Evidence,
    MentionSpan,
    MentionStatus,
    ProductMention,
    SeenFrame,
    mention_id_of,
)
from streamproc.core.progress import Progress
from streamproc.core.rule import MentionRule
from streamproc.core.span import Span, Value
from streamproc.core.status import LiveStatus, StreamStatus

TRACKS = 64  # products followed at a time; the least believed go first
PAST = 8  # earlier broadcasts remembered, so that what comes late from them opens nothing
LOOK_BACK_MS = 60_000  # no span starts further back than this: an utterance takes 12 s and comes a clip late
FRAME_MS = 2_000  # frames further apart than this do not stand for the time between them
_WORSE: dict[Quality, int] = {"full": 0, "fewer_frames": 1, "no_speech": 2}


class OpenMention(Value, frozen=True, kw_only=True):
    """A mention that was started and not ended: what has been told of it."""

    mention_id: str
    product_id: str
    revision: int
    start_ms: int  # as told last; earlier than in the first revision where words that came late say so
    not_before_ms: int  # what the previous mention of this product had looked at
    confidence: float
    spoken: bool  # whether any words had been told
    quality: Quality
    told_until_ms: int
    continues: str | None = None


class PastMention(Value, frozen=True, kw_only=True):
    """A product whose mention ended not long ago."""

    product_id: str
    until_ms: int  # the next one starts here at the earliest
    mention_id: str | None = None  # where a release change ended it: the next one continues it


class StreamMentions(Value, frozen=True, kw_only=True):
    """Everything that the fold remembers of one stream; small, JSON and back without loss."""

    broadcast_id: str | None = None
    past_broadcasts: tuple[str, ...] = ()
    progress: Progress = Progress()
    observed_until_ms: int = 0  # end of the newest media folded
    known_until_ms: int = 0  # the same, counting media known to be missing
    frame_at_ms: int | None = None
    looked_until_ms: int = 0  # up to where belief has been carried
    captured_at: datetime | None = None
    shop_id: str | None = None
    release: str | None = None
    shelf_version: int | None = None
    rule: MentionRule = MentionRule()
    topic: Topic = Topic()
    tracks: tuple[Track, ...] = ()
    mentions: tuple[OpenMention, ...] = ()
    past: tuple[PastMention, ...] = ()
    status: StreamStatus | None = None
    status_reason: str = ""
    ended: bool = False


class Closing(Value, frozen=True, kw_only=True):
    """What a mention rested on when it ended."""

    mention_id: str
    support: Support
    length_ms: int


Folded = tuple[StreamMentions, tuple[ProductMention, ...], tuple[LiveStatus, ...]]


def advance(state: StreamMentions, record: CandidateRecord) -> Folded:
    """One record further. A record that is not news (another time the same, a clip that fills a hole already passed
    over, a broadcast that is past) changes no mention."""
    return _folded(state, record).result()


def trace(state: StreamMentions, record: CandidateRecord) -> tuple[Folded, tuple[Closing, ...]]:
    """`advance`, and what the mentions that ended rested on: what fitting a rule needs beside the events."""
    fold = _folded(state, record)
    return fold.result(), tuple(fold.closings)


def _folded(state: StreamMentions, record: CandidateRecord) -> "_Fold":
    fold = _Fold(state, record.stream_id)
    if record.broadcast_id in state.past_broadcasts:
        return fold
    if record.broadcast_id != state.broadcast_id:
        fold.change_broadcast(record.broadcast_id)
    match record:
        case Candidates():
            fold.clip(record)
        case Gap():
            fold.gap(record)
        case Stalled():
            fold.stalled(record)
        case _:
            fold.ended(record)
    return fold


def confidence_of(support: Support, *, length_ms: int, rule: MentionRule) -> float:
    """P(this mention is right): logistic in what its frames and words say and in how long they say it."""
    weights, (seen, rival, spoken, length) = rule.confidence, features_of(support, length_ms=length_ms)
    total = (
        weights.constant
        + weights.seen * seen
        + weights.rival * rival
        + weights.spoken * spoken
        + weights.length * length
    )
    return round(1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, total)))), 4)


def features_of(support: Support, *, length_ms: int) -> tuple[float, float, float, float]:
    """Mean probability of the frames, that of their strongest rival, the clearest utterance, ln(length / 10 s)."""
    frames = max(1, support.frames)
    return (
        support.seen_sum / frames,
        support.rival_sum / frames,
        support.spoken_best,
        math.log(max(500, length_ms) / 10_000),
    )


class _Fold:
    """One step, with the parts of the state that it changes taken out of their frozen shell."""

    def __init__(self, state: StreamMentions, stream_id: str) -> None:
        self.state = state
        self.stream_id = stream_id
        self.tracks = {track.product_id: track for track in state.tracks}
        self.open = {mention.product_id: mention for mention in state.mentions}
        self.past = {past.product_id: past for past in state.past}
        self.events: list[ProductMention] = []
        self.statuses: list[LiveStatus] = []
        self.closings: list[Closing] = []

    def result(self) -> Folded:
        state = replace(
            self.state,
            tracks=tuple(self.tracks[product] for product in sorted(self.tracks)),
            mentions=tuple(self.open[product] for product in sorted(self.open)),
            past=tuple(self.past[product] for product in sorted(self.past)),
        )
        return state, tuple(self.events), tuple(self.statuses)

    # --- the four kinds of record -----------------------------------------------------------------------------

    def change_broadcast(self, broadcast_id: str) -> None:
        """Another encoder session: nothing of the one before goes on."""
        before = self.state
        self.close_all("stream_ended")
        self.tracks, self.past = {}, {}
        known = (*before.past_broadcasts, before.broadcast_id) if before.broadcast_id is not None else ()
        self.state = StreamMentions(
            broadcast_id=broadcast_id,
            past_broadcasts=known[-PAST:],
            rule=before.rule,
            status=before.status,
            status_reason=before.status_reason,
        )

    def clip(self, clip: Candidates) -> None:
        placed = self.state.progress.place(clip.sequence)
        if placed == "again":
            return
        self.state = replace(self.state, progress=self.state.progress.having(clip.sequence))
        if placed == "late":  # decided without it already
            return
        if self.state.release not in (None, clip.release):  # promise 4: no mention mixes two spaces
            self.close_all("release")
            self.tracks = {}
            self.state = replace(self.state, topic=Topic())
        for product in clip.withdrawn:
            if product in self.open:
                self.close(product, "shelf")
            self.tracks.pop(product, None)
        until_ms = max(self.state.observed_until_ms, clip.span.end_ms)
        self.state = replace(
            self.state,
            observed_until_ms=until_ms,
            known_until_ms=max(self.state.known_until_ms, until_ms),
            captured_at=clip.captured_at,
            shop_id=clip.shop_id,
            release=clip.release,
            shelf_version=clip.shelf_version,
            rule=clip.rule,
            ended=False,
        )
        self.tell_status(
            "live" if clip.quality == "full" else "degraded", "" if clip.quality == "full" else clip.quality
        )
        opened = self.look(clip)
        for product in sorted(self.open):
            self.close_if_over(product)
        for product in sorted(opened):
            self.start(product, clip.quality)
        for product in sorted(self.open.keys() - opened):
            self.update(product, clip.quality)
        self.tidy()

    def gap(self, gap: Gap) -> None:
        if gap.span.end_ms <= self.state.known_until_ms:
            return
        self.state = replace(self.state, known_until_ms=gap.span.end_ms)
        self.tell_status("gap", gap.reason, at_ms=gap.span.end_ms)
        if gap.span.end_ms - self.state.observed_until_ms >= self.state.rule.gap_after_ms:
            self.close_all("gap")
            self.tracks = {}
            self.state = replace(self.state, topic=Topic(), frame_at_ms=None)

    def stalled(self, stalled: Stalled) -> None:
        if not self.state.ended and stalled.at_ms >= self.state.known_until_ms:
            self.tell_status("stalled", "", at_ms=stalled.at_ms)

    def ended(self, ended: Ended) -> None:
        if self.state.ended or ended.at_ms < self.state.observed_until_ms:
            return
        self.close_all("stream_ended")
        self.tracks = {}
        self.state = replace(self.state, ended=True, topic=Topic())
        self.tell_status("ended", ended.reason, at_ms=ended.at_ms)

    # --- belief -----------------------------------------------------------------------------------------------

    def look(self, clip: Candidates) -> set[str]:
        """Folds the clip's utterances, which come a clip late, and then its frames. The products to start."""
        opened: set[str] = set()
        for utterance in clip.spoken:
            self.tracks, topic = after_utterance(
                self.tracks, utterance, topic=self.state.topic, threshold=clip.threshold, rule=clip.rule
            )
            self.state = replace(self.state, topic=topic)
            opened |= self.convinced(clip.rule)
        pictures = {picture.at_ms: picture for picture in clip.frames}
        for frame, covers in zip(clip.seen, self.covered(clip), strict=True):
            self.pass_time(frame.at_ms, clip.rule)
            self.tracks = after_frame(
                self.tracks,
                frame,
                covers=covers,
                topic=self.state.topic,
                threshold=clip.threshold,
                held=frozenset(self.open.keys() | opened),
                picture=pictures.get(frame.at_ms),
                rule=clip.rule,
            )
            self.state = replace(self.state, frame_at_ms=frame.at_ms)
            opened |= self.convinced(clip.rule)
        self.pass_time(clip.span.end_ms, clip.rule)
        return opened

    def covered(self, clip: Candidates) -> list[Span]:
        """The time that each frame of a clip stands for: half-way to its neighbours, and within its clip at the ends
        of the stream or of a hole."""
        times = [frame.at_ms for frame in clip.seen]
        before = [self.state.frame_at_ms, *times]
        spans = []
        for i, at_ms in enumerate(times):
            previous = before[i]
            back_ms = at_ms - clip.span.start_ms if previous is None else (at_ms - previous) // 2
            start_ms = max(0, at_ms - min(max(0, back_ms), FRAME_MS // 2))
            if i + 1 < len(times):
                ahead_ms = (times[i + 1] - at_ms) // 2
            else:  # the next clip is not here yet: as far as back
                ahead_ms = min(clip.span.end_ms - at_ms, at_ms - start_ms if previous is not None else FRAME_MS)
            spans.append(Span(start_ms=start_ms, end_ms=at_ms + min(max(0, ahead_ms), FRAME_MS // 2)))
        return spans

    def pass_time(self, to_ms: int, rule: MentionRule) -> None:
        self.tracks = after_time(self.tracks, to_ms - self.state.looked_until_ms, rule)
        self.state = replace(self.state, looked_until_ms=max(self.state.looked_until_ms, to_ms))

    def convinced(self, rule: MentionRule) -> set[str]:
        """Products whose belief opens a mention, on evidence that no mention before has used."""
        return {
            product
            for product, track in self.tracks.items()
            if product not in self.open
            and track.support is not None
            and track.belief >= rule.open_probability
            and track.support.end_ms > self.earliest(product)
        }

    def earliest(self, product: str) -> int:
        """Where a new mention of the product may start."""
        past = self.past.get(product)
        return max(0, self.state.observed_until_ms - LOOK_BACK_MS, past.until_ms if past else 0)

    # --- the life of a mention --------------------------------------------------------------------------------

    def start(self, product: str, quality: Quality) -> None:
        past = self.past.get(product)
        support = self.support_of(product)
        not_before_ms = self.earliest(product)
        start_ms = max(not_before_ms, min(support.start_ms, self.state.observed_until_ms))
        mention = OpenMention(
            mention_id=mention_id_of(self.stream_id, self.state.broadcast_id or "", product, start_ms),
            product_id=product,
            revision=1,
            start_ms=start_ms,
            not_before_ms=not_before_ms,
            confidence=self.so_far(support, start_ms),
            spoken=support.spoken_best > 0.0,
            quality=quality,
            told_until_ms=self.state.observed_until_ms,
            continues=past.mention_id if past and start_ms - past.until_ms <= self.state.rule.unsupported_ms else None,
        )
        self.open[product] = mention
        self.tell(mention, "started")

    def update(self, product: str, quality: Quality) -> None:
        """Tells an open mention again if something that people see has changed, or for the hour."""
        told, support, rule = self.open[product], self.support_of(product), self.state.rule
        start_ms = max(min(told.start_ms, support.start_ms), told.not_before_ms)
        now = replace(
            told,
            revision=told.revision + 1,
            start_ms=start_ms,
            confidence=self.so_far(support, start_ms),
            spoken=support.spoken_best > 0.0,
            quality=max(told.quality, quality, key=_WORSE.__getitem__),
            told_until_ms=self.state.observed_until_ms,
        )
        if (
            (now.start_ms, now.spoken, now.quality) != (told.start_ms, told.spoken, told.quality)
            or abs(now.confidence - told.confidence) >= rule.update_step
            or now.told_until_ms - told.told_until_ms >= rule.update_after_ms
        ):
            self.open[product] = now
            self.tell(now, "updated")

    def close_if_over(self, product: str) -> None:
        """Ends a mention whose evidence stopped: after a while if belief is gone, after long whatever belief says."""
        track, rule = self.tracks[product], self.state.rule
        support = self.support_of(product)
        quiet_ms = self.state.observed_until_ms - support.end_ms
        patience_ms = rule.spoken_close_after_ms if support.last == "spoken" else rule.close_after_ms
        if (quiet_ms >= patience_ms and track.belief < rule.close_probability) or quiet_ms >= rule.unsupported_ms:
            self.close(product, "left_view")
            del self.tracks[product]

    def close_all(self, reason: EndReason) -> None:
        for product in sorted(self.open):
            self.close(product, reason)

    def close(self, product: str, reason: EndReason) -> None:
        """Ends the mention where its evidence ended, or takes it back where that was too little."""
        told, support, rule = self.open.pop(product), self.support_of(product), self.state.rule
        start_ms = max(min(told.start_ms, support.start_ms), told.not_before_ms)
        end_ms = max(start_ms, min(support.end_ms, self.state.observed_until_ms))
        confidence = confidence_of(support, length_ms=end_ms - start_ms, rule=rule)
        self.closings.append(Closing(mention_id=told.mention_id, support=support, length_ms=end_ms - start_ms))
        # What another shelf or a hole cut short has not shown how long it was going to be, and what another release
        # cut goes on in its successor, which names it.
        long_enough = end_ms - start_ms >= rule.minimum_ms or reason in ("gap", "shelf")
        kept = reason == "release" or (long_enough and confidence >= rule.keep_confidence)
        self.tell(
            replace(
                told,
                revision=told.revision + 1,
                start_ms=start_ms,
                confidence=confidence,
                told_until_ms=self.state.observed_until_ms,
            ),
            "ended" if kept else "retracted",
            end_ms=end_ms,
            reason=reason,
        )
        self.past[product] = PastMention(
            product_id=product,
            until_ms=max(self.state.observed_until_ms, start_ms + 1),
            mention_id=told.mention_id if reason == "release" else None,
        )

    def support_of(self, product: str) -> Support:
        support = self.tracks[product].support
        if support is None:
            raise AssertionError(f"an open mention of {product} has lost its evidence")
        return support

    def so_far(self, support: Support, start_ms: int) -> float:
        """The confidence of an open mention, judged by what it may yet become."""
        rule = self.state.rule
        return confidence_of(support, length_ms=max(support.end_ms - start_ms, rule.confidence.open_as_ms), rule=rule)

    # --- telling ----------------------------------------------------------------------------------------------

    def tell(
        self, mention: OpenMention, status: MentionStatus, *, end_ms: int | None = None, reason: EndReason | None = None
    ) -> None:
        state, support = self.state, self.support_of(mention.product_id)
        if state.captured_at is None or state.broadcast_id is None or state.release is None:
            raise AssertionError("a mention without a clip")
        frames = tuple(SeenFrame(at_ms=picture.at_ms, ref=picture.ref) for picture in support.pictures)
        self.events.append(
            ProductMention(
                mention_id=mention.mention_id,
                revision=mention.revision,
                status=status,
                stream_id=self.stream_id,
                broadcast_id=state.broadcast_id,
                shop_id=state.shop_id,
                product_id=mention.product_id,
                page_id=self.tracks[mention.product_id].page_id,
                span=MentionSpan(start_ms=mention.start_ms, end_ms=end_ms),
                started_at=state.captured_at + timedelta(milliseconds=mention.start_ms),
                confidence=mention.confidence,
                evidence=Evidence(
                    seen=round(support.seen_best, 4),
                    spoken=round(support.spoken_best, 4),
                    frames=frames,
                    words=support.words[:32],
                ),
                observed_until_ms=state.observed_until_ms,
                end_reason=reason,
                continues=mention.continues,
                quality=mention.quality,
                release=state.release,
                shelf_version=state.shelf_version,
            )
        )

    def tell_status(self, status: StreamStatus, reason: str, *, at_ms: int | None = None) -> None:
        """Only changes are news."""
        state = self.state
        if (status, reason) == (state.status, state.status_reason) or state.broadcast_id is None:
            return
        self.state = replace(state, status=status, status_reason=reason)
        self.statuses.append(
            LiveStatus(
                stream_id=self.stream_id,
                broadcast_id=state.broadcast_id,
                status=status,
                at_ms=state.observed_until_ms if at_ms is None else at_ms,
                reason=reason,
            )
        )

    def tidy(self) -> None:
        """Forgets what can no longer matter, so that the state stays small however long the stream."""
        rest = unmoved(self.state.rule)
        kept = [
            track
            for product, track in self.tracks.items()
            if product in self.open or track.support is not None or track.log_odds > rest
        ]
        kept.sort(key=lambda track: (track.product_id not in self.open, -track.log_odds, track.product_id))
        self.tracks = {track.product_id: track for track in kept[: max(TRACKS, len(self.open))]}
        horizon_ms = self.state.observed_until_ms - LOOK_BACK_MS
        self.past = {product: past for product, past in self.past.items() if past.until_ms > horizon_ms}
