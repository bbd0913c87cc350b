"""Fixed points and their gradients against closed forms, dense solves and torchdeq."""

import warnings

import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strategies.layers import (
    Anderson,
    Broyden,
    ConvergenceError,
    Implicit,
    Phantom,
    Picard,
    Unrolled,
    fixed_point,
)
from strategies.layers.solve_record import record_solves

RTOL, ATOL = 1e-9, 1e-13  # the defaults in float64
SOLVERS = [Picard(), Picard(damping=0.3), Anderson(), Broyden()]
TIGHT = [Picard(rtol=1e-13), Anderson(rtol=1e-13), Broyden(rtol=1e-13)]
by_name = pytest.mark.parametrize(
    "solver", SOLVERS, ids=["picard", "damped", "anderson", "broyden"]
)


def tanh_problem(B: int, D: int, contraction: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """W (D, D) of that norm and x (B, D), both leaves: the map is tanh(z W + x)."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(D, D, generator=generator, dtype=torch.float64)
    W = W * (contraction / torch.linalg.matrix_norm(W, ord=2))
    x = torch.randn(B, D, generator=generator, dtype=torch.float64)
    return W.requires_grad_(), x.requires_grad_()


def dense_solve(M: Tensor, b: Tensor) -> Tensor:
    """Solves M y = b for (..., D, D) and (..., D)."""
    Q, R = torch.linalg.qr(M)
    return torch.linalg.solve_triangular(R, Q.mT @ b.unsqueeze(-1), upper=True).squeeze(-1)


def dense_gradients(z: Tensor, W: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of W and x at the fixed point z of tanh(z W + x), by a dense solve per sample."""
    slope = 1 - z.square()  # (B, D)
    J = slope.unsqueeze(2) * W.T  # (B, D, D): d f_i / d z_j
    g = dense_solve(torch.eye(W.shape[0], dtype=W.dtype) - J.mT, v)
    return z.T @ (g * slope), g * slope


def gradients(f, leaves, **arguments) -> list[Tensor]:
    value = fixed_point(f, **arguments).value
    v = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).view_as(value)
    return list(torch.autograd.grad(value, leaves, v))


# Exactness


@by_name
def test_linear_map_has_its_closed_form(solver):
    W, x = tanh_problem(4, 6, 0.8)
    solution = fixed_point(lambda z: z @ W + x, torch.zeros_like(x), solver=solver)
    exact = dense_solve(torch.eye(6, dtype=x.dtype) - W.T, x)
    torch.testing.assert_close(solution.value, exact, rtol=0, atol=1e-7)
    assert solution.converged.all()
    assert (solution.residual <= RTOL).all()


@pytest.mark.parametrize("solver", TIGHT, ids=["picard", "anderson", "broyden"])
@pytest.mark.parametrize("contraction", [0.5, 0.99, 1.5])
def test_gradient_equals_the_dense_solve(solver, contraction):
    W, x = tanh_problem(5, 8, contraction)
    z0 = torch.zeros_like(x)
    value = fixed_point(lambda z: torch.tanh(z @ W + x), z0, solver=solver).value
    v = torch.randn_like(value)
    got = torch.autograd.grad(
        fixed_point(
            lambda z: torch.tanh(z @ W + x), z0, solver=solver, adjoint=Implicit(solver)
        ).value,
        (W, x),
        v,
    )
    for mine, exact in zip(got, dense_gradients(value.detach(), W.detach(), v), strict=True):
        assert (mine - exact).norm() <= 1e-10 * exact.norm()


@by_name
def test_gradcheck(solver):
    W, x = tanh_problem(3, 4, 0.9)
    solver = type(solver)(rtol=1e-12)
    assert torch.autograd.gradcheck(
        lambda W, x: (
            fixed_point(
                lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), solver=solver,
                adjoint=Implicit(solver),
            ).value
        ),
        (W, x),
    )  # fmt: skip


