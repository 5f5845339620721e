"""Positive scalings of homogeneous neurons: the dimension of their orbit at theta."""

from __future__ import annotations

import numpy as np

from fiberscope.network import Network


def scaling_rank(net: Network) -> int:
    """Dimension of the orbit of theta under positive scalings of its homogeneous neurons.

    Neuron i of a hidden layer with s(t z) = t^d s(z), t > 0, has the generator g_i = (w_i, b_i) - d (column i above).
    sum c_i g_i = 0 fixes the ratio of c_i and c_k along every nonzero weight between two such neurons and c_i = 0 at
    every nonzero weight or bias that only one of them touches; so the rank is the number of neurons minus the
    number of connected components that touch nothing else. O(parameters).

    Returns:
        The rank, a lower bound for the dimension of the fiber at theta (0 for tanh and other non-homogeneous ones).

    >>> scaling_rank(Network.random((2, 3, 1), activation="relu", seed=0))
    3
    """
    free = [layer.activation.homogeneity is not None for layer in net.hidden]
    starts = np.cumsum([0, *(n if ok else 0 for n, ok in zip(net.widths[1:-1], free, strict=True))])
    total = int(starts[-1])
    if not total:
        return 0
    anchored = np.zeros(total, dtype=bool)
    heads, tails = [], []
    for k, layer in enumerate(net.layers):
        support = np.asarray(layer.weight != 0, dtype=bool)
        above = k < len(free) and free[k]
        below = k > 0 and free[k - 1]
        if above:
            lonely = np.asarray(layer.bias != 0, dtype=bool)
            if not below:
                lonely = lonely | support.any(axis=1)
            anchored[starts[k] : starts[k + 1]] |= lonely
        if below and not above:
            anchored[starts[k - 1] : starts[k]] |= support.any(axis=0)
        if above and below:
            i, j = np.nonzero(support)
            heads.append(i + starts[k])
            tails.append(j + starts[k - 1])
    rows, columns = (np.concatenate(v) if v else np.zeros(0, dtype=np.int64) for v in (heads, tails))
    while (edges := anchored[rows] != anchored[columns]).any():
        anchored[rows[edges]] = anchored[columns[edges]] = True
    if anchored.all():  # as in most networks, and no reason to import SciPy for
        return total
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(rows.size, dtype=np.int8), (rows, columns)), shape=(total, total))
    count, component = connected_components(graph, directed=False)
    held = np.zeros(count, dtype=bool)
    held[component[anchored]] = True
    return total - int((~held).sum())
