"""Equations and inequalities of the part of a fiber where every neuron keeps its role.

theta' has the function of theta, neuron for neuron, if z'_i = rho_i z_i with rho_i > 0 (plus a shift for a hidden i),
every split second-layer neuron is kappa_j > 0 times the old one as a function of y, the always-active block has the
same product, and dead neurons stay dead. All residuals are polynomials in theta' divided by fixed numbers, once
rho_i = w'_iq / w_iq is written out for a fixed nonzero w_iq. Source: arXiv 2605.18319.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from fiberscope import rationals
from fiberscope.errors import InputError, ScopeError, import_optional
from fiberscope.fibers.walks import hidden_of
from fiberscope.network import Network
from fiberscope.results import Result
from fiberscope.symmetries import NeuronTypes, neuron_types

ExactArray = npt.NDArray[Any]
Residual = Callable[["Parts"], list[Any]]


@dataclass(frozen=True, eq=False)
class Condition(Result):
    """One family of equations r(theta') = 0, or of inequalities r(theta') > 0 or r(theta') >= 0.

    Args:
        name: what it is about.
        relation: "=", ">" or ">=".
        text: plain text.
        latex: LaTeX.
        count: number of scalar conditions.
    """

    hidden: ClassVar[frozenset[str]] = frozenset({"system", "formula"})

    name: str
    relation: str
    text: str
    latex: str
    count: int
    system: System = field(repr=False)
    formula: Residual = field(repr=False)

    def residual(self, theta: Sequence[Any] | ExactArray | Network) -> tuple[Any, ...]:
        """The left-hand sides at a parameter (M,), exact; with SymPy symbols in `theta`, expressions."""
        return tuple(self.formula(self.system.parts(theta)))

    def holds(self, theta: Sequence[Any] | ExactArray | Network) -> bool:
        """Whether all of them hold at a parameter, exactly."""
        values = self.residual(theta)
        if self.relation == "=":
            return not any(values)
        return all(v > 0 or (v == 0 and self.relation == ">=") for v in values)

    def __str__(self) -> str:
        """Name and formula."""
        return f"{self.name}: {self.text}"


class Parts:
    """W1, b1, W2, b2, W3, b3 of a parameter as object arrays, and rho for the system's leading weights."""

    def __init__(self, net: Network, theta: ExactArray, leads: Sequence[int]) -> None:
        """Cut theta into the layers' arrays."""
        self.weights: list[ExactArray] = []
        self.biases: list[ExactArray] = []
        at = 0
        for layer in net.layers:
            n, m = layer.weight.shape
            self.weights.append(theta[at : at + n * m].reshape(n, m))
            self.biases.append(theta[at + n * m : at + n * m + n])
            at += n * m + n
        first = rationals.fractions(net.layers[0].weight)
        self.rho = [self.weights[0][i, q] / first[i, q] if q >= 0 else 1 for i, q in enumerate(leads)]


@dataclass(frozen=True, eq=False)
class System:
    """The equations and inequalities of the part of a fiber where neurons keep their roles.

    Args:
        network: the parameter they come from: a three-layer or two-layer ReLU network, or a two-layer tanh one.

    >>> net = Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [-4.0]), ([[1.0]], [0.0]))
    >>> system = System(net)
    >>> [(c.name, c.text) for c in system.equations][0]
    ('row of split neuron 1', "u'_1,i rho_i = kappa_1 u_1,i for all i, c'_1 + u'_1,1 (b'_1 - rho_1 b_1) = kappa_1 c_1")
    >>> system.holds(net), system.holds([2, 1, 1, -5, 1, 0]), system.holds([2, 1, 1, -4, 1, 0])
    (True, True, False)
    """

    network: Network

    @cached_property
    def shape(self) -> str:
        """Either "three", "two" or "point" (the fiber is discrete).

        Raises:
            ScopeError: for other networks.
        """
        net, row = self.network, self.network.activation
        if row is not None and net.layers[-1].activation.name == "identity":
            if net.depth == 3 and row.name == "relu":
                return "three"
            if net.depth == 2 and row.name in ("relu", "tanh"):
                return "two" if row.name == "relu" else "point"
        raise ScopeError(f"equations are known for two and three layers; found {net.architecture}")

    @cached_property
    def leads(self) -> tuple[int, ...]:
        """For each first-layer neuron that is read the place q of its largest weight, -1 for the others."""
        first = self.network.layers[0].weight64
        unread = roles_of(self.network).unread if self.shape == "three" else ()
        return tuple(int(np.argmax(np.abs(w))) if np.any(w) and i not in unread else -1 for i, w in enumerate(first))

    def parts(self, theta: Sequence[Any] | ExactArray | Network) -> Parts:
        """The arrays of a parameter.

        Raises:
            InputError: if it has another number of entries.
        """
        vector = theta.theta if isinstance(theta, Network) else np.asarray(theta)
        if vector.shape != (self.network.parameter_count,):
            raise InputError(f"theta has shape {vector.shape}; expected ({self.network.parameter_count},)")
        if vector.dtype != object:
            vector = rationals.fractions(vector)
        return Parts(self.network, vector, self.leads)

    @cached_property
    def equations(self) -> tuple[Condition, ...]:
        """Residuals that vanish exactly on this part of the fiber (together with the inequalities)."""
        return tuple(c for c in self._conditions if c.relation == "=")

    @cached_property
    def inequalities(self) -> tuple[Condition, ...]:
        """Left-hand sides that are positive (or not negative)."""
        return tuple(c for c in self._conditions if c.relation != "=")

    def holds(self, theta: Sequence[Any] | ExactArray | Network) -> bool:
        """Whether a parameter satisfies all of them exactly: then it has the same function."""
        try:
            return all(c.holds(theta) for c in (*self.inequalities, *self.equations))
        except ZeroDivisionError:
            return False

    @cached_property
    def _conditions(self) -> tuple[Condition, ...]:
        build = {"three": _three_layer, "two": _two_layer, "point": _point}[self.shape]
        return tuple(
            Condition(name, relation, text, latex, count, self, formula)
            for name, relation, text, latex, count, formula in build(self.network, self.leads)
        )

    def latex(self) -> str:
        r"""All conditions as one LaTeX aligned block.

        >>> print(System(Network.from_arrays(([[1.0]], [0.0]), ([[2.0]], [1.0]))).latex().splitlines()[1])
        \rho_{1} &:= w'_{1,1} / (1) \\
        """
        lines = [
            rf"\rho_{{{i + 1}}} &:= w'_{{{i + 1},{q + 1}}} / ({_number(self.network.layers[0].weight[i, q])})"
            for i, q in enumerate(self.leads)
            if q >= 0 and self.shape != "point"
        ]
        lines += [c.latex for c in (*self.equations, *self.inequalities)]
        return "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"

    def sympy(self) -> dict[str, Any]:
        """The conditions over SymPy symbols W1_1_1, ..., b1_1, ...: {"symbols", "equations", "inequalities"}.

        Raises:
            MissingDependencyError: without sympy (extra `sympy`).
            InputError: above 500 parameters.
        """
        sympy = import_optional("sympy", extra="sympy", purpose="write equations as SymPy expressions")
        if self.network.parameter_count > 500:
            raise InputError(f"{self.network.parameter_count} parameters; SymPy expressions are built for at most 500")
        names = []
        for k, layer in enumerate(self.network.layers, 1):
            names += [f"W{k}_{i + 1}_{j + 1}" for i in range(layer.n_out) for j in range(layer.n_in)]
            names += [f"b{k}_{i + 1}" for i in range(layer.n_out)]
        symbols = np.array([sympy.Symbol(name, real=True) for name in names], dtype=object)
        relations = {">": sympy.Gt, ">=": sympy.Ge}

        def expressions(found: Sequence[Condition]) -> list[tuple[str, Any]]:
            return [(c.relation, sympy.nsimplify(sympy.expand(v))) for c in found for v in c.residual(symbols)]

        return {
            "symbols": dict(zip(names, symbols, strict=True)),
            "equations": [sympy.Eq(v, 0) for _, v in expressions(self.equations)],
            "inequalities": [relations[r](v, 0) for r, v in expressions(self.inequalities)],
        }


_Row = tuple[str, str, str, str, int, Residual]


def _number(value: Any) -> str:
    q = rationals.as_fraction(value)
    return str(q) if len(str(q)) <= 12 else f"{float(q):.6g}"


def _ratio(i: int) -> Residual:
    return lambda p: [p.rho[i]]


def _scaled_column(i: int, column: ExactArray) -> Residual:
    return lambda p: [p.rho[i] * a - b for a, b in zip(p.weights[1][:, i], column, strict=True)]


def _signed_row(j: int, sign: int) -> Residual:
    return lambda p: [*(p.weights[1][j] * sign), p.biases[1][j] * sign]


def _first_layer(net: Network, leads: Sequence[int], hidden: Sequence[int], unread: Sequence[int]) -> list[_Row]:
    """w'_i = rho_i w_i for all, b'_i = rho_i b_i for those that are not hidden, rho_i > 0."""
    weight, bias = rationals.fractions(net.layers[0].weight), rationals.fractions(net.layers[0].bias)
    rows: list[_Row] = []
    for i, q in enumerate(leads):
        if i in unread:
            continue
        if q < 0:
            raise ScopeError(f"first-layer neuron {i} has no weights; its equations are not written")

        def proportional(p: Parts, i: int = i, keep_bias: bool = i not in hidden) -> list[Any]:
            out = [p.weights[0][i, m] - p.rho[i] * weight[i, m] for m in range(weight.shape[1]) if m != leads[i]]
            return [*out, p.biases[0][i] - p.rho[i] * bias[i]] if keep_bias else out

        with_bias = "" if i in hidden else f", b'_{i + 1} = rho_{i + 1} b_{i + 1}"
        text = f"w'_{i + 1} = rho_{i + 1} w_{i + 1}{with_bias}"
        latex = rf"w'_{{{i + 1}}} &= \rho_{{{i + 1}}} w_{{{i + 1}}}" + (
            "" if i in hidden else rf",\quad b'_{{{i + 1}}} = \rho_{{{i + 1}}} b_{{{i + 1}}}"
        )
        count = weight.shape[1] - (i in hidden)
        if count:
            rows.append((f"row {i + 1} of layer 1", "=", text, latex, count, proportional))
        rows.append((
            f"direction of row {i + 1} of layer 1", ">", f"rho_{i + 1} > 0", rf"\rho_{{{i + 1}}} &> 0", 1,
            _ratio(i),
        ))  # fmt: skip
    return rows


def _two_layer(net: Network, leads: Sequence[int]) -> list[_Row]:
    """rho_i v'_i = v_i and the same output bias."""
    v, d = rationals.fractions(net.layers[1].weight), rationals.fractions(net.layers[1].bias)
    rows = _first_layer(net, leads, (), ())
    for i in range(net.widths[1]):
        rows.append((
            f"outgoing weights of neuron {i + 1}", "=", f"rho_{i + 1} v'_{i + 1} = v_{i + 1}",
            rf"\rho_{{{i + 1}}} v'_{{{i + 1}}} &= v_{{{i + 1}}}", len(d),
            _scaled_column(i, v[:, i]),
        ))  # fmt: skip
    rows.append(("output bias", "=", "d' = d", "d' &= d", len(d), lambda p: list(p.biases[1] - d)))
    return rows


def _point(net: Network, leads: Sequence[int]) -> list[_Row]:
    """Nothing moves: theta' = theta up to permutations and signs."""
    theta = rationals.fractions(net.theta)

    def difference(p: Parts) -> list[Any]:
        parts = [a.reshape(-1) for pair in zip(p.weights, p.biases, strict=True) for a in pair]
        return list(np.concatenate(parts) - theta)

    return [("all parameters", "=", "theta' = theta", r"\theta' &= \theta", len(theta), difference)]


class RoleTable(NamedTuple):
    """Types of second-layer neurons, hidden first-layer ones with their readers (all split), and unread ones."""

    types: NeuronTypes
    hidden: dict[int, list[int]]
    unread: tuple[int, ...]


def roles_of(net: Network) -> RoleTable:
    """The roles of the neurons of a three-layer ReLU network, from signs."""
    second = net.layers[1]
    types = neuron_types(second.weight, second.bias)
    found = hidden_of(second.weight, second.bias, types.dead)
    hidden = {i: readers for i, readers in found.items() if not set(readers) & set(types.active)}
    live = [*types.split, *types.active]
    read: npt.NDArray[np.bool_] = np.asarray(second.weight[live] != 0, dtype=bool).any(axis=0).reshape(-1)
    return RoleTable(types, hidden, tuple(np.flatnonzero(~read).tolist()))


def _three_layer(net: Network, leads: Sequence[int]) -> list[_Row]:
    types, hidden, unread = roles_of(net)
    rows = _first_layer(net, leads, list(hidden), unread)
    data = _Second(net, tuple(hidden))
    for j in types.split:
        rows += data.split(j, hidden)
    rows += data.block(types.active)
    for j in types.dead:
        rows.append((
            f"dead neuron {j + 1}", ">=", f"u'_{j + 1} <= 0, c'_{j + 1} <= 0",
            rf"u'_{{{j + 1}}} &\le 0,\quad c'_{{{j + 1}}} \le 0", net.widths[1] + 1,
            _signed_row(j, -1),
        ))  # fmt: skip
    return rows


class _Second:
    """The second and third layer of theta over Q, and their conditions on theta'."""

    def __init__(self, net: Network, hidden: tuple[int, ...]) -> None:
        layers = net.layers
        self.u, self.c = rationals.fractions(layers[1].weight), rationals.fractions(layers[1].bias)
        self.v, self.d = rationals.fractions(layers[2].weight), rationals.fractions(layers[2].bias)
        self.b1, self.hidden = rationals.fractions(layers[0].bias), hidden

    def row(self, p: Parts, j: int) -> tuple[list[Any], Any]:
        """Neuron j of theta' as a function of theta's y: (u'_ji rho_i, c'_j plus what hidden shifts moved into it)."""
        moved = p.biases[1][j]
        for i in self.hidden:
            moved = moved + p.weights[1][j, i] * (p.biases[0][i] - p.rho[i] * self.b1[i])
        return [p.weights[1][j, i] * p.rho[i] for i in range(len(self.u[0]))], moved

    def split(self, j: int, hidden: dict[int, list[int]]) -> list[_Row]:
        """The row of j is kappa_j (u_j, c_j), and kappa_j v'_j = v_j."""
        k = next(i for i in sorted(range(len(self.u[j])), key=lambda i: -abs(self.u[j, i])))

        def kappa(p: Parts) -> Any:
            return p.weights[1][j, k] * p.rho[k] / self.u[j, k]

        def proportional(p: Parts) -> list[Any]:
            row, bias = self.row(p, j)
            out = [row[i] - kappa(p) * self.u[j, i] for i in range(len(row)) if i != k]
            return [*out, bias - kappa(p) * self.c[j]]

        n, shifts = j + 1, [i for i in hidden if j in hidden[i]]
        plus = "".join(f" + u'_{n},{i + 1} (b'_{i + 1} - rho_{i + 1} b_{i + 1})" for i in shifts)
        more = "".join(rf" + u'_{{{n},{i + 1}}} (b'_{{{i + 1}}} - \rho_{{{i + 1}}} b_{{{i + 1}}})" for i in shifts)
        text = f"u'_{n},i rho_i = kappa_{n} u_{n},i for all i, c'_{n}{plus} = kappa_{n} c_{n}"
        latex = (
            rf"u'_{{{n},i}} \rho_i &= \kappa_{{{n}}} u_{{{n},i}}\;\forall i,\quad "
            rf"c'_{{{n}}}{more} = \kappa_{{{n}}} c_{{{n}}}"
        )
        where = f"kappa_{n} = u'_{n},{k + 1} rho_{k + 1} / ({_number(self.u[j, k])}) > 0"
        formula = rf"\kappa_{{{n}}} &:= u'_{{{n},{k + 1}}} \rho_{{{k + 1}}} / ({_number(self.u[j, k])}) > 0"
        rows: list[_Row] = [
            (f"row of split neuron {n}", "=", text, latex, len(self.u[j]), proportional),
            (
                f"outgoing weights of split neuron {n}", "=", f"kappa_{n} v'_{n} = v_{n}",
                rf"\kappa_{{{n}}} v'_{{{n}}} &= v_{{{n}}}", len(self.d),
                lambda p: [kappa(p) * a - b for a, b in zip(p.weights[2][:, j], self.v[:, j], strict=True)],
            ),
            (f"orientation of split neuron {n}", ">", where, formula, 1, lambda p: [kappa(p)]),
        ]  # fmt: skip
        if shifts:
            text = f"c'_{n} <= 0: the kink of neuron {', '.join(str(i + 1) for i in shifts)} of layer 1 stays hidden"
            latex = rf"c'_{{{n}}} &\le 0"
            rows.append((f"hidden kink under neuron {n}", ">=", text, latex, 1, lambda p: [-p.biases[1][j]]))
        return rows

    def block(self, active: Sequence[int]) -> list[_Row]:
        """The same linear map from the always-active neurons, and the same constant with the output bias."""
        index, n1 = list(active), len(self.u[0])
        product = self.v[:, index] @ self.u[index] if index else np.full((len(self.d), n1), Fraction(0), dtype=object)
        constant = self.d + (self.v[:, index] @ self.c[index] if index else 0)

        def same_map(p: Parts) -> list[Any]:
            rows = [self.row(p, j)[0] for j in index]
            return [
                sum(p.weights[2][m, j] * row[i] for j, row in zip(index, rows, strict=True)) - product[m, i]
                for m in range(len(self.d))
                for i in range(n1)
            ]

        def same_constant(p: Parts) -> list[Any]:
            total = p.biases[2]
            return list(total + p.weights[2][:, index] @ p.biases[1][index] - constant if index else total - constant)

        text, latex = "d' = d", "d' &= d"
        if index:
            text = "d' + sum over A of v'_j c'_j = d + sum over A of v_j c_j"
            latex = r"d' + \sum_{j\in A} v'_j c'_j &= d + \sum_{j\in A} v_j c_j"
        rows: list[_Row] = [("output bias", "=", text, latex, len(self.d), same_constant)]
        if index:
            rows.append((
                "always-active block", "=", "sum over A of v'_j u'_j,i rho_i = sum over A of v_j u_j,i for all i",
                r"\sum_{j\in A} v'_j u'_{j,i} \rho_i &= \sum_{j\in A} v_j u_{j,i}\;\forall i",
                len(self.d) * n1, same_map,
            ))  # fmt: skip
        for j in index:
            rows.append((
                f"always-active neuron {j + 1}", ">=", f"u'_{j + 1} >= 0, c'_{j + 1} >= 0",
                rf"u'_{{{j + 1}}} &\ge 0,\quad c'_{{{j + 1}}} \ge 0", n1 + 1,
                _signed_row(j, 1),
            ))  # fmt: skip
        return rows


def second_layer_row(net: Network, parts: Parts, neuron: int) -> tuple[list[Any], Any]:
    """A second-layer neuron of another parameter as a function u y + c of the first layer's outputs y of `net`."""
    return _Second(net, tuple(roles_of(net).hidden)).row(parts, neuron)
