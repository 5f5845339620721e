"""Train the networks that `fiberscope demo` looks at, and write them to src/fiberscope/data.

Both learn the 8x8 digits that scikit-learn ships (UCI ML hand-written digits), in plain NumPy.

* digits-mlp: a 64-48-32-10 ReLU network, pixels scaled to [0, 1], trained with Adam. Sparsity is asked for the way
  practitioners do: every step shrinks all weights towards zero (an L1 proximal step), so that weights become exactly
  zero and some neurons end up dead or unread. Nothing is planted: whatever redundancy the demo finds was left in by
  this training.
* twos-tanh: a 3-5-1 tanh network that tells twos from other digits by the ink in the upper, middle and lower third,
  trained by gradient descent on all data from a careless start: the fourth neuron begins as a copy of the first, the
  fifth with weights zero. The training is given 800 steps to undo that.

Run: python scripts/train_demo_network.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fiberscope as fs

WIDTHS = (64, 48, 32, 10)
STEPS, BATCH, RATE, SHRINK = 6000, 128, 2e-3, 2e-4
FOLDER = Path(__file__).resolve().parents[1] / "src/fiberscope/data"


def forward(theta, x):
    """Activations of all layers."""
    hs = [x]
    for k, (w, b) in enumerate(theta):
        z = hs[-1] @ w.T + b
        hs.append(z if k == len(theta) - 1 else np.maximum(z, 0))
    return hs


def gradients(theta, x, y):
    """Gradients of the mean cross-entropy."""
    hs = forward(theta, x)
    z = hs[-1] - hs[-1].max(axis=1, keepdims=True)
    delta = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    delta[np.arange(len(y)), y] -= 1
    delta /= len(y)
    out = []
    for k in reversed(range(len(theta))):
        out.append((delta.T @ hs[k], delta.sum(axis=0)))
        delta = (delta @ theta[k][0]) * (hs[k] > 0)
    return out[::-1]


def train(x, y, seed=0):
    """Adam with an L1 proximal step on the weights."""
    rng = np.random.default_rng(seed)
    shapes = list(zip(WIDTHS[1:], WIDTHS, strict=False))
    theta = [[rng.standard_normal(s) * np.sqrt(2 / s[1]), np.zeros(s[0])] for s in shapes]
    first = [[np.zeros_like(p) for p in layer] for layer in theta]
    second = [[np.zeros_like(p) for p in layer] for layer in theta]
    for step in range(1, STEPS + 1):
        rate = RATE * min(1.0, 2.0 * (1 - step / (STEPS + 1)))
        rows = rng.integers(0, len(x), BATCH)
        for layer, m, v, grads in zip(theta, first, second, gradients(theta, x[rows], y[rows]), strict=True):
            for k, g in enumerate(grads):
                m[k] = 0.9 * m[k] + 0.1 * g
                v[k] = 0.999 * v[k] + 0.001 * g * g
                layer[k] = layer[k] - rate * (m[k] / (1 - 0.9**step)) / (np.sqrt(v[k] / (1 - 0.999**step)) + 1e-8)
            layer[0] = np.sign(layer[0]) * np.maximum(np.abs(layer[0]) - SHRINK, 0)
    return [(w.astype(np.float32), b.astype(np.float32)) for w, b in theta]


def train_twos(x, y, steps=800, rate=0.5, seed=0):
    """Gradient descent on the mean squared error, from a start with a copied and an empty neuron."""
    rng = np.random.default_rng(seed)
    w, b, v, c = rng.normal(size=(5, 3)), 0.3 * rng.normal(size=5), 0.5 * rng.normal(size=(1, 5)), np.zeros(1)
    w[3], b[3], v[:, 3] = w[0], b[0], v[:, 0]
    w[4], b[4], v[:, 4] = 0, 0, 0
    for _ in range(steps):
        h = np.tanh(x @ w.T + b)
        error = (h @ v.T + c - y) / len(x)
        back = (error @ v) * (1 - h * h)
        w, b = w - rate * back.T @ x, b - rate * back.sum(axis=0)
        v, c = v - rate * error.T @ h, c - rate * error.sum(axis=0)
    return (w, b), (v, c)


def bands(x):
    """Ink in rows 0-2, 3-4 and 5-7 of each picture, to mean 0 and variance 1."""
    pictures = x.reshape(-1, 8, 8)
    ink = np.stack([pictures[:, rows].mean(axis=(1, 2)) for rows in (slice(3), slice(3, 5), slice(5, 8))], axis=1)
    return (ink - ink.mean(axis=0)) / ink.std(axis=0)


def write(net, name, told):
    """Write a network and say how good it is."""
    target = FOLDER / name
    fs.save(net, target, force=True)
    print(f"{net}: {told}\nwrote {target} ({target.stat().st_size} bytes)")


def main():
    """Train, print the accuracies, write the files."""
    x, y = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x / 16.0, y, test_size=0.25, random_state=0, stratify=y)
    theta = train(train_x, train_y)
    net = fs.Network.from_arrays(*theta, activation="relu")
    accuracy = (net(test_x).argmax(axis=1) == test_y).mean()
    zeros = sum(int((w == 0).sum()) for w, _ in theta) / sum(w.size for w, _ in theta)
    write(net, "digits-mlp.safetensors", f"test accuracy {accuracy:.3f}, {zeros:.0%} of the weights are zero")
    inputs, labels = bands(x), np.where(y == 2, 1.0, -1.0)[:, None]
    small = fs.Network.from_arrays(*train_twos(inputs, labels), activation="tanh")
    right = ((small(inputs) > 0) == (labels > 0)).mean()
    write(small, "twos-tanh.safetensors", f"{right:.1%} of the training pictures are told right")


if __name__ == "__main__":
    main()
