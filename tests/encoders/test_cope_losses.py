"""What the cross-domain losses promise, and that two processes learn what one would."""

import importlib
import math
import multiprocessing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from encoders.cope.classifier import ProductClassifier, shard
from encoders.cope.losses import Domains, TemperatureScale, contrast, cross_domain_contrast, multi_positive_contrast
from encoders.cope.ranks import average_gradient, gathered, rank

PRODUCTS, DIM, BATCH = 11, 6, 8


def unit(*shape: int, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def domains(count: int = BATCH) -> Domains:
    return Domains(*(unit(count, DIM, seed=seed) for seed in range(3)))


def test_contrast_is_the_mean_of_both_directions() -> None:
    left, right = unit(5, DIM), unit(5, DIM, seed=1)
    own = torch.arange(5)
    both = [functional.cross_entropy(m / 0.05, own, label_smoothing=0.1) for m in (left @ right.T, right @ left.T)]

    assert torch.allclose(sum(both, torch.tensor(0.0)) / 2, contrast(left, right, temperature=0.05))


def test_three_pairs_of_domains_count_alike_and_in_any_order() -> None:
    rows = domains()
    turned = Domains(rows.live, rows.page, rows.video)

    assert torch.allclose(
        cross_domain_contrast(rows, temperature=0.05), cross_domain_contrast(turned, temperature=0.05)
    )


def test_alike_embeddings_cost_three_logarithms_of_the_batch() -> None:
    same = torch.ones(BATCH, DIM) / math.sqrt(DIM)

    loss = cross_domain_contrast(Domains(same, same, same), temperature=0.05)
    assert pytest.approx(3 * math.log(BATCH), rel=1e-5) == float(loss)


def test_smoothing_keeps_the_loss_of_a_perfect_answer_above_nothing() -> None:
    rows = Domains(*(torch.eye(BATCH),) * 3)

    assert float(cross_domain_contrast(rows, temperature=0.05, smoothing=0.0)) < 1e-4
    assert float(cross_domain_contrast(rows, temperature=0.05, smoothing=0.1)) > 1.0


def test_a_learnable_temperature_learns_and_stays_in_bounds() -> None:
    temperature = TemperatureScale(0.05, learnable=True)
    torch.autograd.backward(cross_domain_contrast(domains(), temperature=temperature()))

    assert temperature.logarithm.grad is not None
    assert abs(float(temperature.logarithm.grad)) > 0
    with torch.no_grad():
        temperature.logarithm.fill_(-100.0)
    assert pytest.approx(0.01) == float(temperature().detach())
    assert not list(TemperatureScale(0.05, learnable=False).parameters())


def test_samples_of_one_product_count_as_partners_across_and_within_domains() -> None:
    rows = Domains(unit(2, DIM), unit(2, DIM), unit(2, DIM))
    apart = multi_positive_contrast(rows, torch.tensor([0, 1]), temperature=0.1)
    together = multi_positive_contrast(rows, torch.tensor([0, 0]), temperature=0.1)

    assert float(apart) < float(together)
    # two products, each three times the same vector: the two partners share the softmax with the others
    cosine = float(rows.page[0] @ rows.page[1])
    expected = math.log(2 * math.exp(10) + 3 * math.exp(10 * cosine)) - 10
    assert pytest.approx(expected, rel=1e-4) == float(apart)


def test_the_classifier_is_cosface_with_cross_entropy() -> None:
    classifier = ProductClassifier(PRODUCTS, DIM)
    rows, labels = unit(BATCH, DIM), torch.arange(BATCH)
    cosines = rows @ functional.normalize(classifier.weight, dim=-1).T
    logits = 64 * (cosines - 0.4 * functional.one_hot(labels, PRODUCTS))

    assert torch.allclose(functional.cross_entropy(logits, labels), classifier(rows, labels), rtol=1e-5)


def test_shards_cover_every_product_of_rope_once() -> None:
    slices = [shard(187_431, place, 16) for place in range(16)]

    assert [0, *(one.end for one in slices)] == [*(one.start for one in slices), 187_431]
    assert {one.end - one.start for one in slices} == {11_714, 11_715}


class Outcome(NamedTuple):
    """What a step computes: the loss, gradients of towers and temperature, and of the class centres."""

    loss: Tensor
    tower: Tensor
    temperature: Tensor
    centres: Tensor


def step(rows: slice) -> Outcome:
    """One step on a slice of the same batch by the same tower, as one of any number of ranks."""
    torch.manual_seed(3)
    tower: nn.Module = nn.Linear(5, DIM)
    weight = tower.weight
    if dist.is_initialized():
        tower = DistributedDataParallel(tower)
    classifier = ProductClassifier(PRODUCTS, DIM, seed=1)
    temperature = TemperatureScale(0.1, learnable=True)
    inputs = torch.randn(3, BATCH, 5, generator=torch.Generator().manual_seed(4))
    labels = gathered(torch.tensor([0, 10, 3, 7, 2, 9, 4, 5])[rows])
    vectors = functional.normalize(tower(inputs[:, rows].reshape(-1, 5)), dim=-1).reshape(3, -1, DIM)
    together = Domains(*(gathered(part) for part in vectors))
    loss = cross_domain_contrast(together, temperature=temperature())
    loss = loss + 0.5 * multi_positive_contrast(together, labels // 2, temperature=temperature())
    loss = loss + torch.stack([classifier(part, labels) for part in together]).sum()
    torch.autograd.backward(loss)
    assert isinstance(temperature.logarithm, nn.Parameter)
    average_gradient(temperature.logarithm)
    return Outcome(loss.detach(), *(known(p) for p in (weight, temperature.logarithm, classifier.weight)))


def known(parameter: Any) -> Tensor:
    assert parameter.grad is not None
    return torch.as_tensor(parameter.grad)


def one_of_two(place: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=place, world_size=2)
    half = BATCH // 2
    outcome = step(slice(place * half, (place + 1) * half))
    torch.save(outcome._asdict(), f"{folder}/{rank()}.pt")
    dist.destroy_process_group()


def test_two_processes_get_the_gradients_of_one(tmp_path: Path) -> None:
    importlib.import_module("torch._dynamo")  # DDP wants it: once here, not once in each process
    forked = multiprocessing.get_context("fork")  # a new interpreter would import torch again, for half a minute
    ranks = [forked.Process(target=one_of_two, args=(place, str(tmp_path))) for place in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [0, 0] == [process.exitcode for process in ranks]
    first, second = (Outcome(**torch.load(tmp_path / f"{place}.pt")) for place in range(2))
    alone = step(slice(0, BATCH))

    for mine in (first, second):
        assert torch.allclose(alone.loss, mine.loss, rtol=1e-5)
        assert torch.allclose(alone.tower, mine.tower, rtol=1e-4, atol=1e-6)
        assert torch.allclose(alone.temperature, mine.temperature, rtol=1e-4, atol=1e-6)
    assert torch.allclose(alone.centres, torch.cat([first.centres, second.centres]), rtol=1e-4, atol=1e-6)
