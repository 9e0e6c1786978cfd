"""Towers, classifier and temperature with what they are trained by: one step from samples to gradients.

The loop knows nothing of domains; this knows nothing of files, schedules or checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from encoders.cope.classifier import ProductClassifier
from encoders.cope.config import CopeConfig, quirks_of
from encoders.cope.loading import moved
from encoders.cope.losses import TemperatureScale, contrast, cross_domain_contrast, multi_positive_contrast
from encoders.cope.ranks import average_gradient, gathered, rank, total, world
from encoders.cope.towers import Batch, Embedded, Towers


class CopeTask:
    """`model` is the towers, wrapped for several ranks if there are any; `classifier` is this rank's slice."""

    def __init__(self, config: CopeConfig, towers: Towers, products: int, device: torch.device) -> None:
        self.config, self.device = config, device
        self.half = multiplies_bf16(device) if config.precision == "auto" else config.precision == "bf16"
        self.towers = towers.to(device)
        shape = config.loss
        self.classifier = ProductClassifier(
            products, config.dim, scale=shape.scale, margin=shape.margin, seed=config.seed
        ).to(device)
        self.temperature = TemperatureScale(shape.temperature, learnable=shape.learnable).to(device)
        self.model: nn.Module = self.towers
        if world() > 1:
            self.model = DistributedDataParallel(self.towers, device_ids=[device] if device.type == "cuda" else None)

    def gradients(self, parts: Sequence[Batch], step: int) -> dict[str, float]:
        """Leaves the gradients of one step in the parameters and returns the loss and its terms.

        Several parts give the gradient of the whole batch all the same (GradCache, Gao et al. 2021, arXiv 2101.06983):
        all are embedded without gradient, the loss is taken over all, and each is embedded once more to send its
        vectors' gradient back. Dropout is the same both times.
        """
        parts = [moved(part, self.device) for part in parts]
        self.towers.train()
        if len(parts) == 1:
            embedded = self._embed(self.model, parts[0], step, 0)
            terms = self.losses(embedded, parts[0].labels)
            torch.autograd.backward(terms["loss"])
        else:
            with torch.no_grad():
                first = [self._embed(self.towers, part, step, i) for i, part in enumerate(parts)]
            whole = Embedded(*(torch.cat(rows).requires_grad_() for rows in zip(*first, strict=True)))
            terms = self.losses(whole, torch.cat([part.labels for part in parts]))
            torch.autograd.backward(terms["loss"])
            self._send_back(parts, whole, step)
        if isinstance(self.temperature.logarithm, nn.Parameter):
            average_gradient(self.temperature.logarithm)
        return {name: float(value.detach()) for name, value in terms.items()}

    def losses(self, embedded: Embedded, labels: Tensor) -> dict[str, Tensor]:
        """The loss over all ranks' rows, and its terms; `embedded` and `labels` are this rank's."""
        shape, weight = self.config.loss, quirks_of(self.config).contrast
        labels = gathered(labels)
        everyone = Embedded(*(gathered(rows) for rows in embedded))
        rows, temperature = everyone.domains, self.temperature()
        terms = {"contrast": cross_domain_contrast(rows, temperature=temperature, smoothing=shape.smoothing)}
        loss = weight * terms["contrast"]
        if shape.classification:
            terms["classification"] = torch.stack([self.classifier(part, labels) for part in rows]).sum()
            loss = loss + shape.classification * terms["classification"]
        if shape.multi_positive:
            terms["multi_positive"] = multi_positive_contrast(rows, labels, temperature=temperature)
            loss = loss + shape.multi_positive * terms["multi_positive"]
        if shape.auxiliary:
            pairs = [(alone, clip) for alone in (everyone.title, everyone.image) for clip in (rows.video, rows.live)]
            sides = [contrast(a, b, temperature=temperature, smoothing=shape.smoothing) for a, b in pairs]
            terms["auxiliary"] = torch.stack(sides).sum()
            loss = loss + shape.auxiliary * terms["auxiliary"]
        return {"loss": loss} | terms

    def clip_gradients(self) -> float:
        """Bounds the towers' gradient and, unless the published code is followed, the classifier's; returns the
        norm of the towers' before."""
        most = self.config.optimiser.clip
        norm = torch.nn.utils.clip_grad_norm_(self.towers.parameters(), most)
        centres = self.classifier.weight.grad
        if quirks_of(self.config).classifier_clipped and centres is not None:
            whole = total(centres.square().sum()).sqrt()
            centres.mul_((most / (whole + 1e-6)).clamp(max=1.0))
        return float(norm)

    def _send_back(self, parts: Sequence[Batch], whole: Embedded, step: int) -> None:
        size = len(parts[0].labels)
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            model = self.model
            waiting = isinstance(model, DistributedDataParallel) and not last
            with model.no_sync() if waiting and isinstance(model, DistributedDataParallel) else nullcontext():
                rows = self._embed(model, part, step, i)
                used = [(row, leaf.grad) for row, leaf in zip(rows, whole, strict=True) if leaf.grad is not None]
                torch.autograd.backward(
                    [row for row, _ in used], [gradient[i * size : (i + 1) * size] for _, gradient in used]
                )

    def _embed(self, model: nn.Module, part: Batch, step: int, place: int) -> Embedded:
        torch.manual_seed(((self.config.seed * 1_000_003 + step) * 64 + place) * 4096 + rank())  # for dropout
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            embedded: Embedded = model(part)
        return embedded


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16. A CPU without them emulates it: a Linear layer of ViT-B took six
    times as long as in fp32 (AMD EPYC with AVX2, one thread)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in ("amx_bf16", "avx512_bf16", "bf16"))
