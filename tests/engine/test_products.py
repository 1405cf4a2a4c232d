from __future__ import annotations

import pytest
import torch

from rung.engine import products
from rung.engine.products import linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 5, 70])
def test_a_product_equals_pytorchs_whoever_makes_it(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, onednn: bool, rows: int
) -> None:
    if not onednn:
        monkeypatch.setattr(products, "_ONEDNN", None)
    random = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=random).to(dtype) for shape in ((rows, 24), (40, 24), (40,)))
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), x @ weight.T, **tolerance)
        torch.testing.assert_close(linear(x, weight, bias), x @ weight.T + bias, **tolerance)
        grad = torch.randn(rows, 40, generator=random).to(dtype)
        torch.testing.assert_close(linear(grad, weight.T), grad @ weight, **tolerance)


def test_where_onednn_lacks_memory_to_work_in_pytorchs_own_call_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> torch.Tensor:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(products, "_ONEDNN", refuses)
    x, weight = torch.randn(3, 24), torch.randn(40, 24)
    torch.testing.assert_close(linear(x, weight), x @ weight.T)
