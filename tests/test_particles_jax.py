"""Particles on a device of JAX against the core."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from fiberscope.errors import InputError, UnsupportedError  # noqa: E402
from fiberscope.meanfield.particles.flow import initial_neurons, particle_flow  # noqa: E402
from fiberscope.meanfield.particles.forces import PopulationForces  # noqa: E402
from fiberscope.meanfield.particles.jax import JaxForces  # noqa: E402
from fiberscope.meanfield.symmetry.groups import reflections  # noqa: E402
from fiberscope.meanfield.targets.finite import Teacher  # noqa: E402


def problem(d, m, seed=0):
    rng = np.random.default_rng(seed)
    target = Teacher(rng.standard_normal(3), rng.standard_normal((3, d)))
    return rng.standard_normal(m), rng.standard_normal((m, d)), target


@pytest.mark.parametrize("pairs", [1 << 20, 5_000, 10])
def test_forces_are_those_of_the_core(pairs):
    a, b, target = problem(6, 301)
    b[7] = 0.0
    b[8], b[9] = b[10], -b[10]
    device = JaxForces(target)
    device._chunk = pairs
    core = PopulationForces(target).evaluate(a, b)
    found = device.evaluate(a, b)
    assert np.abs(found[0] - core[0]).max() <= 1e-12 and np.abs(found[1] - core[1]).max() <= 1e-12
    assert abs(found[2] - core[2]) <= 1e-12
    few = device.evaluate(a, b, rows=b[:5], heads=a[:5])
    assert np.abs(few[1] - core[1][:5]).max() <= 1e-12


def test_runs_agree_and_the_process_keeps_single_precision():
    a, b, target = problem(4, 30, 1)
    core = particle_flow(a, b, target, [0, 3, 20])
    found = particle_flow(a, b, target, [0, 3, 20], device="jax:cpu")
    assert np.abs(found.B - core.B).max() < 1e-12 * np.abs(core.B).max() * 10
    assert np.allclose(found.energy, core.energy, rtol=1e-11, atol=0)
    assert found.method == "DOP853 on jax:cpu" and not jax.config.jax_enable_x64
    assert jax.numpy.ones(2).dtype == np.float32


def test_groups_are_folded_on_a_device_too():
    group, target = reflections(3), Teacher(np.ones(6), np.concatenate([np.eye(3), -np.eye(3)]))
    a, b = initial_neurons(3, 32, group=group, seed=1)
    found = particle_flow(a, b, target, [0, 5], group=group, device="jax")
    core = particle_flow(a, b, target, [0, 5], group=group)
    assert found.rows == 4 and np.abs(found.B - core.B).max() < 1e-12


def test_what_a_device_cannot_do():
    a, b, target = problem(3, 4)
    with pytest.raises(InputError, match="no device"):
        particle_flow(a, b, target, [0, 1], device="jax:toaster")
    with pytest.raises(UnsupportedError, match="closed forms only"):
        particle_flow(a, b, target, [0, 1], device="jax", activation="tanh")