def test_gradient_keeps_its_precision_at_any_scale():
    """A mean over many samples makes gradients far smaller than an absolute tolerance."""
    W, x = tanh_problem(3, 5, 0.9)
    for solver in SOLVERS:
        value = fixed_point(
            lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), adjoint=Implicit(solver)
        ).value
        v = torch.randn_like(value)
        large, small = (
            torch.autograd.grad(value, W, s * v, retain_graph=True)[0] for s in (1, 1e-20)
        )
        torch.testing.assert_close(small * 1e20, large, rtol=1e-6, atol=1e-12)


def test_three_adjoints_agree():
    W, x = tanh_problem(4, 6, 0.8)
    problem = {"z0": torch.zeros_like(x), "solver": Picard(rtol=1e-13)}
    implicit, unrolled, phantom = (
        gradients(lambda z: torch.tanh(z @ W + x), (W, x), adjoint=adjoint, **problem)
        for adjoint in (Implicit(Picard(rtol=1e-13)), Unrolled(), Phantom(steps=200))
    )
    for exact, *others in zip(implicit, unrolled, phantom, strict=True):
        for other in others:
            torch.testing.assert_close(other, exact, rtol=1e-9, atol=1e-11)


def test_phantom_is_the_truncated_series():
    W, x = tanh_problem(2, 3, 0.6)
    got = gradients(
        lambda z: z @ W + x, (x,), z0=torch.zeros_like(x), adjoint=Phantom(steps=3)
    )[0]  # fmt: skip
    v = torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view_as(x)
    torch.testing.assert_close(got, v + v @ W.T + v @ W.T @ W.T)


def test_phantom_with_damping_still_converges_to_the_gradient():
    W, x = tanh_problem(2, 3, 0.6)
    exact, damped = (
        gradients(lambda z: torch.tanh(z @ W + x), (W,), z0=torch.zeros_like(x), adjoint=adjoint)[0]
        for adjoint in (Implicit(), Phantom(steps=150, damping=0.5))
    )
    torch.testing.assert_close(damped, exact, rtol=1e-6, atol=1e-8)


def test_agrees_with_torchdeq():
    torchdeq = pytest.importorskip("torchdeq")
    W, x = tanh_problem(4, 6, 0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = torchdeq.get_deq(
            ift=True, f_solver="fixed_point_iter", b_solver="fixed_point_iter", f_max_iter=300,
            b_max_iter=300, f_tol=1e-12, b_tol=1e-12, f_stop_mode="rel", b_stop_mode="rel",
        )  # fmt: skip
        theirs = layer(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x))[0][-1]
    ours = fixed_point(
        lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), solver=Picard(rtol=1e-12),
        adjoint=Implicit(Picard(rtol=1e-12)),
    ).value  # fmt: skip
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    v = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad(ours, (W, x), v), torch.autograd.grad(theirs, (W, x), v), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9)


# Properties


@settings(deadline=None, max_examples=25)
@given(
    B=st.integers(1, 6),
    D=st.integers(1, 8),
    contraction=st.floats(0.01, 0.95),
    seed=st.integers(0, 10_000),
)
def test_random_contractions(B, D, contraction, seed):
    W, x = tanh_problem(B, D, contraction, seed)

    def f(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ W + x)

    z0, values = torch.zeros_like(x), []
    for solver in SOLVERS:
        solution = fixed_point(f, z0, inputs=(x,), solver=solver)
        gap = (f(solution.value, x) - solution.value).norm(dim=1)
        size = f(solution.value, x).norm(dim=1)
        assert (gap <= 1.01 * (RTOL * size + ATOL)).all()
        values.append(solution.value)
    error = 1e-9 * D**0.5 / (1 - contraction)
    for value in values[1:]:
        assert (value - values[0]).norm(dim=1).max() <= 2 * error
    alone = fixed_point(f, z0[:1], inputs=(x[:1],), solver=Anderson()).value
    assert (alone - values[2][:1]).norm() <= 2 * error

    v = torch.randn_like(x)
    fine = Picard(rtol=1e-12, max_steps=2000)
    value = fixed_point(f, z0, inputs=(x,), solver=fine, adjoint=Implicit(fine)).value
    (slope,) = torch.autograd.grad(value, x, v)
    direction, h = torch.randn_like(x), 1e-5
    with torch.no_grad():
        up, down = (
            fixed_point(f, z0, inputs=(x + s * h * direction,), solver=fine).value for s in (1, -1)
        )
    difference = (v * (up - down)).sum() / (2 * h)
    torch.testing.assert_close((slope * direction).sum(), difference, rtol=1e-5, atol=1e-5)


