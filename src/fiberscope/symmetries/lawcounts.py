"""How many independent conservation laws a generic three-layer ReLU network has on all inputs."""

from __future__ import annotations

from dataclasses import dataclass

from fiberscope.arguments import as_count
from fiberscope.network import Network
from fiberscope.results import Assumption, Result, Rigor
from fiberscope.symmetries.dimensions import fiber_dimension, neuron_types


@dataclass(frozen=True)
class LawCount(Result):
    """Number of independent conservation laws under gradient flow on all inputs, near theta.

    Args:
        value: the number where the hypotheses that code can check hold, else None.
        formula: how it arises.
        hypotheses: each with what code found.
        rigor: GENERIC; that the listed laws are independent is a rank at generic theta, that there are no more was
            measured (iterated Lie brackets on 17 networks) and is not proved.
    """

    value: int | None
    formula: str
    hypotheses: tuple[Assumption, ...]
    rigor: Rigor = Rigor.GENERIC

    def __str__(self) -> str:
        """The number, or the first hypothesis that fails."""
        if self.value is not None:
            return f"{self.value} independent conservation laws on all inputs ({self.rigor.name}): {self.formula}"
        failing = [h.statement for h in self.hypotheses if h.holds is not True]
        return "the number of conservation laws is not known" + (f"; fails: {failing[0]}" if failing else "")


def block_law_count(active: int, width: int) -> int:
    """Independent entries of the balance matrix of a linear block: a (a + 1) / 2, or a k - k (k - 1) / 2 if a > k.

    The matrix of a neurons with k = (inputs) + 1 + (outputs) weights each is X G X^T, G an indefinite form on R^k; its
    differential at X of rank k has a kernel of the dimension of the isometries of G, k (k - 1) / 2.

    Args:
        active: a, the number of neurons.
        width: k, the parameters of one neuron.

    Raises:
        InputError: for what is no whole number >= 0.

    >>> block_law_count(2, 4), block_law_count(4, 3), block_law_count(5, 3)
    (3, 9, 12)
    """
    a, k = as_count(active, "active"), as_count(width, "width")
    return a * (a + 1) // 2 if a <= k else a * k - k * (k - 1) // 2


def law_count(net: Network) -> LawCount:
    """n1 + s + laws(a) + d (n1 + 1 + n3) independent laws, laws(a) counted by `block_law_count`.

    For generic three-layer bottleneck ReLU networks with s split, d dead and a always-active second-layer neurons:
    one balance for each first-layer and each split neuron, the balance matrix of the always-active block, all
    parameters of dead neurons. If s + a = 0 only the output bias moves and there are M - n3. A hidden first-layer
    neuron adds none. Source: arXiv 2605.18319 for the types; the count was measured.

    Raises:
        InputError: for what is no network.

    O(parameters), and an exact rank.

    >>> rows = ([[1.0, 2.0], [2.0, 1.0]], [1.0, 2.0]), ([[1.0, 2.0], [3.0, -1.0]], [1.0, 1.0]), ([[1.0, 1.0]], [0.0])
    >>> law_count(Network.from_arrays(*rows)).value  # n1 = 2, one split, one active
    4
    """
    found = fiber_dimension(net)
    if found.theorem != "relu-fiber-dimension":
        return LawCount(None, "", (_shape(net),))
    if found.exact is None:
        return LawCount(None, "", found.hypotheses)
    _, n1, _, n3 = net.widths
    types = neuron_types(net.layers[1].weight, net.layers[1].bias)
    s, d, a = len(types.split), len(types.dead), len(types.active)
    if not s + a:
        return LawCount(net.parameter_count - n3, "M - n3: only the output bias moves", found.hypotheses)
    value = n1 + s + block_law_count(a, n1 + 1 + n3) + d * (n1 + 1 + n3)
    return LawCount(value, f"n1 + s + laws(a) + d (n1 + 1 + n3) with {types}", found.hypotheses)


def _shape(net: Network) -> Assumption:
    return Assumption(f"three affine layers with ReLU (found {net.depth}, {net.architecture})", True, False)
