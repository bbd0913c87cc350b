"""The compiled mean-field equilibrium against the one by torch operations."""

import numpy as np
import pytest
import torch

from strategies.layers import (
    Anderson,
    ConvergenceError,
    DEQEncoder,
    Implicit,
    Picard,
    Unrolled,
    fixed_point,
    record_solves,
)
from strategies.layers.equilibrium import mean_field_kernels as kernels

B, N, F, H = 6, 7, 3, 5


def encoder(seed=0, hidden=H, **options):
    torch.manual_seed(seed)
    made = DEQEncoder(F, hidden, **options).double()
    with torch.no_grad():
        made.cell.deviation *= 6  # beyond the bound, so that its gradient counts as well
    return made


def batch(seed=0, size=B):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, N, F, dtype=torch.float64, generator=generator)
    mask = torch.rand(size, N, generator=generator) > 0.3
    mask[0] = False  # a date on which nothing trades
    return x, mask


def plain(made, x, mask):
    """The same equilibrium by ``fixed_point``."""
    x, present = made._check(x, mask)
    if made.embedding is not None:
        x = torch.cat([x, made.embedding.expand(len(x), -1, -1)], dim=2)
    f, inputs = made.cell.problem(x, present)
    z0 = torch.zeros_like(inputs[0])
    return fixed_point(f, z0, inputs=inputs, solver=made.solver, adjoint=made.adjoint)


def gradients(value, made, x):
    pull = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
    return torch.autograd.grad((value * pull).sum(), [x, *made.parameters()])


def test_tanh_to_the_last_digits():
    x = np.concatenate([np.linspace(-25, 25, 100_001), 10.0 ** np.arange(-300, 3), [0.0, -0.0]])
    out, power = np.empty_like(x), np.empty_like(x)
    kernels._tanh(x, out, power)
    assert np.abs(out - np.tanh(x)).max() < 5e-16
    broken = np.array([np.nan, np.inf, -np.inf])
    kernels._tanh(broken, out[:3], power[:3])
    assert np.isnan(out[0])
    assert out[1:3].tolist() == [1, -1]


@pytest.mark.parametrize(
    "solver",
    [None, Picard(), Anderson(), Anderson(memory=2, onset=0.5), Anderson(memory=6, onset=0.9)],
    ids=["default", "picard", "anderson", "late", "never"],
)
@pytest.mark.parametrize("embedding", [0, 2])
def test_the_compiled_equilibrium_is_the_plain_one(embedding, solver):
    made = encoder(embedding=embedding, assets=N if embedding else None, solver=solver)
    x, mask = batch()
    x.requires_grad_()
    with record_solves() as one:
        compiled = made.equilibrium(x, mask)
        mine = gradients(compiled.value, made, x)
    with record_solves() as two:
        reference = plain(made, x, mask)
        theirs = gradients(reference.value, made, x)
    assert torch.allclose(compiled.value, reference.value, rtol=0, atol=1e-8)
    assert (compiled.value[~mask] == 0).all()
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-7 * max(1, float(b.abs().max())))
    for a, b in zip(one.summary(), two.summary(), strict=True):
        assert a["solve"] == b["solve"]
        assert a["mean_steps"] == pytest.approx(b["mean_steps"], abs=1)
        assert a["most_steps"] == pytest.approx(b["most_steps"], abs=2)
        assert 0 < a["residual"] <= 1e-9


def test_its_gradient_is_that_of_differences():
    tight = Picard(rtol=1e-13, atol=1e-15, max_steps=3000)
    made = encoder(hidden=2, solver=tight, adjoint=Implicit(tight))
    x, mask = batch(size=2)
    parameters = list(made.parameters())

    def value(x, *given):
        named = dict(zip([name for name, _ in made.named_parameters()], given, strict=True))
        return torch.func.functional_call(made, named, (x, mask))

    assert torch.autograd.gradcheck(value, (x.requires_grad_(), *parameters))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_sample_is_bitwise_what_it_is_alone(threads):
    made = encoder()
    x, mask = batch(size=130)
    x.requires_grad_()
    pull = torch.randn(130, N, H, dtype=torch.float64)
    alone = torch.cat([made(x[b : b + 1], mask[b : b + 1]) for b in range(130)])
    (of_alone,) = torch.autograd.grad((alone * pull).sum(), x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        joint = made(x, mask)
        (of_joint,) = torch.autograd.grad((joint * pull).sum(), x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, joint)
    torch.testing.assert_close(of_alone, of_joint, rtol=1e-13, atol=1e-15)


def test_a_solve_that_does_not_converge_names_its_samples():
    made = encoder(solver=Picard(max_steps=4))
    x, mask = batch()
    with pytest.raises(ConvergenceError, match="fixed point: 5 of 6 samples") as found:
        made(x, mask)
    assert found.value.samples == (1, 2, 3, 4, 5)  # the first holds nothing, and is at rest
    flagged = encoder(solver=Picard(max_steps=4), on_failure="flag").equilibrium(x, mask)
    assert flagged.converged.tolist() == [True, False, False, False, False, False]
    short = encoder(adjoint=Implicit(Picard(max_steps=2)))
    with pytest.raises(ConvergenceError, match="adjoint"):
        short(x, mask).sum().backward()


def test_a_second_derivative_is_refused():
    made = encoder()
    x, mask = batch()
    with pytest.raises(RuntimeError, match="not differentiable"):
        torch.autograd.grad(made(x.requires_grad_(), mask).sum(), x, create_graph=True)


def test_mixing_saves_steps_where_the_map_contracts_slowly():
    x, mask = batch()
    taken = {}
    for solver in (Picard(max_steps=2000), Anderson(), Anderson(onset=0.4)):
        made = encoder(hidden=16, solver=solver)
        with torch.no_grad():
            made.cell.mean.copy_(3 * torch.eye(16))  # beyond the bound, which it reaches
            made.cell.inject.weight *= 0.01  # where tanh is straight
        with record_solves() as record:
            made(x, mask).sum().backward()
        taken[solver] = [each["mean_steps"] for each in record.summary()]
    picard, anderson, late = taken.values()
    for plain, mixed, either in zip(picard, anderson, late, strict=True):
        assert mixed < 0.7 * plain
        assert either < 0.8 * plain


def test_unrolled_gradients_need_no_solver_of_their_own():
    x, mask = batch()
    found = []
    for adjoint in (None, Unrolled()):
        made = encoder(adjoint=adjoint)
        found.append(gradients(made(x.requires_grad_(), mask), made, x))
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, atol=1e-7)
