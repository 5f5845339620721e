"""Optimisers for reduced networks in torch and optax: the wide network trained in that framework is the oracle."""

from fractions import Fraction

import numpy as np
import pytest

from fiberscope.errors import InputError, ScopeError
from fiberscope.invariants.classes.smallest import smallest_sim
from fiberscope.invariants.dynamics.backprop import Batch, Chain
from fiberscope.invariants.dynamics.reduced import reduced_network
from fiberscope.invariants.dynamics.updates import State, optimiser
from fiberscope.network import Network
from fiberscope.neurons import Classes
from fiberscope.training import clip_by_wide_norm, reduced_optimiser, scale_reduced

SQUARE = np.array([[1.0, 5, 9], [6, 7, 2], [8, 3, 4]]) / 16


def classes(labels, factors=None):
    values = np.empty(len(labels), dtype=object)
    values[:] = [Fraction(f) for f in factors or [1] * len(labels)]
    return Classes(np.array(labels), values)


def signed(frozen=True):
    """3-4-4-2 tanh with classes {0, 1, 2} (one sign) and {3}: null-free, with a frozen part if asked."""
    e, rng = np.array([1.0, -1.0, 1.0]), np.random.default_rng(0)

    def layer(n):
        return rng.integers(-12, 13, n) / 16

    w1 = np.vstack([np.outer(e, layer(3)), layer(3)])
    w2 = np.zeros((4, 4))
    w2[:3, :3] = (SQUARE if frozen else np.full((3, 3), 0.25)) * np.outer(e, e)
    w2[:3, 3], w2[3, :3], w2[3, 3] = 0.5 * e, 0.25 * e, -0.75
    w3 = np.hstack([np.outer(layer(2), e), layer(2)[:, None]])
    biases = np.append(0.25 * e, 0.5), np.append(-0.125 * e, 0.0), layer(2)
    net = Network.from_arrays((w1, biases[0]), (w2, biases[1]), (w3, biases[2]), activation="tanh")
    small = reduced_network(net, [classes([0, 0, 0, 1], [1, -1, 1, 1])] * 2)
    assert small.network.widths == (3, 2, 2, 2) and small.deviation is frozen
    return net, small


def weighted():
    """A ReLU network with neurons that are 2 and 1/2 times others."""
    u = np.array([[1.0, 0.5, -0.25], [-0.5, 1.0, 0.75]])
    v, b = np.array([[1.0, -0.5], [0.25, 0.75]]), np.array([0.25, -0.125])
    net = Network.from_arrays(
        (np.vstack([u[0], 2 * u[0], u[1], u[1] / 2]), [b[0], 2 * b[0], b[1], b[1] / 2]),
        (np.column_stack([v[:, 0], 2 * v[:, 0], v[:, 1], v[:, 1] / 2]), [0.0, 0.5]),
        activation="relu",
    )
    return net, reduced_network(net, [classes([0, 0, 1, 1], [1, 2, 1, "1/2"])])


def data(net, n=16):
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, net.widths[0])), rng.standard_normal((n, net.widths[-1]))


# ---- torch


def torch_run(net, make, steps=150, clip=None, closure=False):
    """Outputs after training a float64 module of the network in torch; `make(module)` gives its optimiser."""
    torch = pytest.importorskip("torch")
    from fiberscope.io.torch import to_module

    module = to_module(net)
    x, y = (torch.from_numpy(v) for v in data(net))
    rule = make(module)

    def loss():
        rule.zero_grad()
        value = torch.nn.functional.mse_loss(module(x), y)
        value.backward()
        return value

    for _ in range(steps):
        if closure:
            rule.step(loss)
        else:
            loss()
            if clip is not None:
                clip(rule, module)
            rule.step()
        if hasattr(rule, "schedule"):
            rule.schedule.step()
    return module(x).detach().numpy()