# Per-sample stopping


@by_name
def test_each_sample_takes_its_own_steps_and_then_rests(solver):
    W, x = (t.detach() for t in tanh_problem(3, 6, 0.98))
    rates = torch.tensor([[0.1], [0.5], [1.0]], dtype=torch.float64)
    solution = fixed_point(lambda z: torch.tanh(rates * (z @ W) + x), x, solver=solver)
    if solver != Picard(damping=0.3):
        assert solution.steps[0] < solution.steps[1] < solution.steps[2]
    seen = []

    def f(z: Tensor) -> Tensor:
        seen.append(z)
        return torch.tanh(0.1 * (z @ W) + x[:1])

    with torch.no_grad():
        alone = fixed_point(f, x[:1], solver=solver)
    assert solution.steps[0] == alone.steps[0] == len(seen)
    torch.testing.assert_close(solution.value[:1], seen[-1], rtol=1e-13, atol=1e-15)


@by_name
def test_converged_samples_leave_the_evaluation(solver):
    rates = torch.tensor([[0.01]] * 7 + [[0.95]], dtype=torch.float64).expand(8, 3)
    rows = []

    def f(z: Tensor, rates: Tensor) -> Tensor:
        rows.append(len(z))
        return rates * torch.cos(z) @ torch.tensor([[0, 1.0, 0], [0, 0, 1], [1, 0, 0]]).to(z)

    z0 = torch.rand(8, 3, dtype=torch.float64)
    with torch.no_grad():
        dropped = fixed_point(f, z0, inputs=(rates,), solver=solver)
    assert rows[0] == 8
    assert rows[-1] == 1
    assert sum(rows) < dropped.steps.sum() + 8 * 7
    kept = fixed_point(lambda z: f(z, rates), z0, solver=solver)
    torch.testing.assert_close(dropped.value, kept.value, rtol=1e-10, atol=1e-12)
    assert dropped.steps.equal(kept.steps)


@by_name
def test_history_is_the_residual_of_each_evaluation(solver):
    rates = torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    for inputs in ((), (rates,)):
        solution = fixed_point(
            lambda z, r=rates: r * torch.cos(z), torch.zeros_like(rates), inputs=inputs,
            solver=solver, history=True,
        )  # fmt: skip
        history = solution.history
        assert history is not None
        assert history.shape == (int(solution.steps.max()), 2)
        assert history[0].tolist() == pytest.approx([1, 1], rel=2e-3)  # atol / rtol is 1e-4
        assert history[-1].equal(solution.residual)
        assert (history[int(solution.steps[0]) - 1 :, 0] == solution.residual[0]).all()
    assert fixed_point(lambda z: rates * z, torch.zeros_like(rates)).history is None


# Solvers


