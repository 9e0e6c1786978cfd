"""What the losses promise whatever the embeddings."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from encoders.losses import centroid_cross_entropy, page_cross_entropy, supervised_contrast


def unit(*shape: int, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


LABELS = torch.tensor([0, 0, 1, 2, 2, 1])


def test_the_right_page_costs_less_than_a_wrong_one() -> None:
    pages = unit(3, 16)

    assert page_cross_entropy(pages, pages, torch.arange(3), scale=20) < page_cross_entropy(
        pages, pages, torch.tensor([1, 2, 0]), scale=20
    )


def test_a_margin_makes_the_same_answer_cost_more() -> None:
    live, pages = unit(6, 16), unit(3, 16, seed=1)

    plain = page_cross_entropy(live, pages, LABELS, scale=20)
    assert page_cross_entropy(live, pages, LABELS, scale=20, margin=0.1) > plain


def test_pairs_that_are_left_out_do_not_learn_from_each_other() -> None:
    live, pages = unit(6, 16).requires_grad_(), unit(4, 16, seed=1).requires_grad_()
    left_out = torch.zeros(6, 4, dtype=torch.bool)
    left_out[:, 3] = True

    torch.autograd.backward(page_cross_entropy(live, pages, LABELS, scale=20, smoothing=0.05, left_out=left_out))
    assert pages.grad is not None
    assert 0 == float(pages.grad[3].abs().sum())
    assert (pages.grad[:3].abs().sum(dim=1) > 0).all()


def test_contrast_does_not_push_apart_what_is_left_out() -> None:
    rows = unit(6, 16).requires_grad_()
    left_out = (LABELS[:, None] == 2) != (LABELS[None, :] == 2)  # the third product against the others

    torch.autograd.backward(supervised_contrast(rows, LABELS, temperature=0.1, left_out=left_out))
    alone = unit(6, 16)[LABELS == 2].requires_grad_()
    torch.autograd.backward(supervised_contrast(alone, LABELS[LABELS == 2], temperature=0.1))
    assert rows.grad is not None
    assert alone.grad is not None
    assert torch.allclose(alone.grad / 3, rows.grad[LABELS == 2], atol=1e-6)  # a mean over six, not over two


def test_guessing_costs_the_logarithm_of_the_number_of_pages() -> None:
    pages = torch.ones(5, 4) / 2

    loss = page_cross_entropy(pages[:1], pages, torch.tensor([3]), scale=20)
    assert pytest.approx(float(torch.log(torch.tensor(5.0)))) == float(loss)


@pytest.mark.parametrize("turn", [torch.eye(16), torch.linalg.qr(torch.randn(16, 16)).Q])
def test_turning_the_whole_space_changes_no_loss(turn: Tensor) -> None:
    live, pages = unit(6, 16), unit(3, 16, seed=1)

    losses: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
        lambda a, b: page_cross_entropy(a, b, LABELS, scale=20, margin=0.1, smoothing=0.05),
        lambda a, b: centroid_cross_entropy(b, a, LABELS, scale=20),
        lambda a, _: supervised_contrast(a, LABELS, temperature=0.1),
    )
    for loss in losses:
        assert pytest.approx(float(loss(live, pages)), rel=1e-3) == float(loss(live @ turn, pages @ turn))


def test_the_order_of_samples_does_not_matter() -> None:
    live = unit(6, 16)
    order = torch.tensor([3, 1, 5, 0, 2, 4])

    expected = supervised_contrast(live, LABELS, temperature=0.1)
    assert torch.allclose(expected, supervised_contrast(live[order], LABELS[order], temperature=0.1))


def test_samples_without_a_partner_do_not_count() -> None:
    alone = supervised_contrast(unit(4, 16), torch.arange(4), temperature=0.1)

    assert float(alone) == 0.0


def test_samples_of_one_product_are_drawn_together() -> None:
    live = unit(6, 16).requires_grad_()
    for _ in range(200):
        (gradient,) = torch.autograd.grad(
            supervised_contrast(functional.normalize(live, dim=-1), LABELS, temperature=0.1), live
        )
        live = (live - 0.5 * gradient).detach().requires_grad_()
    cosines = functional.normalize(live, dim=-1) @ functional.normalize(live, dim=-1).T

    before = unit(6, 16) @ unit(6, 16).T
    assert cosines[0, 1] > max(0.7, float(before[0, 1]))
    assert cosines[0, 2] < 0.3
