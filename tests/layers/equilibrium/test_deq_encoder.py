"""Encoders: well-posed whatever their parameters, alike to all assets, blind to absent ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from strategies.layers import Anderson, ConvergenceError, Implicit, Picard
from strategies.layers.equilibrium.deq_encoder import DEQEncoder
from strategies.layers.equilibrium.encoder_cells import GraphCell, MeanFieldCell

CELLS = ["mean_field", "graph", "monotone"]
by_cell = pytest.mark.parametrize("cell", CELLS)
FINE = Picard(rtol=1e-12, max_steps=5000)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """On tensors this small a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def encoder(cell: str, features: int = 3, hidden: int = 5, growth: float = 1.0, **arguments):
    """In float64, its weights multiplied by ``growth``."""
    torch.manual_seed(0)
    arguments = {"solver": FINE, **arguments}
    module = DEQEncoder(features, hidden, cell=cell, **arguments).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= growth
    return module


def features(B: int = 4, N: int = 6, F: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, N, F, generator=generator, dtype=torch.float64)


def jacobian(f, z: Tensor) -> Tensor:
    """(D, D) of a map of (1, N, H), by autograd."""
    D = z.numel()
    return torch.autograd.functional.jacobian(f, z).view(D, D)


# The equilibrium


@by_cell
@pytest.mark.parametrize("growth", [1, 10])
def test_the_value_is_the_equilibrium_of_the_network_as_written(cell, growth):
    module, x = encoder(cell, growth=growth), features()
    with torch.no_grad():
        z, u = module(x), module.cell.inject(x)
        if isinstance(module.cell, MeanFieldCell):
            W1, W2 = module.cell.weights()
            image = torch.tanh(z @ W1 + z.mean(1, keepdim=True) @ W2 + u)
        elif isinstance(module.cell, GraphCell):
            W1, W2 = module.cell.weights()
            graph = module.cell.graph(x, torch.ones_like(x[:, :, :1]))
            image = torch.tanh(z @ W1 + graph @ z @ W2 + u)
        else:
            W1, W2 = module.cell.weights()
            mean = z.mean(1, keepdim=True)
            image = torch.relu((z - mean) @ W1 + mean @ W2 + u)
    torch.testing.assert_close(z, image, rtol=1e-8, atol=1e-9)
    assert z.abs().max() > 0.1


@by_cell
def test_gradcheck(cell):
    module, x = encoder(cell, 2, 3), features(2, 4, 2).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    names = [name for name, _ in module.named_parameters()]
    assert torch.autograd.gradcheck(
        lambda x, *values: torch.func.functional_call(
            module, dict(zip(names, values, strict=True)), (x, mask)
        ),
        (x, *module.parameters()),
    )


@settings(deadline=None, max_examples=15)
@given(
    cell=st.sampled_from(CELLS),
    B=st.integers(1, 3),
    N=st.integers(1, 7),
    H=st.integers(1, 6),
    growth=st.floats(0.01, 30),
    seed=st.integers(0, 1000),
)
def test_any_parameters_any_shape(cell, B, N, H, growth, seed):
    module = encoder(cell, 2, H, growth, solver=Picard(max_steps=50_000))
    x = features(B, N, 2, seed)
    solution = module.equilibrium(x)
    assert solution.converged.all()
    order = torch.randperm(N)
    with torch.no_grad():
        permuted = module(x[:, order])
    scale = solution.value.norm() + 1e-12
    assert (permuted - solution.value[:, order]).norm() <= 1e-4 * scale


# The bounds


@pytest.mark.parametrize("growth", [0.1, 1, 100])
def test_mean_field_norm_is_exactly_the_bound(growth):
    cell = encoder("mean_field", growth=growth).cell
    W1, W2 = cell.weights()
    N, H = 6, W1.shape[0]
    linear = jacobian(lambda z: z @ W1 + z.mean(1, keepdim=True) @ W2, torch.zeros(1, N, H).to(W1))
    largest = max(torch.linalg.matrix_norm(W, ord=2) for W in (W1, W1 + W2))
    torch.testing.assert_close(torch.linalg.matrix_norm(linear, ord=2), largest)
    assert largest <= 0.95 + 1e-12
    if growth == 100:
        assert largest >= 0.95 - 1e-12


@pytest.mark.parametrize("growth", [1, 100])
def test_graph_contracts_in_the_largest_norm_over_assets(growth):
    module, x = encoder("graph", growth=growth), features()
    f, inputs = module.cell.problem(x, torch.ones_like(x[:, :, :1]))
    graph = inputs[2]
    torch.testing.assert_close(graph.sum(2), torch.ones_like(graph[:, :, 0]))
    assert (graph >= 0).all()
    a, b = (torch.randn(4, 6, 5, dtype=torch.float64) for _ in range(2))
    apart = (f(a, *inputs) - f(b, *inputs)).norm(dim=2).amax(1)
    assert (apart <= 0.95 * (a - b).norm(dim=2).amax(1)).all()