def test_anderson_is_far_faster_where_contraction_is_slow():
    rates = torch.linspace(0.8, 0.99, 4, dtype=torch.float64)
    x = torch.randn(3, 4, dtype=torch.float64)
    plain = fixed_point(lambda z: z * rates + x, x, solver=Picard(max_steps=5000))
    mixed = fixed_point(lambda z: z * rates + x, x, solver=Anderson(memory=5))
    assert mixed.steps.max() * 20 < plain.steps.min()
    torch.testing.assert_close(mixed.value, x / (1 - rates), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_anderson_does_the_same_at_any_scale(scale):
    W, x = tanh_problem(3, 6, 0.95)
    z0 = torch.zeros_like(x)
    solver = Anderson(atol=0)
    unit = fixed_point(lambda z: torch.tanh(z @ W + x), z0, solver=solver)
    scaled = fixed_point(lambda z: scale * torch.tanh(z / scale @ W + x), z0, solver=solver)
    assert scaled.steps.equal(unit.steps)
    torch.testing.assert_close(scaled.value / scale, unit.value, rtol=1e-9, atol=1e-12)


def test_a_mixed_iterate_that_is_worse_is_taken_back():
    """Slopes that turn throw the secants off: after a rise comes a plain step from before it."""
    W, x = (t.detach() for t in tanh_problem(20, 1, 0.95))
    seen = []

    def f(z: Tensor) -> Tensor:
        image = torch.sin(6 * z @ W) / 6 + x
        seen.append((image - z).norm(dim=1))
        return image

    fixed_point(f, torch.zeros_like(x), solver=Anderson())
    size = torch.stack(seen)
    rose = (size[1:-1] > size[:-2]) & (size[:-2] > 1e-9)
    assert rose.sum() > 3
    assert (size[2:][rose] <= 0.95001 * size[:-2][rose]).all()


def test_broyden_and_anderson_solve_what_is_no_contraction():
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64, requires_grad=True)
    for solver in (Broyden(), Anderson()):
        solution = fixed_point(
            lambda z: x - 3 * z, torch.zeros_like(x), solver=solver, adjoint=Implicit(solver)
        )
        torch.testing.assert_close(solution.value, x / 4, rtol=0, atol=1e-7)
        (slope,) = torch.autograd.grad(solution.value.sum(), x)
        torch.testing.assert_close(slope, torch.full_like(x, 0.25), rtol=1e-7, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_broyden_solves_a_linear_map_in_twice_its_dimensions(seed):
    """However far it is from a contraction (Gay 1979, theorem 2.2)."""
    generator = torch.Generator().manual_seed(seed)
    A = 3 * torch.randn(5, 5, generator=generator, dtype=torch.float64)
    b = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    solution = fixed_point(lambda z: z @ A.T + b, torch.zeros_like(b), solver=Broyden())
    exact = dense_solve(torch.eye(5, dtype=A.dtype) - A, b)
    torch.testing.assert_close(solution.value, exact, rtol=1e-6, atol=1e-8)
    assert solution.steps.max() <= 2 * 5 + 2


def scipy_cases():
    """The systems F(x) = 0 of scipy's own tests of its nonlinear solvers, and their starts."""

    def cubic(x):
        scale = torch.tensor([3, 2, 1.5, 1, 0.5], dtype=torch.float64)
        return -scale * x - 0.01 * (x @ x) * x

    def tridiagonal(x):
        A = torch.tensor([[-2, 1, 0], [1, -2, 1], [0, 1, -2]], dtype=torch.float64)
        return A @ x - torch.tensor([1, 2, 3], dtype=torch.float64)

    def curved(x):
        J = torch.tensor([[-4.256, 14.7], [0.8394989, 0.59964207]], dtype=torch.float64)
        one = (x[0] + 3) * (x[1] ** 5 - 7) + 18
        two = torch.sin(x[1] * torch.exp(x[0]) - 1)
        return -torch.linalg.solve(J, torch.stack([one, two]))

    starts = [[1.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0], [-0.5, 1.4]]
    return list(zip([cubic, lambda x: x, tridiagonal, curved], starts, strict=True))


@pytest.mark.parametrize(("system", "start"), scipy_cases())
def test_broyden_is_as_good_as_scipys_on_its_own_cases(system, start):
    start = torch.tensor(start, dtype=torch.float64)
    taken = 0

    def counted(x):
        nonlocal taken
        taken += 1
        return system(torch.from_numpy(x)).numpy()

    scipy.optimize.broyden1(counted, start.numpy(), f_tol=1e-9)
    solution = fixed_point(
        lambda z: z + system(z[0]).unsqueeze(0), start.unsqueeze(0), solver=Broyden()
    )
    assert system(solution.value[0]).abs().max() < 1e-7
    assert solution.steps.max() <= taken + 3


def test_broyden_is_not_stopped_by_a_residual_that_rises():
    """A map five times too steep for a contraction."""
    W, x = (t.detach() for t in tanh_problem(50, 10, 5.0))
    solution = fixed_point(
        lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), solver=Broyden(), history=True
    )
    assert (solution.history.diff(dim=0) > 0).any()
    assert solution.converged.all()