TORCH = {
    "SGD": {"lr": 0.05},
    "SGD momentum": {"lr": 0.02, "momentum": 0.9, "dampening": 0.1},
    "SGD nesterov decay": {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
    "Adam": {"lr": 0.003},
    "Adam amsgrad": {"lr": 0.003, "amsgrad": True},
    "AdamW": {"lr": 0.003, "weight_decay": 0.1},
    "NAdam": {"lr": 0.003},
    "Adamax": {"lr": 0.003},
    "RMSprop": {"lr": 0.001, "momentum": 0.5, "centered": True},
    "Adagrad": {"lr": 0.02},
    "Adadelta": {"lr": 0.5},
}


@pytest.mark.parametrize("case", TORCH)
def test_torch_reduced_runs_are_wide_runs(case):
    torch = pytest.importorskip("torch")
    kind, options = getattr(torch.optim, case.split()[0]), TORCH[case]
    net, small = signed()
    wide = torch_run(net, lambda module: kind(module.parameters(), **options))
    narrow = torch_run(small.network, lambda module: reduced_optimiser(kind, module, small, **options))
    plain = torch_run(small.network, lambda module: kind(module.parameters(), **options))
    assert np.abs(wide - narrow).max() < 1e-10
    assert np.abs(wide - plain).max() > 1e-3 or case == "Adadelta"
    assert np.abs(wide - net(data(net)[0])).max() > 1e-2


def test_torch_agrees_with_the_reference():
    torch = pytest.importorskip("torch")
    net, small = signed()
    x, y = data(net)
    for kind, options, rule in (
        (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}, optimiser("momentum", 0.02, decay=0.1)),
        (torch.optim.Adam, {"lr": 0.003}, optimiser("adam", 0.003)),
        (torch.optim.AdamW, {"lr": 0.003}, optimiser("adamw", 0.003)),
        (torch.optim.RMSprop, {"lr": 0.003}, optimiser("rmsprop", 0.003)),
        (torch.optim.Adagrad, {"lr": 0.02}, optimiser("adagrad", 0.02)),
    ):
        found = torch_run(small.network, lambda m, k=kind, o=options: reduced_optimiser(k, m, small, **o), steps=40)
        theta, state, chain = np.asarray(small.network.theta, float), State(), Chain(small.network)
        for _ in range(40):
            theta, state = small.step(rule, theta, chain.gradient(theta, Batch(x, y))[1], state)
        np.testing.assert_allclose(found, chain.outputs(theta, x), atol=1e-12)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_torch_clipping_by_the_wide_norm(kind):
    torch = pytest.importorskip("torch")
    net, small = signed()
    rule, options = getattr(torch.optim, kind), {"lr": 0.05 if kind == "SGD" else 0.003}

    def clip(_, module):
        torch.nn.utils.clip_grad_norm_(module.parameters(), 0.05)

    wide = torch_run(net, lambda m: rule(m.parameters(), **options), clip=clip)
    narrow = torch_run(
        small.network, lambda m: reduced_optimiser(rule, m, small, **options), clip=lambda o, _: o.clip_gradients_(0.05)
    )
    assert np.abs(wide - narrow).max() < 1e-4  # torch adds 1e-6 to the norm
    wrong = torch_run(small.network, lambda m: reduced_optimiser(rule, m, small, **options), clip=clip)
    assert kind == "Adam" or np.abs(wide - wrong).max() > 1e-3


def test_torch_weighted_classes_and_coupled_decay():
    torch = pytest.importorskip("torch")
    net, small = weighted()
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.02}
    wide = torch_run(net, lambda m: torch.optim.SGD(m.parameters(), **options))
    narrow = torch_run(small.network, lambda m: reduced_optimiser(torch.optim.SGD, m, small, **options))
    assert np.abs(wide - narrow).max() < 1e-10
    module = torch.nn.Linear(1, 1)
    with pytest.raises(ScopeError, match="torch.optim.Adam: .*other than 1 and -1"):
        reduced_optimiser(torch.optim.Adam, module, small)
    with pytest.raises(ScopeError, match="torch.optim.Adam: .*blocks"):
        reduced_optimiser(torch.optim.Adam, module, signed()[1], weight_decay=0.1)
    net, small = signed(frozen=False)
    options = {"lr": 0.003, "weight_decay": 0.1}
    wide = torch_run(net, lambda m: torch.optim.Adam(m.parameters(), **options))
    narrow = torch_run(small.network, lambda m: reduced_optimiser(torch.optim.Adam, m, small, **options))
    assert np.abs(wide - narrow).max() < 1e-10


