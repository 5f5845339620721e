"""torch optimisers for reduced networks: the reduced module then trains like the wide one, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fiberscope.arguments import shown
from fiberscope.errors import InputError, ScopeError, import_optional
from fiberscope.invariants.dynamics.reduced import ReducedNetwork
from fiberscope.invariants.dynamics.updates import FAMILIES, Family, Optimiser

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

_KNOWN: dict[str, Family] = {
    "SGD": "linear", "ASGD": "linear", "Adam": "elementwise", "AdamW": "elementwise", "NAdam": "elementwise",
    "RAdam": "elementwise", "Adamax": "elementwise", "Adagrad": "elementwise", "Adadelta": "elementwise",
    "RMSprop": "elementwise", "Rprop": "elementwise",
}  # fmt: skip
"""Optimisers of torch.optim by what their update does; others must be named by the caller."""
_DECOUPLED = frozenset({"AdamW", "ASGD"})


def checked_reduced(given: Any) -> ReducedNetwork:
    """A reduced network, or an error that says where it comes from.

    Raises:
        InputError: for anything else.
    """
    if isinstance(given, ReducedNetwork):
        return given
    raise InputError(
        f"reduced is a {type(given).__name__}; give the ReducedNetwork of fs.smallest_sim(net).reduced(), "
        "which has the metric that training needs"
    )


def reduced_optimiser(
    optimiser: Callable[..., Optimizer],
    parameters: nn.Module | Iterable[Tensor],
    reduced: ReducedNetwork,
    *,
    family: Family | None = None,
    **options: Any,
) -> Optimizer:
    """A torch optimiser of the reduced network whose steps are those of the wide network.

    In each step it works on p * R with gradients q * G (`ReducedNetwork.coordinates`): the entries of the wide network
    for elementwise rules; R itself with multiplied gradients for rules linear in the gradient.

    Args:
        optimiser: a class of torch.optim, such as `torch.optim.Adam`.
        parameters: the reduced module, or its parameters in the order of the layers: weights (k_l, k_(l-1)), then the
            bias (k_l,) if there is one.
        reduced: from `reduced_network`.
        family: "linear", "orthogonal" or "elementwise" for an optimiser that is not in torch.optim.
        options: what the optimiser takes: lr, momentum, weight_decay, ...

    Returns:
        An instance of a subclass of `optimiser`: schedulers, `state_dict` and closures work as usual. It has a method
        `clip_gradients_(max_norm)`, which clips by the norm of the wide network's gradient; plain
        `clip_grad_norm_` would use another norm.

    Raises:
        ScopeError: if the wide network leaves its manifold under this optimiser; the reason is named.
        InputError: if the parameters do not fit, or the optimiser's family is not known.
    """
    torch = import_optional("torch", extra="torch", purpose="make a torch optimiser")
    base: Any = optimiser
    if not isinstance(base, type):
        raise InputError(f"optimiser is {shown(optimiser)}; give a class of torch.optim, such as torch.optim.Adam")
    checked_reduced(reduced)
    title = next((c.__name__ for c in getattr(base, "__mro__", ()) if c.__name__ in _KNOWN), base.__name__)
    known = family or _KNOWN.get(title)
    if known is None or known not in set(FAMILIES.values()):
        raise InputError(
            f"{title} is not known to be linear in the gradient or elementwise; say which with family='linear', "
            "'orthogonal' or 'elementwise'"
        )
    coupled = not (title in _DECOUPLED or options.get("decoupled_weight_decay"))
    decay = float(options.get("weight_decay", 0.01 if title == "AdamW" else 0.0))
    rule = next(name for name, group in FAMILIES.items() if group == known)
    try:
        reduced.require(Optimiser(rule, 1.0, decay=decay, coupled=coupled))
    except ScopeError as exc:
        raise ScopeError(f"torch.optim.{title}: {exc}") from exc
    tensors = list(parameters.parameters() if hasattr(parameters, "parameters") else parameters)
    scales = _scales(torch, tensors, reduced, known)
    made = _subclass(torch, base)(tensors, **options)
    made._fiberscope_scales = scales
    return cast("Optimizer", made)


_Scale = tuple[Any, Any, Any, Any]


def _scales(torch: Any, tensors: Sequence[Any], reduced: ReducedNetwork, family: Family) -> list[_Scale]:
    """(tensor, factor of the parameter, factor of the gradient, squared factor of the norm), one for each tensor."""
    parameter, slope = (reduced._layered(v) for v in reduced.coordinates(family))
    squares = list(zip(reduced.weight_multipliers, reduced.bias_multipliers, strict=True))
    out: list[_Scale] = []
    queue = list(tensors)
    for k, (factors, slopes, square) in enumerate(zip(parameter, slope, squares, strict=True)):
        for what, p, q, s in zip(("weights", "biases"), factors, slopes, square, strict=True):
            if what == "biases" and (not queue or queue[0].ndim != 1):
                continue  # a layer without a bias
            if not queue or tuple(queue[0].shape) != p.shape:
                seen = tuple(queue[0].shape) if queue else "nothing"
                raise InputError(f"{what} of layer {k + 1}: found {seen} among the parameters; expected {p.shape}")
            tensor = queue.pop(0)
            out.append((tensor, *(_like(torch, v, tensor) for v in (p, q, s))))
    if queue:
        raise InputError(f"{len(queue)} parameters more than the reduced network has; give its parameters only")
    return out


def _like(torch: Any, values: Any, tensor: Any) -> Any:
    return torch.as_tensor(np.array(values), dtype=tensor.dtype, device=tensor.device)


def _subclass(torch: Any, base: Any) -> Any:
    def step(self: Any, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()  # at the reduced parameters, before they change coordinates
        with torch.no_grad():
            kept = [(t, None if t.grad is None else t.grad.clone()) for t, *_ in self._fiberscope_scales]
            for tensor, p, q, _ in self._fiberscope_scales:
                tensor.mul_(p)
                if tensor.grad is not None:
                    tensor.grad.mul_(q)
        try:
            base.step(self)
        finally:
            with torch.no_grad():
                for (tensor, p, _, _), (_, gradient) in zip(self._fiberscope_scales, kept, strict=True):
                    tensor.div_(p)
                    tensor.grad = gradient
        return loss

    def clip_gradients_(self: Any, max_norm: float) -> Any:
        """Clip by the norm of the wide network's gradient, root of sum (n_B / n_A) G^2; returns that norm."""
        with torch.no_grad():
            squares = [(s * t.grad.square()).sum() for t, _, _, s in self._fiberscope_scales if t.grad is not None]
            total = torch.stack(squares).sum().sqrt()
            factor = torch.clamp(max_norm / total, max=1.0)
            for tensor, *_ in self._fiberscope_scales:
                if tensor.grad is not None:
                    tensor.grad.mul_(factor)
        return total

    return type(f"Reduced{base.__name__}", (base,), {"step": step, "clip_gradients_": clip_gradients_})