def test_broyden_survives_a_full_memory():
    W, x = tanh_problem(4, 30, 0.99)
    solution = fixed_point(
        lambda z: z @ W + x, torch.zeros_like(x), solver=Broyden(memory=3, max_steps=3000)
    )
    assert solution.converged.all()
    assert solution.steps.min() > 4


# One path, safe to compose


@pytest.mark.parametrize("adjoint", [Implicit(), Unrolled(), Phantom()])
def test_same_value_in_training_and_evaluation(adjoint):
    W, x = tanh_problem(3, 4, 0.9)

    def value() -> Tensor:
        return fixed_point(
            lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), adjoint=adjoint
        ).value

    training = value()
    assert training.requires_grad
    with torch.no_grad():
        assert value().equal(training)
        assert not value().requires_grad
    with torch.inference_mode():
        assert value().equal(training)


def test_no_gradient_where_nothing_asks_for_one():
    for adjoint in (Implicit(), Phantom(), Unrolled()):
        z0 = torch.zeros(2, 3, dtype=torch.float64)
        assert not fixed_point(lambda z: torch.cos(z) / 2, z0, adjoint=adjoint).value.requires_grad


def test_a_map_that_does_not_depend_on_z():
    x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    value = fixed_point(lambda z: 2 * x, torch.zeros_like(x)).value
    assert torch.autograd.grad(value.sum(), x)[0].equal(torch.full_like(x, 2.0))


def test_two_forward_calls_before_one_backward():
    W, x = tanh_problem(3, 4, 0.9)
    z0 = torch.zeros_like(x)

    def value(x: Tensor) -> Tensor:
        return fixed_point(lambda z: torch.tanh(z @ W + x), z0).value

    (both,) = torch.autograd.grad((value(x) * value(-2 * x)).sum(), W)
    first, second = value(x), value(-2 * x)
    one = torch.autograd.grad(first, W, second.detach())[0]
    two = torch.autograd.grad(second, W, first.detach())[0]
    torch.testing.assert_close(both, one + two, rtol=1e-10, atol=1e-12)


def test_layers_that_share_a_parameter_and_feed_each_other():
    W, x = tanh_problem(2, 3, 0.7)
    fine = Picard(rtol=1e-12)

    def twice(W: Tensor, x: Tensor) -> Tensor:
        for _ in range(2):
            x = fixed_point(
                lambda z, x=x: torch.tanh(z @ W + x), torch.zeros_like(x), solver=fine,
                adjoint=Implicit(fine),
            ).value  # fmt: skip
        return x

    assert torch.autograd.gradcheck(twice, (W, x))


def test_second_backward_on_a_retained_graph():
    W, x = tanh_problem(3, 4, 0.9)
    loss = fixed_point(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x)).value.sum()
    loss.backward(retain_graph=True)
    once = W.grad.clone()
    loss.backward()
    torch.testing.assert_close(W.grad, 2 * once, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("adjoint", [Implicit(), Phantom()])
def test_double_backward_raises(adjoint):
    W, x = tanh_problem(3, 4, 0.9)
    loss = fixed_point(
        lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), adjoint=adjoint
    ).value.sum()
    with pytest.raises(RuntimeError, match="Unrolled"):
        torch.autograd.grad(loss, W, create_graph=True)


def test_unrolled_is_differentiable_twice():
    W, x = tanh_problem(2, 3, 0.5)
    assert torch.autograd.gradgradcheck(
        lambda W, x: (
            fixed_point(
                lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), solver=Picard(rtol=1e-12),
                adjoint=Unrolled(),
            ).value
        ),
        (W, x),
    )  # fmt: skip


def test_unrolled_is_a_network_of_tied_layers():
    W, x = tanh_problem(2, 3, 0.5)
    solution = fixed_point(
        lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), solver=Picard(max_steps=2),
        adjoint=Unrolled(), on_failure="flag",
    )  # fmt: skip
    assert solution.value.equal(torch.tanh(torch.tanh(x) @ W + x))
    assert not solution.converged.any()


def test_changing_the_result_in_place_is_never_silent():
    W, x = tanh_problem(3, 4, 0.9)
    value = fixed_point(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x)).value
    value.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