def test_torch_closures_schedules_and_state():
    torch = pytest.importorskip("torch")
    net, small = signed()

    def scheduled(kind, module, wrap):
        rule = reduced_optimiser(kind, module, small, lr=0.01) if wrap else kind(module.parameters(), lr=0.01)
        assert isinstance(rule, kind)
        rule.schedule = torch.optim.lr_scheduler.StepLR(rule, 20, 0.5)
        return rule

    for closure in (False, True):
        wide = torch_run(net, lambda m: scheduled(torch.optim.Adam, m, False), closure=closure)
        narrow = torch_run(small.network, lambda m: scheduled(torch.optim.Adam, m, True), closure=closure)
        assert np.abs(wide - narrow).max() < 1e-10

    from fiberscope.io.torch import to_module

    module = to_module(small.network)
    rule = reduced_optimiser(torch.optim.Adam, module, small, lr=0.1)
    before = [p.detach().clone() for p in module.parameters()]
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    rule.step()
    assert all((p.grad == 1).all() for p in module.parameters())  # gradients come back as they were
    # the first step of Adam is lr times the sign, times n_B for weights: 3 on the class of three
    moved = [(b - p).detach().numpy() for b, p in zip(before, module.parameters(), strict=True)]
    np.testing.assert_allclose(moved[2], [[0.3, 0.1], [0.3, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(moved[3], [0.1, 0.1], rtol=1e-6)
    again = reduced_optimiser(torch.optim.Adam, module, small, lr=0.1)
    again.load_state_dict(rule.state_dict())
    assert again.state_dict()["state"][0]["step"] == 1


def test_torch_misuse_is_refused_before_anything_moves():
    torch = pytest.importorskip("torch")
    from fiberscope.io.torch import to_module

    net, small = signed()
    with pytest.raises(InputError, match="weights of layer 1: found .4, 3.*expected .2, 3"):
        reduced_optimiser(torch.optim.SGD, to_module(net), small, lr=0.1)
    module = to_module(small.network)
    with pytest.raises(InputError, match="LBFGS is not known"):
        reduced_optimiser(torch.optim.LBFGS, module, small)
    with pytest.raises(InputError, match="1 parameters more"):
        reduced_optimiser(torch.optim.SGD, [*module.parameters(), torch.zeros(2)], small, lr=0.1)
    reduced_optimiser(torch.optim.LBFGS, module, small, family="orthogonal")


def test_torch_layers_without_bias_and_failures_inside_a_step():
    torch = pytest.importorskip("torch")
    net = Network.from_arrays(([[1.0], [1.0]], None), ([[2.0, 2.0]], None), activation="tanh")
    small = reduced_network(net, [classes([0, 0])])
    module = torch.nn.Sequential(torch.nn.Linear(1, 1, False), torch.nn.Tanh(), torch.nn.Linear(1, 1, False))

    class Failing(torch.optim.SGD):
        def step(self, closure=None):
            raise RuntimeError("no step")

    rule = reduced_optimiser(Failing, module, small, family="elementwise", lr=0.1)
    before = [p.detach().clone() for p in module.parameters()]
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match="no step"):
        rule.step()
    assert all((a == b).all() for a, b in zip(before, module.parameters(), strict=True))


# ---- optax


def pairs(net):
    return [(np.asarray(layer.weight, float), np.asarray(layer.bias, float)) for layer in net.layers]


def flax_tree(net):
    return {"params": {f"Dense_{k}": {"kernel": w.T, "bias": b} for k, (w, b) in enumerate(pairs(net))}}


def optax_run(net, transformation, tree=None, steps=150):
    """Outputs after training in JAX (float64)."""
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    switch = jax.enable_x64 if hasattr(jax, "enable_x64") else pytest.importorskip("jax.experimental").enable_x64
    with switch(True):
        return _optax_run(jax, optax, net, transformation, tree, steps)


def _optax_run(jax, optax, net, transformation, tree, steps):
    jnp = jax.numpy
    x, y = data(net)
    params = jax.tree_util.tree_map(jnp.asarray, pairs(net) if tree is None else tree)

    def outputs(params):
        layers = params
        if isinstance(params, dict):
            layers = [(v["kernel"].T, v["bias"]) for _, v in sorted(params["params"].items())]
        h = x
        for k, (w, b) in enumerate(layers):
            z = h @ w.T + b
            h = z if k == len(layers) - 1 else (jnp.tanh(z) if net.activation.name == "tanh" else jax.nn.relu(z))
        return h

    slope = jax.jit(jax.grad(lambda p: ((outputs(p) - y) ** 2).mean()))

    @jax.jit
    def step(params, state):
        updates, state = transformation.update(slope(params), state, params)
        return optax.apply_updates(params, updates), state

    state = transformation.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return np.asarray(outputs(params))


def test_optax_reduced_runs_are_wide_runs():
    optax = pytest.importorskip("optax")
    net, small = signed()
    for rule, family in (
        (optax.chain(optax.add_decayed_weights(0.05), optax.sgd(0.02, 0.9, nesterov=True)), "linear"),
        (optax.chain(optax.clip_by_global_norm(0.05), optax.sgd(0.05)), "orthogonal"),
        (optax.adamw(0.003, weight_decay=0.1), "elementwise"),
    ):
        wide = optax_run(net, rule)
        narrow = optax_run(small.network, scale_reduced(rule, small, family=family))
        assert np.abs(wide - narrow).max() < 1e-10
    assert np.abs(wide - optax_run(small.network, rule)).max() > 1e-3


def test_optax_clipping_before_adam_and_flax_trees():
    optax = pytest.importorskip("optax")
    net, small = signed()
    wide = optax_run(net, optax.chain(optax.clip_by_global_norm(0.02), optax.adam(0.003, eps=1e-3)), steps=80)
    inner = scale_reduced(optax.adam(0.003, eps=1e-3), small, family="elementwise")
    rule = optax.chain(clip_by_wide_norm(0.02, small), inner)
    assert np.abs(wide - optax_run(small.network, rule, flax_tree(small.network), steps=80)).max() < 1e-11
    other = optax.chain(optax.clip_by_global_norm(0.02), inner)
    assert np.abs(wide - optax_run(small.network, other, steps=80)).max() > 1e-5


def test_optax_weighted_classes_and_refusals():
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    net, small = weighted()
    make = optax.sgd(0.02, 0.9)
    wide = optax_run(net, make)
    assert np.abs(wide - optax_run(small.network, scale_reduced(make, small, family="linear"))).max() < 1e-10
    with pytest.raises(ScopeError, match="other than 1 and -1"):
        scale_reduced(make, small, family="elementwise")
    with pytest.raises(ScopeError, match="blocks"):
        scale_reduced(make, signed()[1], family="elementwise", coupled_decay=True)
    with pytest.raises(InputError, match="family 'adam'"):
        scale_reduced(make, small, family="adam")
    rule = scale_reduced(make, small, family="linear")
    with pytest.raises(InputError, match="layer 1 .*expected"):
        rule.init(jax.tree_util.tree_map(jax.numpy.asarray, pairs(net)))
    with pytest.raises(InputError, match="of 1 layers; the reduced network has 2"):
        rule.init([(jax.numpy.zeros((2, 3)), jax.numpy.zeros(2))])


def test_layer_names_are_sorted_as_people_count():
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    net = Network.from_arrays(*[(np.full((2, 2), k + 1.0), np.zeros(2)) for k in range(11)], activation="softplus")
    small = reduced_network(net, [classes([0, 0])] * 10)
    assert small.sizes[0] == (Fraction(2),)
    tree = {f"layer{k}": {"weight": np.asarray(w), "bias": b} for k, (w, b) in enumerate(pairs(small.network))}
    rule = scale_reduced(optax.sgd(1.0), small, family="linear")
    ones = jax.tree_util.tree_map(jax.numpy.ones_like, tree)
    moved, _ = rule.update(ones, rule.init(ones), ones)
    for k, multiplier in enumerate(small.weight_multipliers):
        np.testing.assert_allclose(moved[f"layer{k}"]["weight"], -multiplier)


def test_norms_may_be_numbers_of_any_kind() -> None:
    pytest.importorskip("optax", reason="the optax package is not installed")
    small = smallest_sim(Network.random((2, 3, 1), activation="tanh", seed=0)).reduced()
    for norm in (1, np.float32(0.5), np.ones(())):
        clip_by_wide_norm(norm, small)
    for wrong in (0, -1.0, True, "1", None):
        with pytest.raises(InputError, match="max_norm"):
            clip_by_wide_norm(wrong, small)  # type: ignore[arg-type]
