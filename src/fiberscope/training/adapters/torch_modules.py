"""torch modules as populations: by their traced data flow, else by the blocks whose names are known."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from fiberscope.errors import InputError, UnsupportedError, import_optional
from fiberscope.io.files import one_line
from fiberscope.training.adapters.torch_blocks import Attention, attention_of, own_of_torch, perceptron_of
from fiberscope.training.adapters.torch_graphs import Walk, trace
from fiberscope.training.adapters.torch_labels import Labels
from fiberscope.training.architectures.architecture import Architecture, Parameters, Skipped

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs", "_state_dict_hooks", "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip


def torch_package() -> Any:
    """torch, or an error that says what to install."""
    return import_optional("torch", extra="torch", purpose="watch torch modules")


def unwrapped(module: Any) -> Any:
    """The user's own module inside DataParallel, DistributedDataParallel and torch.compile.

    Raises:
        UnsupportedError: for sharded modules (FSDP), of which one process holds only a part.
    """
    sharded = _sharded(module)
    if sharded:
        raise UnsupportedError(
            f"{sharded}: its parameters are spread over processes; watch gathered checkpoints instead "
            "(trace_of_checkpoints), or a run without sharding"
        )
    while True:
        kind = type(module).__name__
        if kind in ("DataParallel", "DistributedDataParallel") and hasattr(module, "module"):
            module = module.module
        elif kind == "OptimizedModule" and hasattr(module, "_orig_mod"):
            module = module._orig_mod
        else:
            _refuse_without_values(module)
            return module


def _refuse_without_values(module: Any) -> None:
    """Refuse modules that do not hold numbers yet, or no Python modules.

    Raises:
        UnsupportedError: naming the first parameter without values, and what to do.
    """
    if any(c.__name__ == "ScriptModule" for c in type(module).__mro__):
        raise UnsupportedError(
            "a scripted or traced module shows no layers; give the torch module that it was made from, or its "
            "state_dict() with architecture_of(params, activation=...)"
        )
    for name, value in module.named_parameters():
        if type(value).__name__ == "UninitializedParameter":
            raise UnsupportedError(f"{name} is of a lazy layer without a shape yet; run the module once before")
        if getattr(value.device, "type", "") == "meta":
            raise UnsupportedError(
                f"{name} is on the meta device and has no values; load or initialise the module before"
            )


def _sharded(module: Any) -> str:
    """What shards a module's parameters over processes, empty if nothing does."""
    for part in module.modules():
        if type(part).__name__ in ("FullyShardedDataParallel", "XlaFullyShardedDataParallel"):
            return type(part).__name__
    for value in module.parameters():
        if type(value).__name__ == "DTensor" or type(value.data).__name__ == "DTensor":
            return "DTensor parameters (fully_shard)"
        if hasattr(value, "ds_id") and value.numel() == 0:
            return "DeepSpeed ZeRO-3"
    return ""


class ModuleParameters(Mapping[str, Array]):
    """Parameters of a module by name, converted when they are read: views of CPU memory where NumPy has the dtype.

    Args:
        tensors: names and tensors.
        moment: whether it is used at one moment of the run only: then views are made once. Copies are never kept.
    """

    def __init__(self, tensors: Mapping[str, Any], *, moment: bool = False) -> None:
        self._tensors = tensors
        self._views: dict[str, Array] | None = {} if moment else None

    def __getitem__(self, name: str) -> Array:
        """The value; bfloat16 and half precision as float32, other devices copied to the CPU, one tensor at a time."""
        if self._views is None:
            return as_array(self._tensors[name])
        found = self._views.get(name)
        if found is None:
            tensor = self._tensors[name]
            found = as_array(tensor)
            if tensor.device.type == "cpu" and tensor.element_size() >= 4:
                self._views[name] = found
        return found

    def __iter__(self) -> Iterator[str]:
        """Names, in the module's order."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """How many."""
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a name; converts nothing."""
        return name in self._tensors

    def __repr__(self) -> str:
        """How many, and the first names."""
        return f"<{len(self)} parameters: {', '.join(list(self)[:4])}, ...>"


def as_array(tensor: Any) -> Array:
    """A tensor as an array: a view of CPU float32 and float64 memory, else a copy; float32 for narrow floats."""
    value = tensor.detach()
    if not value.dtype.is_complex and value.dtype.is_floating_point and value.element_size() < 4:
        value = value.float()
    out: Array = value.cpu().numpy()
    return out


def checked_module(given: Any) -> Any:
    """A torch module, or an error.

    Raises:
        InputError: for anything without parameters of its own.
    """
    if callable(getattr(given, "named_parameters", None)) and not isinstance(given, type):
        return given
    name = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
    raise InputError(f"module is {name}; give a torch.nn.Module")