def test_autocast_does_not_lower_the_precision():
    W, x = (t.detach().float().requires_grad_() for t in tanh_problem(3, 8, 0.9))
    solver = Picard(rtol=1e-5)

    def value() -> Tensor:
        return fixed_point(
            lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), solver=solver,
            adjoint=Implicit(solver),
        ).value  # fmt: skip

    plain = value()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ W).dtype == torch.bfloat16  # else this test tests nothing
        mixed = value()
    assert mixed.dtype == torch.float32
    assert mixed.equal(plain)
    (exact,) = torch.autograd.grad(plain.sum(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # The last product, x's own, is torch's; the adjoint's solve is ours and stays exact.
        (slope,) = torch.autograd.grad(mixed.sum(), x)
    assert slope.equal(exact)


def test_memory_for_backward_does_not_grow_with_the_steps():
    kept, steps = [], []
    for contraction in (0.5, 0.99):
        W, x = tanh_problem(16, 64, contraction)
        seen: dict[int, int] = {}

        def note(t: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[t.data_ptr()] = t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            solution = fixed_point(
                lambda z, W=W, x=x: torch.tanh(z @ W + x), torch.zeros_like(x)
            )  # fmt: skip
        kept.append(sum(seen.values()))
        steps.append(int(solution.steps.max()))
        seen.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            torch.tanh(torch.zeros_like(x).requires_grad_() @ W + x)
        assert kept[-1] <= 1.2 * sum(seen.values())
    assert steps[1] > steps[0]
    assert kept[0] == kept[1]


# Records


def test_solves_are_recorded_where_the_forward_pass_ran():
    W, x = tanh_problem(3, 4, 0.9)
    with record_solves() as record:
        solution = fixed_point(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x))
    assert set(record.tallies) == {"fixed point"}
    with record_solves() as other:
        solution.value.sum().backward()
    assert not other.tallies
    assert set(record.tallies) == {"fixed point", "adjoint"}
    forward = record.tallies["fixed point"]
    assert (forward.samples, forward.failures) == (3, 0)
    assert forward.steps == int(solution.steps.sum())
    assert 0 < record.tallies["adjoint"].residual <= 1e-9


# Failure


def test_too_few_steps_says_how_many_would_do():
    rates = torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    with record_solves() as record, pytest.raises(ConvergenceError, match="max_steps=1") as error:
        fixed_point(lambda z: rates * z + 1, torch.zeros_like(rates), solver=Picard(max_steps=60))
    assert error.value.samples == (1,)
    assert 1e-8 < error.value.residuals[0] < 1e-2
    assert record.tallies["fixed point"].failures == 1
    needed = Picard(max_steps=int(str(error.value).split("max_steps=")[1].split()[0]))
    steps = fixed_point(lambda z: rates * z + 1, torch.zeros_like(rates), solver=needed).steps
    assert steps[1] > 0.8 * needed.max_steps


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden()])
@pytest.mark.parametrize(
    "f", [lambda z: z + 1, lambda z: (1 + z.square()).sqrt(), lambda z: z + 1 / (1 + z.abs())]
)
def test_a_map_without_a_fixed_point_is_not_a_slow_one(f, solver):
    """No number of steps is promised, and no iterate far out is taken for a fixed point."""
    z0 = torch.zeros(2, 1, dtype=torch.float64)
    with pytest.raises(ConvergenceError) as error:
        fixed_point(f, z0, solver=solver)
    assert "would do" not in str(error.value)
    assert "no fixed point" in str(error.value)


@pytest.mark.parametrize("solver", [Picard(max_steps=5000), Anderson(), Broyden()])
def test_a_fixed_point_far_away_is_found(solver):
    """10,000 times as far as the first step."""
    z0 = torch.zeros(2, 3, dtype=torch.float64)
    rates = torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)
    solution = fixed_point(lambda z: rates * z + 1, z0, solver=solver)
    torch.testing.assert_close(solution.value[0], 1 / (1 - rates), rtol=1e-6, atol=0)
    near = fixed_point(lambda z: 3 * torch.tanh(z), z0 + 1e-6, solver=Picard())
    assert near.value.min() > 2.9


