"""Products by oneDNN: as PyTorch's, with gradients, and the same bits in any company, weights arranged or not."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from tacit.model import decoder
from tacit.model.decoder import LEAST_ONEDNN_ROWS, Product, arranged

SIZES = st.integers(1, 160)


def made(out: int, inner: int, rows: int, seed: int, arrange: bool = True) -> tuple[Product, torch.Tensor]:
    """A product and what it is given."""
    generator = torch.Generator().manual_seed(seed)
    weight, x = (torch.randn(many, inner, generator=generator) for many in (out, rows))
    bias = torch.randn(out, generator=generator) if seed % 2 else None
    return Product(weight, bias, arrange), x


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.integers(0, 80), st.integers(0, 9), st.booleans())
def test_it_is_pytorchs_product_and_gradient(out: int, inner: int, rows: int, seed: int, arrange: bool) -> None:
    product, x = made(out, inner, rows, seed, arrange)
    pulled = torch.randn(rows, out, generator=torch.Generator().manual_seed(seed))
    found = []
    for call in (product, lambda given: linear(given, product.weight, product.bias)):
        given_x = x.clone().requires_grad_()
        y = call(given_x)
        y.backward(pulled)
        found.append((y.detach(), given_x.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        assert torch.equal(product(x), found[0][0])  # what is sampled is what is learned from


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.integers(LEAST_ONEDNN_ROWS, 300), st.booleans(), st.data())
def test_a_row_has_the_same_bits_in_any_company(
    out: int, inner: int, rows: int, arrange: bool, data: st.DataObject
) -> None:
    """There and back."""
    product, x = made(out, inner, rows, 0, arrange)
    pulled = torch.randn(rows, out, generator=torch.Generator().manual_seed(1))

    def both(places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        given_x = x[places].clone().requires_grad_()
        y = product(given_x)
        return y.detach(), torch.autograd.grad(y, given_x, pulled[places])[0]

    whole = both(torch.arange(rows))
    begin = data.draw(st.integers(0, rows - LEAST_ONEDNN_ROWS))
    end = data.draw(st.integers(begin + LEAST_ONEDNN_ROWS, rows))
    for places in (torch.arange(begin, end), torch.tensor(data.draw(st.permutations(range(rows))))):
        for some, all_of in zip(both(places), whole, strict=True):
            assert torch.equal(some, all_of[places])


def test_large_models_and_other_numbers_are_not_held_twice(monkeypatch) -> None:
    model = torch.nn.Linear(8, 8)
    assert arranged(model) and not arranged(torch.nn.Linear(8, 8).bfloat16())
    monkeypatch.setattr(decoder, "ARRANGED_AT_MOST", 63)
    assert not arranged(model)
    product, x = made(5, 7, 3, 1, arrange=False)
    product.weight, product.bias, x = product.weight.double(), product.bias.double(), x.double()
    assert torch.equal(product(x), linear(x, product.weight, product.bias))