def parameters_of_module(module: nn.Module) -> Mapping[str, Array]:
    """The parameters of a torch module as a mapping that reads lazily; frozen and unfrozen ones, shared ones once.

    Args:
        module: a module, also inside DataParallel, DistributedDataParallel or torch.compile.

    Returns:
        names to arrays of the tensors' shapes; on the CPU views of the memory that is being trained, not copies.

    Raises:
        UnsupportedError: for sharded modules.

    O(number of parameter tensors); reading one costs its size at most.

    >>> torch = import_optional("torch", extra="torch", purpose="run this example")  # doctest: +SKIP
    >>> parameters_of_module(torch.nn.Linear(2, 3))["weight"].shape  # doctest: +SKIP
    (3, 2)
    """
    return ModuleParameters(dict(unwrapped(checked_module(module)).named_parameters()))


def shadow(module: Any) -> Any:
    """A copy of a module's structure whose parameters share the user's memory: traced and run in its place.

    Buffers are copied; hooks are left out; it is in evaluation mode and needs no gradients.

    Raises:
        UnsupportedError: if the module cannot be copied.
    """
    torch = torch_package()
    memo: dict[int, Any] = {}
    for part in module.modules():
        for name in _HOOKS:
            table = part.__dict__.get(name)
            if isinstance(table, dict):
                memo[id(table)] = OrderedDict()
    for value in module.parameters():
        memo[id(value)] = torch.nn.Parameter(value.detach(), requires_grad=False)
    try:
        out = copy.deepcopy(module, memo)
    except Exception as exc:  # the user's attributes may be anything
        raise UnsupportedError(f"{type(module).__name__} cannot be copied: {one_line(exc)}") from exc
    for old, new in zip(module.modules(), out.modules(), strict=False):
        # statistics that are not those of the batch while the model trains
        if module.training and not old.training and getattr(old, "running_mean", None) is not None:
            new.__dict__["fixed_statistics"] = True
    out.eval()
    return out


def architecture_of_module(module: nn.Module, example: Any = None, *, confirm: bool = True) -> Architecture:
    """Which axes of a module's parameters index interchangeable neurons, channels, heads and residual streams.

    The data flow is traced by torch.fx and every activation's channel axis labelled with a population; sums, gains and
    depthwise convolutions tie channels. Modules that cannot be traced are read block by block: attention and MLP
    blocks by the names of their projections, other parts by their own data flow. Inputs and outputs of the model are
    no neurons. Every parameter is in a slot or named in `skipped` with a reason. What names alone suggest, or shapes
    that are not known, is a guess (`Population.guessed`) that `example` puts to the test. Normalisations in evaluation
    mode inside a module in training mode have fixed statistics and are read so; their mode may change later.

    Args:
        module: any torch module, also inside DataParallel, DistributedDataParallel or torch.compile. It is not
            touched: a structural copy that shares the parameters' memory is traced and run.
        example: inputs to run it on: a tensor or array, a tuple of arguments, or a dict of keywords. With it shapes are
            known, and every population and law is tested by exchanging its neurons at random parameters
            (`confirmed`); those that fail are taken out and named.
        confirm: whether to test what the data flow says, if there is an example; guesses are always tested.

    Raises:
        UnsupportedError: for sharded modules.

    O(nodes of the graph); with an example some forward passes per population. Laws: arXiv 2307.00144.

    >>> torch = import_optional("torch", extra="torch", purpose="run this example")  # doctest: +SKIP
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1))  # doctest: +SKIP
    >>> [(p.name, p.count) for p in architecture_of_module(net).populations]  # doctest: +SKIP
    [('0', 5)]
    """
    torch_package()
    module = unwrapped(checked_module(module))
    notes: list[Skipped] = []
    try:
        copied = shadow(module)
    except UnsupportedError as exc:
        copied = None
        notes.append(Skipped(type(module).__name__, f"{exc}; only blocks of known names were read"))
    read = module if copied is None else copied
    found, whole = _read(read, example if copied is not None else None, notes, traced=copied is not None)
    if example is None or copied is None or (whole and not confirm):
        return found
    from fiberscope.training.adapters.torch_evaluation import Evaluation
    from fiberscope.training.adapters.torch_streams import with_stream
    from fiberscope.training.architectures.exchange import confirmed

    run = Evaluation(copied)
    parameters = parameters_of_module(module)

    def evaluate(values: Parameters) -> Array:
        return run(example, values)

    if not whole:
        found = with_stream(found, module, parameters, evaluate)
    return confirmed(found, parameters, evaluate, training=evaluate) if confirm and found.populations else found