@pytest.mark.parametrize("adjoint", [Implicit(), Unrolled()])
@pytest.mark.parametrize(
    ("f", "says"),
    [
        (lambda z: 3 * z + 1, "diverge"),
        (lambda z: torch.tanh(-5 * z + 0.3), "no contraction"),
        (lambda z: z * torch.nan, "not finite at the first"),
        (
            lambda z: z + torch.tensor([[0.0], [torch.inf]], dtype=z.dtype),
            "not finite at the first",
        ),
    ],
)
def test_failure_names_samples_and_the_mend(f, says, adjoint):
    z0 = torch.zeros(2, 1, dtype=torch.float64)
    solver = Picard(max_steps=1500)
    with pytest.raises(ConvergenceError, match=says) as error:
        fixed_point(f, z0, solver=solver, adjoint=adjoint)
    assert 1 in error.value.samples
    flagged = fixed_point(f, z0, solver=solver, adjoint=adjoint, on_failure="flag")
    assert tuple((~flagged.converged).nonzero().squeeze(1).tolist()) == error.value.samples


def test_a_broken_sample_leaves_the_others_alone():
    W, x = tanh_problem(4, 3, 0.9)
    good = fixed_point(lambda z: torch.tanh(z @ W + x), torch.zeros_like(x)).value
    broken = x.detach().clone()
    broken[2] = torch.nan
    for solver in SOLVERS:
        with torch.no_grad(), pytest.raises(ConvergenceError) as error:
            fixed_point(
                lambda z: torch.tanh(z @ W + broken), torch.zeros_like(x), solver=solver
            )  # fmt: skip
        assert error.value.samples == (2,)
        with torch.no_grad():
            solution = fixed_point(
                lambda z: torch.tanh(z @ W + broken), torch.zeros_like(x), solver=solver,
                on_failure="flag",
            )  # fmt: skip
        rows = [0, 1, 3]
        assert solution.converged.tolist() == [True, True, False, True]
        torch.testing.assert_close(solution.value[rows], good[rows], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("solver", [Picard(max_steps=5), Anderson(max_steps=3)])
def test_a_backward_solve_that_fails_raises_or_is_flagged(solver):
    W, x = tanh_problem(3, 6, 0.95)
    problem = {"z0": torch.zeros_like(x), "adjoint": Implicit(solver)}
    loss = fixed_point(lambda z: torch.tanh(z @ W + x), **problem).value.sum()
    with pytest.raises(ConvergenceError, match="adjoint: 3 of 3"):
        loss.backward()
    assert W.grad is None
    with record_solves() as record:
        loss = fixed_point(
            lambda z: torch.tanh(z @ W + x), on_failure="flag", **problem
        ).value.sum()  # fmt: skip
    loss.backward()
    assert record.tallies["adjoint"].failures == 3


def test_zero_is_found_without_an_absolute_tolerance():
    z0 = torch.zeros(2, 3, dtype=torch.float64)
    for solver in (Picard(atol=0), Anderson(atol=0), Broyden(atol=0)):
        assert fixed_point(lambda z: z / 2, z0, solver=solver).converged.all()


def test_empty_batch():
    W, _ = tanh_problem(1, 3, 0.5)
    for adjoint in (Implicit(), Unrolled()):
        solution = fixed_point(
            lambda z: torch.tanh(z @ W), torch.zeros(0, 3, dtype=W.dtype), adjoint=adjoint
        )
        assert solution.value.shape == (0, 3)
    solution = fixed_point(lambda z: torch.tanh(z @ W), torch.zeros(0, 3, dtype=W.dtype))
    solution.value.sum().backward()
    assert W.grad.equal(torch.zeros_like(W))


# Arguments


@pytest.mark.parametrize("adjoint", [Implicit(), Phantom(), Unrolled()])
@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden()])
def test_float32_works_at_its_precision(solver, adjoint):
    if adjoint == Unrolled() and solver != Picard():
        return
    W, x = (t.detach().float().requires_grad_() for t in tanh_problem(4, 6, 0.9))
    value = fixed_point(
        lambda z: torch.tanh(z @ W + x), torch.zeros_like(x), solver=solver, adjoint=adjoint
    ).value
    (slope,) = torch.autograd.grad(value.sum(), W)
    exact = fixed_point(lambda z: torch.tanh(z @ W.double() + x.double()), x.double() * 0).value
    (wanted,) = torch.autograd.grad(exact.sum(), W)
    torch.testing.assert_close(value.double(), exact, rtol=0, atol=2e-4)
    error = (slope - wanted).norm() / wanted.norm()
    assert error < (0.5 if adjoint == Phantom() else 1e-3)


