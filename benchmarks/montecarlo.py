"""Plain Monte-Carlo Euler baselines for the mean-field dynamics of arXiv 2211.08771, from its equations.

Each is a class with `step()`; `time` is that of the Wasserstein gradient flow.
"""

import math

import numpy as np


def first_coordinates(rng, n, count):
    """The first coordinate of U(S^{n-1})."""
    if n == 1:
        return rng.choice([-1.0, 1.0], count)
    signs = rng.choice([-1.0, 1.0], count)
    return signs * np.sqrt(rng.beta(0.5, (n - 1) / 2, count))


class Angles:
    """Section 4, the two measures of angles for ||x_H||: d theta = +-G' dt, d log c = +-2 G dt.

    G(theta) = E[(f* - f)(phi) K(theta, phi)] with K(theta, phi) = E_rs relu(r cos theta cos phi + s sin theta sin phi),
    all expectations by fresh samples at each step; the samples of f and of K are independent, so G has no bias.
    """

    def __init__(self, d=30, dH=5, m=1024, samples=1000, eta=5e-3, seed=0):
        self.rng = np.random.default_rng(seed)
        self.d, self.dH, self.samples, self.h = d, dH, samples, d * eta
        self.theta = self._angles(m)
        self.signs = self.rng.choice([-1.0, 1.0], m)
        self.masses = np.full(m, 1.0 / m)
        self.time = 0.0

    def _angles(self, count):
        return np.arccos(np.sqrt(self.rng.beta(self.dH / 2, (self.d - self.dH) / 2, count)))

    def _arguments(self, phi):
        """The argument r cos theta cos phi + s sin theta sin phi and its derivative in theta, (samples, m)."""
        r = first_coordinates(self.rng, self.dH, len(phi)) * np.cos(phi)
        s = first_coordinates(self.rng, self.d - self.dH, len(phi)) * np.sin(phi)
        cos, sin = np.cos(self.theta), np.sin(self.theta)
        return np.outer(r, cos) + np.outer(s, sin), np.outer(s, cos) - np.outer(r, sin)

    def step(self):
        """One step of Euler."""
        phi = self._angles(self.samples)
        out = np.maximum(self._arguments(phi)[0], 0.0) @ (self.signs * self.masses)
        residual = (np.cos(phi) - out) / self.samples
        z, slope = self._arguments(phi)
        g = residual @ np.maximum(z, 0.0)
        v = residual @ (slope * (z > 0))
        self.theta = self.theta + self.h * self.signs * v
        self.masses = self.masses * (1.0 + 2.0 * self.h * self.signs * g)
        self.time += self.h

    @property
    def observed(self):
        """Masses, and W2 distances to the limits."""
        found = {}
        for name, sign, end in (("plus", 1.0, 0.0), ("minus", -1.0, math.pi / 2)):
            part = self.signs == sign
            c, theta = self.masses[part], self.theta[part]
            found[f"mass_{name}"] = c.sum()
            found[f"w2_{name}"] = math.sqrt(c @ (theta - end) ** 2 / c.sum())
        return found


class Network:
    """SGD on a net of m neurons: a fresh batch of the sphere for each step, or the whole of a dataset."""

    def __init__(self, d, m=1024, h=1.0, *, target=None, batch=256, data=None, seed=0):
        self.rng = np.random.default_rng(seed)
        self.d, self.h, self.target, self.batch, self.data = d, h, target, batch, data
        rows = self.rng.standard_normal((m, d))
        self.b = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self.a = self.rng.choice([-1.0, 1.0], m)
        self.time = 0.0

    def _sample(self):
        if self.data is not None:
            return self.data
        x = self.rng.standard_normal((self.batch, self.d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x, self.target(x)

    def gradients(self):
        """The estimates of g(b_j) and grad g(b_j)."""
        x, y = self._sample()
        z = x @ self.b.T
        residual = (y - np.maximum(z, 0.0) @ self.a / len(self.a)) / len(x)
        return residual @ np.maximum(z, 0.0), ((z > 0) * residual[:, None]).T @ x

    def step(self):
        """One step of gradient descent on m F."""
        g, slope = self.gradients()
        self.a, self.b = self.a + self.h * g, self.b + self.h * self.a[:, None] * slope
        self.time += self.h

    @property
    def observed(self):
        """Masses of both signs, and the linear part."""
        masses = np.abs(self.a) * np.linalg.norm(self.b, axis=1) / len(self.a)
        return {
            "mass_plus": masses[self.a > 0].sum(),
            "mass_minus": masses[self.a < 0].sum(),
            "w": self.a @ self.b / (2 * len(self.a)),
        }