@pytest.mark.parametrize("growth", [0.1, 1, 30])
def test_monotone_weights_keep_their_margin_at_any_norm(growth):
    module = encoder("monotone", growth=growth)
    for W in module.cell.weights():
        symmetric = torch.eye(5).to(W) - (W + W.T) / 2
        assert torch.linalg.eigvalsh(symmetric).min() >= 0.05 - 1e-9
    if growth == 30:
        assert torch.linalg.matrix_norm(module.cell.weights(), ord=2).min() > 1
    f, inputs = module.cell.problem(features(), torch.ones(4, 6, 1, dtype=torch.float64))
    a, b = (torch.randn(4, 6, 5, dtype=torch.float64) for _ in range(2))
    assert ((f(a, *inputs) - f(b, *inputs)).norm(dim=(1, 2)) < (a - b).norm(dim=(1, 2))).all()


def test_monotone_solution_does_not_depend_on_the_splitting():
    x = features()
    plain = encoder("monotone")(x)
    damped = encoder("monotone", solver=Picard(damping=0.5, rtol=1e-12, max_steps=5000))(x)
    mixed = encoder("monotone", solver=Anderson(rtol=1e-12, max_steps=5000))(x)
    torch.testing.assert_close(damped, plain, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(mixed, plain, rtol=1e-8, atol=1e-9)


# Symmetry, masks, embeddings


@by_cell
def test_permuting_the_assets_permutes_the_states(cell):
    module, x = encoder(cell), features()
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) > 0.3
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(
        module(x[:, order], mask[:, order]), module(x, mask)[:, order], rtol=1e-9, atol=1e-10
    )


@by_cell
def test_masked_assets_are_as_if_they_were_not_there(cell):
    module, x = encoder(cell), features()
    mask = torch.tensor([True, True, False, True, False, True]).expand(4, -1)
    broken = x.clone()
    broken[:, ~mask[0]] = torch.nan  # what an asset that does not trade has for features
    broken.requires_grad_()
    z = module(broken, mask)
    torch.testing.assert_close(
        z[:, mask[0]], module(x[:, mask[0]]), rtol=1e-9, atol=1e-10
    )  # fmt: skip
    assert (z[:, ~mask[0]] == 0).all()
    z.sum().backward()
    assert broken.grad.isfinite().all()
    assert (broken.grad[:, ~mask[0]] == 0).all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@by_cell
def test_a_date_on_which_nothing_trades(cell):
    module, x = encoder(cell), features()
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[1] = False
    z = module(x, mask)
    assert (z[1] == 0).all()
    torch.testing.assert_close(z[[0, 2]], module(x[[0, 2]]), rtol=1e-9, atol=1e-10)
    z.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@by_cell
def test_any_number_of_assets_at_prediction(cell):
    module = encoder(cell)
    for N in (1, 2, 50):
        assert module(features(2, N)).shape == (2, N, 5)