def test_the_gradient_is_solved_for_as_the_fixed_point_is():
    """1.5 cos(z) + t is steeper than 1 at its fixed point: plain steps run away there."""
    t = torch.tensor([[2.5]], dtype=torch.float64, requires_grad=True)
    for solver in (Anderson(), Broyden()):
        z = fixed_point(lambda z: 1.5 * torch.cos(z) + t, torch.zeros_like(t), solver=solver).value
        (slope,) = torch.autograd.grad(z.sum(), t)
        steep = 1.5 * torch.sin(z.detach())
        assert steep > 1
        torch.testing.assert_close(slope, 1 / (1 + steep))


def test_float32_refuses_what_it_cannot_reach():
    z0 = torch.zeros(2, 3)
    for adjoint, solver in (
        (Implicit(), Picard(rtol=1e-9)),
        (Unrolled(), Picard(rtol=1e-9)),
        (Implicit(Picard(rtol=1e-9)), Picard()),
    ):
        with pytest.raises(ValueError, match="reaches about 1e-06"):
            fixed_point(lambda z: torch.cos(z) / 2, z0, solver=solver, adjoint=adjoint)
    for single in (Picard(rtol=2e-6), Anderson(rtol=2e-6), Broyden(rtol=2e-6)):
        solution = fixed_point(
            lambda z: torch.cos(z) / 2, z0, solver=single, adjoint=Implicit(single)
        )
        assert solution.value.dtype == torch.float32
        assert solution.value[0, 0].item() == pytest.approx(0.4501836, rel=1e-5)


def test_what_does_not_fit_is_named():
    z0 = torch.zeros(2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"keep the shape \(2, 3\), got \(2, 4\)"):
        fixed_point(lambda z: z.new_zeros(2, 4), z0)
    with pytest.raises(TypeError, match=r"keep the dtype torch\.float64, got torch\.float32"):
        fixed_point(lambda z: z.float(), z0)
    with pytest.raises(TypeError, match="real floating point"):
        fixed_point(lambda z: z, z0.long())
    with pytest.raises(ValueError, match=r"shape \(B, \.\.\.\)"):
        fixed_point(torch.cos, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"inputs\[1\] must lead with B=2, got \(3, 1\)"):
        fixed_point(lambda z, a, b: z, z0, inputs=(z0, torch.zeros(3, 1)))
    with pytest.raises(ValueError, match="'raise' or 'flag'"):
        fixed_point(lambda z: z / 2, z0, on_failure="ignore")
    with pytest.raises(TypeError, match=r"Broyden\(\), got 'anderson'"):
        fixed_point(lambda z: z / 2, z0, solver="anderson")
    with pytest.raises(TypeError, match="adjoint must be"):
        fixed_point(lambda z: z / 2, z0, adjoint=Implicit)
    with pytest.raises(TypeError, match=r"inputs\[0\] is torch.float64 and z0 is torch.float32"):
        fixed_point(lambda z, x: z / 2 + x, z0.float(), inputs=(z0,))
    with pytest.raises(TypeError, match="Unrolled"):
        fixed_point(lambda z: z / 2, z0, solver=Anderson(), adjoint=Unrolled())


@pytest.mark.parametrize(
    ("solver", "arguments"),
    [
        (Picard, {"rtol": 0}),
        (Picard, {"rtol": float("nan")}),
        (Picard, {"atol": -1}),
        (Picard, {"max_steps": 0}),
        (Picard, {"damping": 1}),
        (Anderson, {"memory": 1}),
        (Anderson, {"ridge": -1}),
        (Broyden, {"memory": 0}),
        (Phantom, {"steps": 0}),
        (Phantom, {"damping": 1}),
    ],
)
def test_settings_are_checked(solver, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        solver(**arguments)