def _read(module: Any, example: Any, notes: list[Skipped], *, traced: bool) -> tuple[Architecture, bool]:
    """The architecture before any test, and whether the whole data flow was followed."""
    names = {id(p): name for name, p in module.named_parameters()}
    shapes = [(name, tuple(int(n) for n in p.shape)) for name, p in module.named_parameters()]
    leaves = {
        path for path, part in module.named_modules()
        if path and isinstance(attention_of(part, path, names), Attention)
    }  # fmt: skip
    labels = Labels()
    if traced:
        try:
            graph = trace(module, leaves)
        except Exception as exc:  # the user's forward runs here and may fail in any way
            text = one_line(exc)[:80]
            said = "" if "co_varnames" in text else f" ({text})"  # of how Python keeps functions
            reason = f"torch.fx cannot follow the forward of {type(module).__name__}{said}"
            notes.append(Skipped(type(module).__name__, f"{reason}; its blocks were read by their names"))
        else:
            walk = Walk(labels, graph, names, sizes=_sizes(graph, example))
            walk.run(graph.graph)
            labels.chain = walk.chain()
            labels.skipped += notes
            return labels.finish(shapes), True
    _Blocks(labels, names, leaves, traced).read(module, "", None)
    labels.skipped += notes
    if not all(own_of_torch(part) for part in module.modules()):
        labels.guess_all(f"{type(module).__name__}, which cannot be traced, uses its parts as their names suggest")
    return labels.finish(shapes, partial=True), False


class _Blocks:
    """Attention and MLP blocks by name, parts that can be traced by their data flow, then whatever they hold.

    Args:
        labels: where populations are collected.
        names: of the parameters.
        leaves: paths of attention layers.
        traced: whether parts may be traced.
    """

    def __init__(self, labels: Labels, names: dict[int, str], leaves: set[str], traced: bool) -> None:
        self.labels, self.names, self.leaves, self.traced = labels, names, leaves, traced

    def read(self, module: Any, path: str, parent: Any) -> None:
        """One module and what it holds."""
        labels = self.labels
        block = attention_of(module, path, self.names, parent)
        if isinstance(block, Attention) and labels.free(row.weight for row in block.projections):
            out = labels.fresh(path, block.out.n_out)
            labels.pin(out, "output")
            block.label(labels, (None, None, None), out)
            return
        if isinstance(block, str):
            labels.skip(path, block)
        mlp = perceptron_of(module, path, self.names)
        if mlp is not None and labels.free((mlp[0].first.weight, mlp[0].last.weight)):
            mlp[0].label(labels, mlp[1])
        elif self.traced and path and block is None and self._worth(module) and self._follow(module, path):
            return
        for name, child in module.named_children():
            self.read(child, f"{path}.{name}" if path else name, module)

    def _worth(self, module: Any) -> bool:
        """Whether a part holds two layers with weights at least, none of them known, and says how it uses them."""
        if type(module).__name__ in ("ModuleList", "ModuleDict"):
            return False
        own = [name for p in module.parameters() if (name := self.names.get(id(p))) is not None]
        several = sum(1 for part in module.modules() if next(part.parameters(recurse=False), None) is not None) > 1
        return several and self.labels.free(own)

    def _follow(self, module: Any, path: str) -> bool:
        inner = {leaf[len(path) + 1 :] for leaf in self.leaves if leaf.startswith(f"{path}.")}
        try:
            graph = trace(module, inner)
        except Exception:  # the user's forward runs here; its parts are read instead
            return False
        Walk(self.labels, graph, self.names, prefix=path).run(graph.graph)
        return True


def _sizes(graph: Any, example: Any) -> dict[Any, Any]:
    """Shapes of all values of a graph on an example; empty without one, or if it cannot be run."""
    if example is None:
        return {}
    torch, fx = torch_package(), import_optional("torch.fx", extra="torch", purpose="follow shapes")
    from fiberscope.training.adapters.torch_evaluation import arguments, quiet

    sizes: dict[Any, Any] = {}

    class Shapes(fx.Interpreter):  # type: ignore[name-defined, misc]
        def run_node(self, n: Any) -> Any:
            value = super().run_node(n)
            if isinstance(value, torch.Tensor):
                sizes[n] = tuple(int(k) for k in value.shape)
            return value

    args, kwargs = arguments(example, next(graph.parameters(), None))
    places = [n for n in graph.graph.nodes if n.op == "placeholder"]
    rest = [kwargs.get(str(n.target), n.args[0] if n.args else None) for n in places[len(args) :]]
    try:
        with quiet(graph):
            Shapes(graph).run(*args, *rest)
    except Exception:  # shapes are a help, not a need
        return sizes
    return sizes
