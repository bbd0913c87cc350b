"""A z = b and G z <= h: against quadprog, beside rows, with gradients, shared and by sample."""

import numpy as np
import pytest
import quadprog
import torch

from strategies.layers import InfeasibleError, MeanVarianceLayer

LAYER = MeanVarianceLayer()


def drawn(batch=4, assets=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(batch, assets, assets, generator=draw, dtype=torch.float64)
    risk = root @ root.mT / assets + 0.2 * torch.eye(assets)
    q = torch.randn(batch, assets, generator=draw, dtype=torch.float64)
    A = torch.randn(1, assets, generator=draw, dtype=torch.float64)
    G = torch.randn(2, assets, generator=draw, dtype=torch.float64)
    return risk, q, A, G


def test_weights_are_those_of_quadprog():
    risk, q, A, G = drawn()
    wide = {"lower": -5.0, "upper": 5.0}
    weights = LAYER(risk, q, A=A, b=0.1, G=G, h=torch.tensor([0.2, -0.1]), **wide)
    rows = np.vstack([np.ones(6), A.numpy(), -G.numpy(), np.eye(6), -np.eye(6)]).T
    least = np.concatenate([[1.0, 0.1, -0.2, 0.1], np.full(12, -5.0)])
    for k in range(4):
        found = quadprog.solve_qp(risk[k].numpy(), q[k].numpy(), rows, least, 2)[0]
        np.testing.assert_allclose(weights[k], found, atol=1e-7)


def test_they_stand_beside_rows_and_may_differ_by_sample():
    risk, q, A, G = drawn()
    limits = torch.linspace(0.1, 0.4, 4, dtype=torch.float64).unsqueeze(1).expand(4, 2)
    together = LAYER(risk, q, rows=A, row_upper=0.3, A=A.flip(1), b=0.1, G=G, h=limits, lower=-5.0)
    for k in range(4):
        rows = torch.cat([A, A.flip(1), G])
        least = torch.tensor([-torch.inf, 0.1, -torch.inf, -torch.inf])
        most = torch.cat([torch.tensor([0.3, 0.1]), limits[k]])
        alone = LAYER(risk[k], q[k : k + 1], rows=rows, row_lower=least, row_upper=most, lower=-5.0)
        torch.testing.assert_close(together[k : k + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("each", [False, True])
def test_gradients_agree_with_finite_differences(each):
    risk, q, A, G = drawn(batch=2, assets=5)
    b = torch.tensor([0.1], dtype=torch.float64)
    h = torch.tensor([-0.2, 3.0], dtype=torch.float64)
    inputs = [A, b, G, h]
    if each:
        inputs = [part.expand(2, *part.shape).contiguous() for part in inputs]
    inputs = [part.clone().requires_grad_() for part in inputs]

    def weights(A, b, G, h):
        return LAYER(risk, q, lower=-5.0, upper=5.0, A=A, b=b, G=G, h=h)

    assert torch.autograd.gradcheck(weights, inputs, eps=1e-6, atol=1e-6)


def test_what_does_not_fit_is_said():
    risk, q, A, G = drawn()
    with pytest.raises(ValueError, match="A goes with b, as in A z = b, and G with h"):
        LAYER(risk, q, A=A)
    with pytest.raises(ValueError, match=r"rows must have shape \(1, 6\)"):
        LAYER(risk, q, G=G[:1, :4], h=1.0)
    names = {"rows": A, "row_upper": 9.0, "row_names": ["beta"]}
    with pytest.raises(InfeasibleError, match="row 1 is at most -99"):
        LAYER(risk, q, G=G[:1], h=-99.0, **names)
