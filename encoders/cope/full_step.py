"""One real optimisation step at a config's full size on made-up pixels: what it costs in time and memory."""

from __future__ import annotations

import resource
import time
from typing import Any

import torch

from encoders.cope.backbone import build_towers
from encoders.cope.config import CopeConfig
from encoders.cope.loading import split
from encoders.cope.optimiser import Learner
from encoders.cope.task import CopeTask
from encoders.cope.towers import Batch

KIB_PER_GIB = 1 << 20


def full_step(config: CopeConfig, *, products: int, classes: int) -> dict[str, Any]:
    """Builds the towers and a classifier of `classes` products and takes one step on a batch of `products`.

    Returns seconds (of the clock, and of all cores together), peak memory in GiB (of the whole process; of the device,
    if there is one), sizes and losses.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    began = time.perf_counter()
    towers, backbone = build_towers(config)
    task = CopeTask(config, towers, classes, device)
    learner = Learner(config, task)
    built = time.perf_counter()
    side, frames = backbone.look.pixels, config.frames
    clips = [torch.randn(products, count, 3, side, side) for count in (1, frames, frames)]
    batch = Batch(clips[0], backbone.tokenise(["a title"] * products), clips[1], clips[2], torch.arange(products))
    before = [value.detach().clone() for value in task.towers.visual.parameters()][-1]
    start, start_cpu = time.perf_counter(), time.process_time()
    terms = task.gradients(split(batch, config.batch.accumulate), 0)
    terms["gradient"] = task.clip_gradients()
    learner.step(task, config.optimiser.rise)
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    after = list(task.towers.visual.parameters())[-1].detach()
    return {
        "step_s": round(seconds, 2),
        "step_cpu_s": round(cpu_seconds, 2),
        "build_s": round(built - began, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_GIB, 2),
        "device_peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.type == "cuda" else None,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": "bf16" if task.half else "fp32",
        "products": products,
        "parts": config.batch.accumulate,
        "tower_parameters": sum(p.numel() for p in towers.parameters()),
        "classifier_parameters": task.classifier.weight.numel(),
        "moved": not torch.equal(before, after),
        **{name: round(value, 4) for name, value in terms.items()},
    }