def test_asset_three_follows_asset_seven():
    """Only embeddings can tell the leader from the rest: the error drops by far with them."""

    def error(embedding: int) -> float:
        torch.manual_seed(0)
        names = {"assets": 8, "embedding": embedding} if embedding else {}
        module = DEQEncoder(1, 6, cell="graph", **names).double()
        read = torch.nn.Linear(6, 1).double()
        parameters = [*module.parameters(), *read.parameters()]
        optimiser = torch.optim.Adam(parameters, lr=0.05)
        for step in range(100):
            x = features(32, 8, 1, seed=step)
            loss = (read(module(x))[:, 3, 0] - x[:, 7, 0]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return loss.item()

    assert error(embedding=0) > 0.5
    assert error(embedding=4) < 0.2


def pairs(growth: float = 1.0, assets: int = 6, **arguments) -> DEQEncoder:
    """With a random lead-lag matrix, where it would start at zero."""
    module = encoder("pairs", assets=assets, **arguments)
    with torch.no_grad():
        module.cell.pairs += torch.randn(assets, assets, dtype=torch.float64)
        for parameter in module.parameters():
            parameter *= growth
    return module


@pytest.mark.parametrize("growth", [1, 10])
def test_pairs_reach_the_equilibrium_as_written(growth):
    module, x = pairs(growth), features()
    with torch.no_grad():
        z = module(x)
        W1, W2 = module.cell.weights()
        graph = module.cell.graph(x, torch.ones_like(x[:, :, :1]))
        image = torch.tanh(z @ W1 + graph @ z @ W2 + module.cell.inject(x))
    torch.testing.assert_close(z, image, rtol=1e-8, atol=1e-9)
    sizes = torch.linalg.matrix_norm(W1, 2) + torch.linalg.matrix_norm(W2, 2)
    assert sizes <= 0.95 + 1e-12
    assert graph.abs().sum(2).max() <= 1 + 1e-12


def test_gradcheck_of_pairs():
    module, x = pairs(assets=4, features=2, hidden=3), features(2, 4, 2).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    names = [name for name, _ in module.named_parameters()]
    assert torch.autograd.gradcheck(
        lambda x, *values: torch.func.functional_call(
            module, dict(zip(names, values, strict=True)), (x, mask)
        ),
        (x, *module.parameters()),
    )


def test_pairs_need_to_know_the_assets():
    with pytest.raises(ValueError, match="go together"):
        DEQEncoder(3, 5, cell="pairs")
    with pytest.raises(ValueError, match="5 assets and the encoder knows 6"):
        pairs()(features(2, 5))


# Arguments


def test_failure_reaches_the_caller():
    module, x = encoder("mean_field", growth=10, solver=Picard(max_steps=3)), features()
    with pytest.raises(ConvergenceError, match="max_steps="):
        module(x)
    flagged = encoder(
        "mean_field", growth=10, solver=Picard(max_steps=3), adjoint=Implicit(), on_failure="flag"
    ).equilibrium(x)  # fmt: skip
    assert not flagged.converged.any()


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="did you mean 'monotone'"):
        DEQEncoder(3, 4, cell="monoton")
    with pytest.raises(ValueError, match="bound must lie"):
        DEQEncoder(3, 4, bound=1.0)
    with pytest.raises(ValueError, match="go together"):
        DEQEncoder(3, 4, embedding=2)
    module, x = encoder("mean_field"), features()
    with pytest.raises(ValueError, match=r"\(B, N, 3\), got \(4, 6, 2\)"):
        module(x[:, :, :2])
    with pytest.raises(TypeError, match=r"float32.*float64"):
        module(x.float())
    with pytest.raises(ValueError, match=r"bool of shape \(4, 6\)"):
        module(x, torch.ones(4, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"bool of shape"):
        module(x, torch.ones(4, 6))
    broken = x.clone()
    broken[2, 5, 1] = torch.nan
    with pytest.raises(ValueError, match=r"not finite for 1 .*\[2, 5\]"):
        module(broken)
    named = encoder("graph", assets=6, embedding=2)
    with pytest.raises(ValueError, match="5 assets and the encoder knows 6 apart"):
        named(x[:, :5])
    with pytest.raises(ValueError, match="reaches about"):
        DEQEncoder(3, 4, solver=Picard(rtol=1e-9))(x.float())
    with pytest.raises(TypeError, match="GRUCell: write its map as the method problem of a Cell"):
        DEQEncoder(3, 4, cell=torch.nn.GRUCell(3, 4))
    with pytest.raises(TypeError, match="got 'anderson'"):
        DEQEncoder(3, 4, solver="anderson")


def test_the_first_line_anybody_writes():
    """In torch's default dtype; it equals the encoder in float64 to that dtype's precision."""
    torch.manual_seed(0)
    x, module = torch.randn(3, 6, 4), DEQEncoder(4, 16)
    z = module(x)
    z.square().sum().backward()
    slope = module.cell.mean.grad.double()
    module.zero_grad()
    exact = module.double()(x.double())
    exact.square().sum().backward()
    torch.testing.assert_close(z.double(), exact.detach(), rtol=0, atol=1e-4)
    torch.testing.assert_close(slope, module.cell.mean.grad, rtol=1e-3, atol=1e-3)


class SineCell(MeanFieldCell):
    """A subclass with another map, as exact a contraction as its parent's."""

    def problem(self, x, present):
        W1, W2 = self.weights()

        def f(z, injected, present):
            return torch.sin(z @ W1 + z.mean(1, keepdim=True) @ W2 + injected) * present

        return f, (self.inject(x), present)


def test_a_cell_of_ones_own_is_not_taken_for_its_parent():
    torch.manual_seed(0)
    x = features()
    module = DEQEncoder(3, 5, cell=SineCell(3, 5, 0.95)).double()
    with torch.no_grad():
        z = module(x)
        W1, W2 = module.cell.weights()
        image = torch.sin(z @ W1 + z.mean(1, keepdim=True) @ W2 + module.cell.inject(x))
    torch.testing.assert_close(z, image, rtol=1e-8, atol=1e-9)
    patched = DEQEncoder(3, 5).double()
    patched.load_state_dict(module.state_dict())
    assert not torch.allclose(patched(x), z, atol=1e-3)
    patched.cell.problem = module.cell.problem
    torch.testing.assert_close(patched(x), z, rtol=1e-8, atol=1e-9)


def test_the_history_ends_in_the_residual():
    module, x = DEQEncoder(3, 5).double(), features()
    plain, traced = module.equilibrium(x), module.equilibrium(x, history=True)
    assert plain.history is None
    torch.testing.assert_close(traced.value, plain.value, rtol=1e-8, atol=1e-9)
    assert traced.history.shape == (int(traced.steps.max()), 4)
    assert traced.history[-1].equal(traced.residual)
