"""Train the network that `fiberscope demo` looks at, and write it to src/fiberscope/data/digits-mlp.safetensors.

A 64-48-32-10 ReLU network learns the 8x8 digits that scikit-learn ships (UCI ML hand-written digits), pixels scaled to
[0, 1], with Adam in plain NumPy. Sparsity is asked for the way practitioners do: every step shrinks all
weights towards zero (an L1 proximal step), so that weights become exactly zero and some neurons end up dead or unread.
Nothing is planted: whatever redundancy the demo finds was left in by this training.

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
TARGET = Path(__file__).resolve().parents[1] / "src/fiberscope/data/digits-mlp.safetensors"


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


def main():
    """Train, print the test accuracy, write the file."""
    x, y = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x / 16.0, y, test_size=0.25, random_state=0, stratify=y)
    theta = train(train_x, train_y)
    net = fs.Network.from_arrays(*theta, activation="relu")
    accuracy = (net(test_x).argmax(axis=1) == test_y).mean()
    zeros = sum(int((w == 0).sum()) for w, _ in theta) / sum(w.size for w, _ in theta)
    print(f"{net}: test accuracy {accuracy:.3f}, {zeros:.0%} of the weights are zero")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    fs.save(net, TARGET, force=True)
    print(f"wrote {TARGET} ({TARGET.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
