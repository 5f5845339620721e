"""ONNX: reading against onnxruntime, exactness of what is read, drop-in writing, and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope import rationals
from fiberscope.activations import activation
from fiberscope.errors import FormatError, InputError, ScopeError, UnsupportedError
from fiberscope.network import Network

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from fiberscope.io import onnx as door  # noqa: E402
from fiberscope.io.files import Options  # noqa: E402

runtime.set_default_logger_severity(4)
RNG = np.random.default_rng(7)
KIND = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE, np.float16: TensorProto.FLOAT16}


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def build(
    nodes: Sequence[Any],
    tensors: dict[str, np.ndarray],
    shape: Sequence[Any],
    *,
    opset: int = 17,
    dtype: Any = np.float32,
    out: Any = None,
) -> Any:
    """A model with input x and output y."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", KIND[dtype], shape)],
        [helper.make_tensor_value_info("y", KIND[dtype] if out is None else out, None)],
        [numpy_helper.from_array(a, name) for name, a in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    try:
        model.graph.output[0].CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[0])
    except onnx.shape_inference.InferenceError:
        pass  # graphs that are wrong on purpose
    return model


def n(op: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), [output], name=f"{op}_{output}", **attributes)


def run(model: Any, points: np.ndarray) -> np.ndarray:
    """Outputs of onnxruntime, one sample at a time, flat."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    shape = [d if isinstance(d, int) else 1 for d in value.shape]
    dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64}[value.type]
    return np.array([session.run(None, {value.name: v.astype(dtype).reshape(shape)})[0].reshape(-1) for v in points])


def points(count: int) -> np.ndarray:
    """Random and boundary inputs."""
    special = np.stack([np.zeros(count), np.ones(count), -np.ones(count), np.eye(count)[0]])
    return np.concatenate([RNG.standard_normal((6, count)), special, 10 * RNG.standard_normal((2, count))])


def agree(net: Network, model: Any, rtol: float = 2e-6) -> None:
    x = points(net.widths[0]).astype(np.float32)
    expected = run(model, x)
    got = net(x)
    if net.head == "softmax":
        got = np.exp(got - got.max(1, keepdims=True))
        got /= got.sum(1, keepdims=True)
    if net.head == "argmax":
        got = got.argmax(1)[:, None]
    assert got.shape == expected.shape
    last = net.layers[-1]  # rounding is relative to the terms that are added, not to their sum
    below = net.layers[-2].activation(net.preactivations(x)[-2]) if net.depth > 1 else x
    terms = np.abs(below) @ np.abs(last.weight64).T
    assert np.abs(got - expected).max() <= rtol * max(1.0, np.abs(expected).max(), terms.max())


# ---- reading: what is read is what the runtime computes

MLP = [n("MatMul", "x W", "a"), n("Add", "a b", "z"), n("Relu", "z", "h"), n("Gemm", "h V c", "y", transB=1)]


def mlp_tensors(i: int = 3, h: int = 5, o: int = 2) -> dict[str, np.ndarray]:
    return {"W": f32(i, h), "b": f32(h), "V": f32(o, h), "c": f32(o)}


GRAPHS: dict[str, tuple[list[Any], dict[str, np.ndarray], list[Any]]] = {
    "gemm alpha beta": (
        [n("Gemm", "x W b", "y", alpha=0.3, beta=-0.7)], {"W": f32(3, 4), "b": f32(1, 4)}, ["N", 3]),
    "gemm transA": ([n("Gemm", "x W", "y", transA=1)], {"W": f32(3, 4)}, [3, 1]),
    "gemm transA transB": ([n("Gemm", "x W b", "y", transA=1, transB=1)], {"W": f32(4, 3), "b": f32(1)}, [3, 1]),
    "gemm weight left": ([n("Gemm", "W x b", "y", transA=1)], {"W": f32(3, 4), "b": f32(4, 1)}, [3, 1]),
    "matmul weight left": ([n("MatMul", "W x", "a"), n("Add", "b a", "y")], {"W": f32(4, 3), "b": f32(4)}, [3]),
    "matmul vector": ([n("MatMul", "x w", "y")], {"w": f32(3)}, ["N", 3]),
    "matmul positions": ([n("MatMul", "x W", "a"), n("Relu", "a", "y")], {"W": f32(3, 2)}, [1, 4, 3]),
    "matmul left positions": ([n("MatMul", "W x", "y")], {"W": f32(2, 3)}, [2, 3, 4]),
    "normalised": (
        [n("Sub", "x m", "d"), n("Div", "d s", "e"), *[helper.make_node("MatMul", ["e", "W"], ["y"])]],
        {"m": f32(3), "s": np.array([3, 0.1, 7], np.float32), "W": f32(3, 2)}, ["N", 3]),
    "reversed": (
        [n("Sub", "m x", "d"), n("Neg", "d", "e"), n("Mul", "s e", "f"), n("MatMul", "f W", "y")],
        {"m": f32(3), "s": f32(1), "W": f32(3, 2)}, ["N", 3]),
    "denormalised": (
        [n("MatMul", "x W", "a"), n("Mul", "a s", "d"), n("Add", "d m", "y")],
        {"m": f32(2), "s": f32(2), "W": f32(3, 2)}, ["N", 3]),
    "composed": (
        [n("MatMul", "x W", "a"), n("Add", "a b", "c"), n("MatMul", "c V", "y")],
        {"W": f32(3, 5), "b": f32(5), "V": f32(5, 2)}, ["N", 3]),
    "flatten": ([n("Flatten", "x", "f"), n("MatMul", "f W", "y")], {"W": f32(6, 2)}, ["N", 2, 3]),
    "transpose": (
        [n("Transpose", "x", "t", perm=[0, 2, 1]), n("Flatten", "t", "f"), n("MatMul", "f W", "y")],
        {"W": f32(6, 2)}, ["N", 2, 3]),
    "reshape by shape": (
        [n("Shape", "x", "s"), n("Gather", "s zero", "b", axis=0), n("Unsqueeze", "b ax", "u"),
         n("Concat", "u minus", "t", axis=0), n("Reshape", "x t", "f"), n("MatMul", "f W", "y")],
        {"zero": np.array(0), "ax": np.array([0]), "minus": np.array([-1]), "W": f32(6, 2)}, ["N", 2, 3]),
    "slice gather": (
        [n("Slice", "x st en ax sp", "s"), n("Gather", "s pick", "g", axis=1), n("MatMul", "g W", "y")],
        {"st": np.array([5]), "en": np.array([0]), "ax": np.array([1]), "sp": np.array([-2]),
         "pick": np.array([2, 0, 0]), "W": f32(3, 2)}, ["N", 6]),
    "squeeze": (
        [n("Squeeze", "x ax", "s"), n("MatMul", "s W", "a"), n("Unsqueeze", "a ax", "y")],
        {"ax": np.array([1]), "W": f32(3, 2)}, ["N", 1, 3]),
    "conv": (
        [n("Conv", "x K b", "c", pads=[1, 0, 1, 1], strides=[2, 1], dilations=[1, 2]), n("Relu", "c", "r"),
         n("Flatten", "r", "f"), n("MatMul", "f W", "y")],
        {"K": f32(3, 2, 3, 2), "b": f32(3), "W": f32(3 * 3 * 4, 2)}, ["N", 2, 5, 5]),
    "conv same groups": (
        [n("Conv", "x K", "c", auto_pad="SAME_UPPER", group=2, strides=[2]), n("Flatten", "c", "y")],
        {"K": f32(4, 1, 3)}, ["N", 2, 6]),
    "batch normalisation": (
        [n("Gemm", "x W b", "g"), n("BatchNormalization", "g s o m v", "n", epsilon=1e-3), n("Relu", "n", "y")],
        {"W": f32(3, 4), "b": f32(4), "s": f32(4), "o": f32(4), "m": f32(4), "v": np.abs(f32(4))}, ["N", 3]),
    "pools": (
        [n("Pad", "x p", "q"), n("AveragePool", "q", "a", kernel_shape=[2, 2], strides=[1, 1]),
         n("Tanh", "a", "t"), n("GlobalAveragePool", "t", "g"), n("Flatten", "g", "y")],
        {"p": np.array([0, 0, 1, 0, 0, 0, 0, 1])}, ["N", 2, 3, 3]),
    "reduce": ([n("ReduceMean", "x", "m", axes=[1], keepdims=0), n("MatMul", "m W", "y")], {"W": f32(3, 2)},
               ["N", 4, 3]),
    "broadcast": ([n("Add", "x b", "a"), n("Relu", "a", "y")], {"b": f32(3, 2)}, [1, 2]),
    "two activations": ([n("MatMul", "x W", "a"), n("Relu", "a", "r"), n("Tanh", "r", "y")], {"W": f32(3, 2)},
                        ["N", 3]),
    "softmax": ([n("MatMul", "x W", "a"), n("Softmax", "a", "y")], {"W": f32(3, 4)}, ["N", 3]),
    "transposed weight": (
        [n("Transpose", "W", "T"), n("MatMul", "x T", "a"), n("Relu", "a", "y")], {"W": f32(4, 3)}, ["N", 3]),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_agree_with_onnxruntime(name: str) -> None:
    nodes, tensors, shape = GRAPHS[name]
    model = build(nodes, tensors, shape)
    net = door.from_model(model)
    agree(net, model)
    data = model.SerializeToString()
    assert net.source is not None
    floats = {k: a for k, a in tensors.items() if a.dtype.kind == "f"}
    assert net.source.parameter_count == sum(a.size for a in floats.values())
    assert dict(net.source.tensors) == {k: a.shape for k, a in floats.items()}
    x = points(net.widths[0])
    assert np.array_equal(run(door.rewrite(data, net, net, np.float32), x), run(data, x))


def test_argmax_head() -> None:
    model = build([n("MatMul", "x W", "a"), n("ArgMax", "a", "y", axis=1)], {"W": f32(3, 4)}, ["N", 3], out=7)
    net = door.from_model(model)
    assert net.head == "argmax"
    agree(net, model)


def test_own_parameters_are_kept_as_they_are() -> None:
    tensors = mlp_tensors()
    net = door.from_model(build(MLP, tensors, ["N", 3]))
    first, last = net.layers
    assert first.weight.dtype == np.float32 and np.array_equal(first.weight, tensors["W"].T)
    assert np.array_equal(first.bias, tensors["b"]) and np.array_equal(last.weight, tensors["V"])
    assert (first.weight_name, first.bias_name, last.weight_name, last.bias_name) == ("W", "b", "V", "c")
    assert net.folded == () and first.name == "MatMul_a"
    net.require_own_parameters("a law")


def test_sub_by_zero_and_layout_changes_are_not_folding() -> None:
    nodes = [n("Sub", "x m", "d"), n("Flatten", "d", "f"), *[n("Gemm", "f W", "y")]]
    net = door.from_model(build(nodes, {"m": np.zeros((1, 1, 3), np.float32), "W": f32(3, 2)}, ["N", 1, 3]))
    assert net.folded == ()


def test_a_division_is_folded_exactly_and_undone_by_the_frame() -> None:
    tensors = {"m": f32(3), "s": np.array([3, 0.1, 7], np.float32), "W": f32(3, 2)}
    nodes = [n("Sub", "x m", "d"), n("Div", "d s", "e"), n("MatMul", "e W", "y")]
    net = door.from_model(build(nodes, tensors, ["N", 3]))
    (layer,) = net.layers
    assert layer.weight[0, 1] == Fraction(float(tensors["W"][1, 0])) / Fraction(float(np.float32(0.1)))
    x = [Fraction(k) for k in (1, 2, 3)]
    mean, scale, weight = (rationals.fractions(tensors[name]) for name in "msW")
    exact = list((np.array(x, dtype=object) - mean) / scale @ weight)
    assert list(net.exact([1, 2, 3])) == exact
    assert len(layer.folded) == 2 and layer.frame is not None
    weight, bias = layer.own
    assert np.array_equal(weight, tensors["W"].T) and not bias.any()
    with pytest.raises(ScopeError):
        net.require_own_parameters("a law")


def test_hidden_normalisation_has_no_frame_and_batch_norm_is_recorded_as_rounded() -> None:
    nodes, tensors, shape = GRAPHS["batch normalisation"]
    net = door.from_model(
        build([*nodes[:-1], n("Relu", "n", "h"), n("MatMul", "h V", "y")], tensors | {"V": f32(4, 1)}, shape)
    )
    assert net.layers[0].folded and net.layers[0].frame is None
    assert net.source is not None and "irrational" in net.source.approximations[0]


def test_shared_tensors_are_read_but_not_called_own() -> None:
    nodes = [n("MatMul", "x W", "a"), n("Relu", "a", "h"), n("MatMul", "h W", "y")]
    net = door.from_model(build(nodes, {"W": f32(3, 3)}, ["N", 3]))
    assert "more than once" in net.layers[0].folded[0]
    assert net.source is not None and net.source.parameter_count == 9


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_float_dtypes(dtype: Any) -> None:
    weight = RNG.standard_normal((3, 2)).astype(dtype)
    net = door.from_model(build([n("MatMul", "x W", "y")], {"W": weight}, ["N", 3], dtype=dtype))
    assert net.layers[0].weight.dtype == dtype and np.array_equal(net.layers[0].weight, weight.T)
    assert net.source is not None and net.source.dtype == np.dtype(dtype).name


@pytest.mark.parametrize("raw", [True, False])
def test_bfloat16_is_widened_exactly(raw: bool) -> None:
    values = np.array([[1.0], [-0.5], [3.140625]], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    model = build([n("MatMul", "x W", "y")], {"W": values}, ["N", 3])
    tensor = model.graph.initializer[0]
    tensor.data_type = TensorProto.BFLOAT16
    tensor.ClearField("raw_data")
    if raw:
        tensor.raw_data = bits.tobytes()
    else:
        tensor.int32_data.extend(int(b) for b in bits.reshape(-1))
    weight = door.from_model(model).layers[0].weight
    assert weight.dtype == np.float32 and np.array_equal(weight, values.T)


def test_constant_nodes_are_parameters() -> None:
    weight = f32(3, 2)
    constant = helper.make_node("Constant", [], ["W"], value=numpy_helper.from_array(weight))
    net = door.from_model(build([constant, n("MatMul", "x W", "y")], {}, ["N", 3]))
    assert np.array_equal(net.layers[0].weight, weight.T) and net.layers[0].weight_name == "W"
    assert net.source is not None and net.source.tensors == (("W", (3, 2)),)


def test_an_input_without_sizes_takes_them_from_the_first_matrix() -> None:
    model = build(MLP, mlp_tensors(), ["N", 3])
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert door.from_model(model).widths == (3, 5, 2)
    assert door.from_model(build([n("MatMul", "x W", "y")], {"W": f32(3, 2)}, ["N"])).widths == (3, 2)


# ---- activations

ACTIVATIONS: dict[str, tuple[list[Any], dict[str, np.ndarray], int, str]] = {
    op: ([n(op, "z", "y")], {}, 20, label)
    for op, label in [
        ("Relu", "relu"), ("Tanh", "tanh"), ("Sigmoid", "sigmoid"), ("Softplus", "softplus"), ("Erf", "erf"),
        ("Sin", "sin"), ("Cos", "cos"), ("Abs", "abs"), ("Gelu", "gelu"), ("Elu", "elu"), ("Celu", "elu"),
        ("LeakyRelu", "leaky_relu"), ("HardSigmoid", "clip"),
    ]
}  # fmt: skip
ROOT = np.float32(np.sqrt(2.0))
ACTIVATIONS |= {
    "clip": ([n("Clip", "z lo hi", "y")], {"lo": np.float32(-0.5), "hi": np.float32(2)}, 17, "clip"),
    "clip relu": ([n("Clip", "z lo", "y")], {"lo": np.float32(0)}, 17, "relu"),
    "old clip": ([n("Clip", "z", "y", min=-1.0, max=1.0)], {}, 9, "hard_tanh"),
    "max": ([n("Max", "zero z", "y")], {"zero": np.zeros(1, np.float32)}, 17, "relu"),
    "prelu": ([n("PRelu", "z s", "y")], {"s": np.full(4, 0.25, np.float32)}, 17, "leaky_relu"),
    "gelu tanh": ([n("Gelu", "z", "y", approximate="tanh")], {}, 20, "gelu_tanh"),
    "square": ([n("Mul", "z z", "y")], {}, 17, "square"),
    "cube": ([n("Pow", "z three", "y")], {"three": np.float32(3)}, 17, "polynomial"),
    "silu": ([n("Sigmoid", "z", "s"), n("Mul", "z s", "y")], {}, 17, "silu"),
    "gaussian": ([n("Mul", "z z", "q"), n("Neg", "q", "m"), n("Exp", "m", "y")], {}, 17, "gaussian"),
    "gelu erf": (
        [n("Div", "z r", "d"), n("Erf", "d", "e"), n("Add", "e one", "f"), n("Mul", "z f", "g"),
         n("Mul", "g half", "y")],
        {"r": ROOT, "one": np.float32(1), "half": np.float32(0.5)}, 17, "gelu"),
    "polynomial": (
        [n("Mul", "z z", "q"), n("Mul", "q two", "p"), n("Sub", "p z", "s"), n("Add", "s two", "y")],
        {"two": np.float32(2)}, 17, "polynomial"),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_operators_agree_with_onnxruntime(name: str) -> None:
    nodes, tensors, opset, label = ACTIVATIONS[name]
    model = build([n("MatMul", "x W", "z"), *nodes], {"W": f32(3, 4), **tensors}, ["N", 3], opset=opset)
    net = door.from_model(model)
    assert net.layers[0].activation.name == label
    agree(net, model, rtol=2e-5)
    data = model.SerializeToString()
    x = points(3)
    assert np.array_equal(run(door.rewrite(data, net, net, np.float32), x), run(data, x))


def test_slopes_are_the_exact_float32_of_the_file() -> None:
    net = door.from_model(
        build([n("MatMul", "x W", "z"), n("LeakyRelu", "z", "y", alpha=0.1)], {"W": f32(3, 4)}, ["N", 3])
    )
    assert net.layers[0].activation == activation("leaky_relu", Fraction(float(np.float32(0.1))))


def test_written_out_gelu_is_recorded_as_an_approximation_and_quick_gelu_refused() -> None:
    nodes, tensors, _, _ = ACTIVATIONS["gelu erf"]
    net = door.from_model(build([n("MatMul", "x W", "z"), *nodes], {"W": f32(3, 4), **tensors}, ["N", 3]))
    assert net.source is not None and "sqrt(2)" in net.source.approximations[0]
    quick = [n("Mul", "z c", "a"), n("Sigmoid", "a", "s"), n("Mul", "z s", "y")]
    with pytest.raises(UnsupportedError, match="branches"):
        door.from_model(build([n("MatMul", "x W", "z"), *quick], {"W": f32(3, 4), "c": np.float32(1.702)}, ["N", 3]))


# ---- writing

WRITABLE = [
    "relu", "leaky_relu", "hard_tanh", "clip", "tanh", "sigmoid", "softplus", "gelu", "gelu_tanh", "silu", "elu", "erf",
    "sin", "cos", "gaussian", "identity", "abs", "square", "polynomial",
]  # fmt: skip
PARAMETERS: dict[str, tuple[Any, ...]] = {
    "leaky_relu": (Fraction(1, 8),), "clip": (-0.5, 6), "elu": (2,), "polynomial": (1, 0, Fraction(-1, 2), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_write_runs_and_reads_back(name: str, dtype: Any) -> None:
    row = activation(name, *PARAMETERS.get(name, ()))
    net = Network.random((3, 5, 4, 2), activation=row, seed=1, dtype=dtype)
    data = door.write(net, dtype)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    back = door.from_model(model)
    if name != "identity":  # affine maps in a row are one layer
        assert back.same_as(net) and back.layers[0].weight.dtype == dtype
        assert back.folded == ()
    if dtype is np.float32 or name not in ("softplus", "elu", "erf", "sin", "cos", "gelu", "gelu_tanh", "abs"):
        agree(net, data, rtol=2e-5)  # not every float64 kernel exists


@pytest.mark.parametrize("head", ["softmax", "log_softmax", "argmax"])
def test_heads_are_written(head: str) -> None:
    net = replace(Network.random((3, 4, 3), seed=2, dtype=np.float32), head=head)
    data = door.write(net)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    assert door.from_model(onnx.load_from_string(data)).same_as(net)
    if head != "log_softmax":
        agree(net, data)


def test_write_rounds_nothing() -> None:
    net = Network.from_arrays(([[Fraction(1, 3)]], [0.0]))
    with pytest.raises(InputError, match="float64"):
        door.write(net)
    with pytest.raises(InputError, match=r"weight\[0, 0\] is no float32"):
        door.write(Network.from_arrays(([[0.1]], [0.0])), np.float32)
    with pytest.raises(UnsupportedError, match="slope 1/3"):
        door.write(Network.random((2, 2, 1), activation=activation("leaky_relu", Fraction(1, 3)), seed=0))
    wide = Network.random((2, 2, 1), activation=activation("leaky_relu", 0.01), seed=0)
    assert door.from_model(door.to_onnx(wide)).same_as(wide)  # a float64 slope goes through PRelu


# ---- drop-ins


def shrunk(net: Network, keep: float = 0.6, seed: int = 0, shift: bool = True) -> Network:
    """Random neurons left out; own parameters stay what they were, except one bias."""
    rng = np.random.default_rng(seed)
    kept = [np.arange(net.widths[0])]
    kept += [np.sort(rng.choice(w, max(1, int(w * keep)), replace=False)) for w in net.widths[1:-1]]
    kept.append(np.arange(net.widths[-1]))
    layers = []
    for k, layer in enumerate(net.layers):
        bias = layer.bias[kept[k + 1]].copy()
        if shift and not bias.any():
            bias[0] = bias[0] + type(bias[0])(1)
        layers.append(
            replace(layer, weight=layer.weight[np.ix_(kept[k + 1], kept[k])], bias=bias, frame=None, folded=())
        )
    return net.with_layers(layers)


def dropped_in(model: Any, new: Network, dtype: Any = np.float32) -> Any:
    """Rewrite, check interface and numbers, return the model."""
    data = model.SerializeToString()
    out = door.rewrite(data, door.from_model(model), new, dtype)
    again = onnx.load_from_string(out)
    onnx.checker.check_model(again)
    for field in ("input", "output"):
        ends = [[v for v in getattr(m.graph, field) if v.name in ("x", "y")] for m in (model, again)]
        assert ends[0] == ends[1]
    assert again.opset_import == model.opset_import and again.producer_name == model.producer_name
    assert again.metadata_props == model.metadata_props
    assert door.from_model(again).same_as(new)
    agree(new, out)
    return again


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_drop_in_of_an_mlp_keeps_names_and_orientation(dtype: Any) -> None:
    model = build(MLP, mlp_tensors(3, 8, 2), ["N", 3])
    model.producer_name = "somebody"
    helper.set_model_props(model, {"key": "value"})
    model.graph.value_info.append(helper.make_tensor_value_info("z", 1, ["N", 8]))
    again = dropped_in(model, shrunk(door.from_model(model), 0.5), dtype)
    kind = KIND[dtype]
    assert {t.name: (tuple(t.dims), t.data_type) for t in again.graph.initializer} == {
        "W": ((3, 4), kind), "b": ((4,), kind), "V": ((2, 4), kind), "c": ((2,), kind)
    }  # fmt: skip
    assert not again.graph.value_info
    casts = ["Cast"] if dtype is np.float64 else []
    assert [node.op_type for node in again.graph.node] == [*casts, "MatMul", "Add", "Relu", "Gemm", *casts]


def hidden(name: str) -> tuple[Any, Network]:
    """Graphs whose hidden widths shrink in different surroundings."""
    gemm = n("Gemm", "h V c", "y", transB=1)
    cases: dict[str, tuple[list[Any], dict[str, np.ndarray], list[Any]]] = {
        "no bias": ([n("MatMul", "x W", "z"), n("Relu", "z", "h"), n("MatMul", "h U", "y")],
                    {"W": f32(3, 6), "U": f32(6, 2)}, ["N", 3]),
        "gemm no bias": ([n("Gemm", "x W", "z", beta=0.5), n("Relu", "z", "h"), gemm],
                         {"W": f32(3, 6), "V": f32(2, 6), "c": f32(2)}, ["N", 3]),
        "weight left": ([n("MatMul", "W x", "a"), n("Add", "a b", "z"), n("Relu", "z", "h"), n("MatMul", "V h", "y")],
                        {"W": f32(6, 3), "b": f32(6, 1), "V": f32(2, 6)}, [3, 1]),
        "weight left, no bias": ([n("MatMul", "W x", "z"), n("Relu", "z", "h"), n("MatMul", "V h", "y")],
                                 {"W": f32(6, 3), "V": f32(2, 6)}, [3, 1]),
        "reshape": ([n("MatMul", "x W", "z"), n("Relu", "z", "r"), n("Reshape", "r s", "h"), gemm],
                    {"W": f32(3, 6), "s": np.array([-1, 6]), "V": f32(2, 6), "c": f32(2)}, ["N", 3]),
        "reshape twice": ([n("MatMul", "x W", "z"), n("Reshape", "z s", "q"), n("Relu", "q", "r"),
                           n("Reshape", "r t", "h"),
                           gemm], {"W": f32(3, 6), "s": np.array([0, 2, 3]), "t": np.array([0, 6]), "V": f32(2, 6),
                                   "c": f32(2)}, ["N", 3]),
        "1x1 convolutions": ([n("Conv", "x K b", "z"), n("Tanh", "z", "r"), n("Conv", "r L", "q"),
                              n("Flatten", "q", "y")],
                             {"K": f32(6, 1, 1, 3), "b": f32(6), "L": f32(2, 6, 1, 1)}, ["N", 1, 1, 3]),
        "unrolled convolution": ([n("Conv", "x K b", "z"), n("Relu", "z", "r"), n("Flatten", "r", "h"), gemm],
                                 {"K": f32(2, 1, 2), "b": f32(2), "V": f32(2, 4), "c": f32(2)}, ["N", 1, 3]),
        "batch normalisation": ([n("Gemm", "x W", "g"), n("BatchNormalization", "g s o m v", "z", epsilon=0.0),
                                 n("Relu", "z", "h"), gemm],
                                {"W": f32(3, 4), "s": np.full(4, 2, np.float32), "o": f32(4),
                                 "m": np.zeros(4, np.float32),
                                 "v": np.full(4, 4, np.float32), "V": f32(2, 4), "c": f32(2)}, ["N", 3]),
        "shared": ([n("MatMul", "x W", "a"), n("Relu", "a", "h"), n("MatMul", "h W", "b"), n("Relu", "b", "k"),
                    n("MatMul", "k W", "y")], {"W": f32(4, 4)}, ["N", 4]),
        "transposed weight": ([n("Transpose", "W", "T"), n("MatMul", "x T", "z"), n("Relu", "z", "h"), gemm],
                              {"W": f32(6, 3), "V": f32(2, 6), "c": f32(2)}, ["N", 3]),
        "slopes": ([n("MatMul", "x W", "z"), n("PRelu", "z p", "h"), gemm],
                   {"W": f32(3, 6), "p": np.full(6, 0.25, np.float32), "V": f32(2, 6), "c": f32(2)}, ["N", 3]),
        "one bias for all": ([n("MatMul", "x W", "a"), n("Add", "a b", "z"), n("Relu", "z", "h"), gemm],
                             {"W": f32(3, 6), "b": f32(1), "V": f32(2, 6), "c": f32(2)}, ["N", 3]),
        "two activations": ([n("MatMul", "x W", "a"), n("Relu", "a", "r"), n("Tanh", "r", "h"), gemm],
                            {"W": f32(3, 6), "V": f32(2, 6), "c": f32(2)}, ["N", 3]),
    }  # fmt: skip
    nodes, tensors, shape = cases[name]
    model = build(nodes, tensors, shape)
    return model, door.from_model(model)


HIDDEN = [
    "no bias", "gemm no bias", "weight left", "weight left, no bias", "reshape", "reshape twice", "1x1 convolutions",
    "unrolled convolution", "batch normalisation", "shared", "transposed weight", "slopes", "one bias for all",
    "two activations",
]  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_widths_change_in_place(name: str) -> None:
    model, net = hidden(name)
    for seed in range(3):
        dropped_in(model, shrunk(net, seed=seed))
    grown = Network.random(
        (net.widths[0], *(2 * w for w in net.widths[1:-1]), net.widths[-1]), seed=1, dtype=np.float32
    )
    rows = [replace(new, activation=old.activation) for new, old in zip(grown.layers, net.layers, strict=True)]
    dropped_in(model, net.with_layers(rows))


def test_a_constant_node_holding_a_reshape_target_is_adapted() -> None:
    target = helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.array([1, 6])))
    nodes = [target, n("MatMul", "x W", "z"), n("Reshape", "z s", "q"), n("Relu", "q", "h"), n("MatMul", "h V", "y")]
    model = build(nodes, {"W": f32(3, 6), "V": f32(6, 2)}, [1, 3])
    dropped_in(model, shrunk(door.from_model(model)))


def test_normalisation_stays_where_the_files_own_weights_fit() -> None:
    tensors = mlp_tensors(3, 6, 2) | {"m": f32(3), "s": np.array([3, 0.1, 7], np.float32), "r": f32(2), "t": f32(2)}
    nodes = [n("Sub", "x m", "d"), n("Div", "d s", "e"), n("MatMul", "e W", "a"), n("Add", "a b", "z"),
             n("Relu", "z", "h"), n("Gemm", "h V c", "p", transB=1), n("Mul", "p r", "q"),
             n("Add", "q t", "y")]  # fmt: skip
    model = build(nodes, tensors, ["N", 3])
    net = door.from_model(model)
    assert net.layers[0].frame is not None and net.layers[1].frame is not None
    again = dropped_in(model, shrunk(net, shift=False))
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in nodes]
    # rounding the folded weights instead needs no normalisation any more
    plain = [replace(x, weight=rationals.rounded(x.weight, np.float32), bias=rationals.rounded(x.bias, np.float32))
             for x in net.layers]  # fmt: skip
    again = dropped_in(model, net.with_layers([replace(x, frame=None) for x in plain]))
    assert [node.op_type for node in again.graph.node] == ["MatMul", "Add", "Relu", "MatMul", "Add"]


def test_rewrite_refuses_what_does_not_fit() -> None:
    model = build(MLP, mlp_tensors(), ["N", 3])
    data, net = model.SerializeToString(), door.from_model(model)
    with pytest.raises(UnsupportedError, match="new file"):
        door.rewrite(data, net, Network.random((3, 4, 4, 2), seed=0), np.float32)
    with pytest.raises(InputError, match="inputs, outputs"):
        door.rewrite(data, net, Network.random((3, 4, 1), seed=0, dtype=np.float32), np.float32)
    with pytest.raises(InputError, match="no float32"):
        door.rewrite(data, net, Network.random((3, 4, 2), seed=0), np.float32)
    other = door.from_model(build(MLP, mlp_tensors(), ["N", 3]))
    with pytest.raises(InputError, match="not the one"):
        door.rewrite(data, other, other, np.float32)


# ---- opaque nodes


def pooled() -> Any:
    nodes = [n("Conv", "x K b", "c"), n("Relu", "c", "r"), n("MaxPool", "r", "p", kernel_shape=[2], strides=[2]),
             n("Flatten", "p", "f"), n("Gemm", "f W d", "g"), n("Relu", "g", "h"), n("MatMul", "h V", "y")]  # fmt: skip
    tensors = {"K": f32(2, 1, 2), "b": f32(2), "W": f32(4, 6), "d": f32(6), "V": f32(6, 2)}
    return build(nodes, tensors, ["N", 1, 5])


def test_chains_between_opaque_nodes(tmp_path: Path) -> None:
    path = tmp_path / "pooled.onnx"
    onnx.save(pooled(), path)
    with pytest.raises(UnsupportedError, match="MaxPool"):
        door.read(path, Options())
    parts = door.read_parts(path)
    assert [net.widths for net in parts.chains] == [(5, 8), (4, 6, 2)]
    assert parts.opaque == (("MaxPool_p", "MaxPool"),)
    x = points(5)
    first, second = parts.chains
    middle = first(x).reshape(-1, 2, 4)
    value = second(middle.reshape(-1, 2, 2, 2).max(3).reshape(-1, 4))
    assert np.allclose(value, run(path.read_bytes(), x), atol=1e-4)
    out = parts.rewrite([first, shrunk(second)])
    again = onnx.load_from_string(out)
    onnx.checker.check_model(again, full_check=True)
    value = shrunk(second)(middle.reshape(-1, 2, 2, 2).max(3).reshape(-1, 4))
    assert np.allclose(value, run(out, x), atol=1e-4)
    assert next(t.dims for t in again.graph.initializer if t.name == "W") == [4, 3]
    with pytest.raises(UnsupportedError, match="dtype"):
        parts.rewrite(parts.chains, np.float64)


def test_opaque_parts_are_named_and_signed(tmp_path: Path) -> None:
    path, other = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(pooled(), path)
    onnx.save(pooled(), other)
    options = Options(allow_opaque=True)
    with pytest.raises(InputError, match="chain1 .*chain2"):
        door.read(path, options)
    net = door.read(path, replace(options, part="chain2"))
    assert net.widths == (4, 6, 2) and net.source is not None and net.source.part == "chain2"
    out = door.rewrite(path.read_bytes(), net, shrunk(net), np.float32)
    (tmp_path / "c.onnx").write_bytes(out)
    assert door.read(tmp_path / "c.onnx", replace(options, part="chain2")).same_as(shrunk(net))
    signatures = {door.read_parts(p).signature for p in (path, other, tmp_path / "c.onnx")}
    assert len(signatures) == 1
    changed = pooled()
    changed.graph.node[2].attribute[1].ints[0] = 1
    onnx.save(changed, other)
    assert door.read_parts(other).signature not in signatures


def test_branches_are_opaque_as_a_whole(tmp_path: Path) -> None:
    nodes = [n("MatMul", "x W", "a"), n("Relu", "a", "r"), n("MatMul", "r V", "b"), n("Add", "b r", "s"),
             n("MatMul", "s U", "c"), n("Relu", "c", "h"), n("MatMul", "h T", "y")]  # fmt: skip
    model = build(nodes, {"W": f32(3, 4), "V": f32(4, 4), "U": f32(4, 5), "T": f32(5, 2)}, ["N", 3])
    path = tmp_path / "residual.onnx"
    onnx.save(model, path)
    with pytest.raises(UnsupportedError, match="branches"):
        door.read(path, Options())
    parts = door.read_parts(path)
    assert [net.widths for net in parts.chains] == [(3, 4), (4, 5, 2)]
    assert [op for _, op in parts.opaque] == ["MatMul", "Add"]


# ---- refusals

Case = tuple[list[Any], dict[str, np.ndarray], list[Any], type[InputError], str]
REFUSED: dict[str, Case] = {
    "max pooling": ([n("MaxPool", "x", "y", kernel_shape=[2])], {}, ["N", 1, 4], UnsupportedError, "MaxPool"),
    "recurrent": ([n("LSTM", "x W R", "y", hidden_size=2)], {"W": f32(1, 8, 3), "R": f32(1, 8, 2)}, [1, 1, 3],
                  UnsupportedError, "LSTM"),
    "unknown domain": ([helper.make_node("Relu", ["x"], ["y"], domain="evil")], {}, ["N", 3], UnsupportedError, "evil"),
    "selu": ([n("MatMul", "x W", "a"), n("Selu", "a", "y")], {"W": f32(3, 2)}, ["N", 3], UnsupportedError, "Selu"),
    "branch": ([n("MatMul", "x W", "a"), n("Add", "a x", "y")], {"W": f32(3, 3)}, ["N", 3],
               UnsupportedError, "branches"),
    "product of values": ([n("MatMul", "x x", "y")], {}, [3, 3], UnsupportedError, "branches"),
    "cycle": ([n("Add", "x b", "a"), n("Relu", "b", "c"), n("Add", "a c", "b"), n("Relu", "b", "y")], {}, ["N", 3],
              FormatError, "cycle"),
    "disconnected": ([n("MatMul", "W V", "y")], {"W": f32(2, 2), "V": f32(2, 2)}, ["N", 3],
                     FormatError, "disconnected"),
    "undefined": ([n("Relu", "nowhere", "y")], {}, ["N", 3], FormatError, "never defined"),
    "defined twice": ([n("Relu", "x", "y"), n("Tanh", "x", "y")], {}, ["N", 3], FormatError, "defined twice"),
    "shape mismatch": ([n("MatMul", "x W", "y")], {"W": f32(4, 2)}, ["N", 3], FormatError, "does not fit"),
    "nan": ([n("MatMul", "x W", "y")], {"W": np.array([[1], [np.nan]], np.float32)}, ["N", 2], FormatError, "nan"),
    "inf bias": ([n("MatMul", "x W", "a"), n("Add", "a b", "y")], {"W": f32(2, 1), "b": np.full(1, np.inf, np.float32)},
                 ["N", 2], FormatError, "inf"),
    "integer weights": ([n("MatMul", "x W", "y")], {"W": np.ones((2, 2), np.int64)}, ["N", 2],
                        UnsupportedError, "int64"),
    "division by zero": ([n("Div", "x s", "y")], {"s": np.zeros(2, np.float32)}, ["N", 2], FormatError, "zero"),
    "divisor": ([n("Div", "s x", "y")], {"s": np.ones(2, np.float32)}, ["N", 2], UnsupportedError, "network's value"),
    "softmax inside": ([n("Softmax", "x", "a"), n("MatMul", "a W", "y")], {"W": f32(2, 2)}, ["N", 2],
                       UnsupportedError, "output head"),
    "softmax axis": ([n("Softmax", "x", "y", axis=1)], {}, ["N", 2, 2], UnsupportedError, "axis"),
    "free axis": ([n("Relu", "x", "y")], {}, ["N", "M"], UnsupportedError, "no fixed size"),
    "negative input": ([n("Relu", "x", "y")], {}, ["N", -3], FormatError, "shape"),
    "huge input": ([n("Relu", "x", "y")], {}, ["N", 2**40], UnsupportedError, "too large"),
    "huge unrolling": ([n("Conv", "x K", "y", pads=[1, 1, 1, 1])], {"K": f32(64, 3, 3, 3)}, ["N", 3, 256, 256],
                       UnsupportedError, "20,000,000"),
    "huge pad": ([n("Pad", "x p", "y")], {"p": np.array([0, 0, 0, 2**40])}, ["N", 3], UnsupportedError, "pads"),
    "huge window": ([n("AveragePool", "x", "y", kernel_shape=[2], pads=[2**40, 0])], {},
                    ["N", 1, 3],
                    UnsupportedError, "beyond"),
    "negative stride": ([n("AveragePool", "x", "y", kernel_shape=[2], strides=[-1])], {}, ["N", 1, 3],
                        FormatError, "positive"),
    "different slopes": ([n("PRelu", "x s", "y")], {"s": f32(3)}, ["N", 3], UnsupportedError, "neuron to neuron"),
    "cast to integers": ([n("Cast", "x", "y", to=7)], {}, ["N", 3], UnsupportedError, "casts"),
    "attribute type": ([n("Flatten", "x", "y", axis="one")], {}, ["N", 3], FormatError, "wrong type"),
    "nan slope": ([n("MatMul", "x W", "a"), n("LeakyRelu", "a", "y", alpha=float("nan"))], {"W": f32(3, 2)}, ["N", 3],
                  UnsupportedError, "nan"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str, tmp_path: Path) -> None:
    nodes, tensors, shape, kind, words = REFUSED[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(build(nodes, tensors, shape).SerializeToString())
    with pytest.raises(kind, match=words) as info:
        door.read(path, Options())
    assert str(info.value).startswith(str(path)) and "\n" not in str(info.value)


def test_several_ends_sparse_tensors_and_subgraphs_are_refused() -> None:
    model = build(MLP, mlp_tensors(), ["N", 3])
    model.graph.output.append(helper.make_tensor_value_info("h", 1, None))
    with pytest.raises(UnsupportedError, match="2 outputs"):
        door.from_model(model)
    two = build([n("Add", "x z", "y")], {}, ["N", 3])
    two.graph.input.append(helper.make_tensor_value_info("z", 1, ["N", 3]))
    with pytest.raises(UnsupportedError, match="2 inputs"):
        door.from_model(two)
    sparse = build(MLP, mlp_tensors(), ["N", 3])
    sparse.graph.sparse_initializer.add()
    with pytest.raises(UnsupportedError, match="sparse"):
        door.from_model(sparse)
    body = helper.make_graph([n("Relu", "x", "t")], "body", [], [helper.make_tensor_value_info("t", 1, None)])
    branch = helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body)
    with pytest.raises(FormatError, match="disconnected"):
        door.from_model(build([branch], {"flag": np.array(True)}, ["N", 3]))
    loop = helper.make_node("Loop", ["", "", "x"], ["y"], body=body)
    with pytest.raises(UnsupportedError, match="Loop"):
        door.from_model(build([loop], {}, ["N", 3]))


def test_declared_sizes_must_be_there() -> None:
    for dims in ([2**31, 2**31], [-1, 2], [3, 6]):
        model = build(MLP, mlp_tensors(), ["N", 3])
        model.graph.initializer[0].dims[:] = dims
        with pytest.raises(FormatError, match="dims|declares"):
            door.from_model(model)


def test_doubling_constants_is_bounded() -> None:
    nodes = [n("Concat", f"c{k} c{k}", f"c{k + 1}", axis=0) for k in range(40)]
    nodes += [n("Reshape", "x c40", "y")]
    with pytest.raises(UnsupportedError, match="constants of more than"):
        door.from_model(build(nodes, {"c0": np.ones(64, np.int64)}, ["N", 3]))


def external(folder: Path, location: str, **rest: str) -> Path:
    model = build(MLP, mlp_tensors(), ["N", 3])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **rest}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_inside_the_folder(tmp_path: Path) -> None:
    weight = f32(3, 5)
    (tmp_path / "w.bin").write_bytes(b"head" + weight.tobytes())
    path = external(tmp_path, "w.bin", offset="4", length="60")
    net = door.read(path, Options())
    assert np.array_equal(net.layers[0].weight, weight.T)
    alone = onnx.load_from_string(door.rewrite(path.read_bytes(), net, shrunk(net), np.float32))
    assert door.from_model(alone).same_as(shrunk(net))  # the drop-in needs no second file
    with pytest.raises(UnsupportedError, match="outside the model"):
        door.from_model(onnx.load(path, load_external_data=False))


@pytest.mark.parametrize(
    ("location", "rest"),
    [("../secret.bin", {}), ("/etc/hostname", {}), ("link.bin", {}), ("missing.bin", {}), (".", {}), ("", {}),
     ("w.bin", {"offset": "60"}), ("w.bin", {"offset": "-4"}), ("w.bin", {"length": "8"}), ("w.bin", {"length": "x"}),
     ("a\0b", {})],
)  # fmt: skip
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str, rest: dict[str, str]) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(60))
    (folder / "w.bin").write_bytes(bytes(60))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(FormatError) as info:
        door.read(external(folder, location, **rest), Options())
    assert "\n" not in str(info.value)


# ---- fuzz

SEEDS = [build(nodes, tensors, shape).SerializeToString() for nodes, tensors, shape in GRAPHS.values()]
SEEDS += [build([n("MatMul", "x W", "z"), *c[0]], {"W": f32(3, 4), **c[1]}, ["N", 3]).SerializeToString()
          for c in ACTIVATIONS.values()]  # fmt: skip


def loads_or_refuses(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    for action in (lambda: door.read(path, Options()), lambda: door.read_parts(path)):
        try:
            action()
        except InputError as exc:
            assert "\n" not in str(exc) and len(str(exc)) < 600


@settings(max_examples=250)
@given(st.data())
def test_damaged_files_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    original = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(original) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "delete", "flip"]))
        if kind == "set":
            original[at] = data.draw(st.integers(0, 255))
        elif kind == "flip":
            original[at] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "cut" and at:
            del original[at:]
        elif kind == "insert":
            original[at:at] = data.draw(st.binary(min_size=1, max_size=6))
        elif len(original) > 1:
            del original[at]
    loads_or_refuses(bytes(original), tmp_path_factory.getbasetemp() / "fuzz.onnx")


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError):
        door.read(path, Options())


# ---- real files


def real_files() -> list[str]:
    from conftest import ROOT

    folder = ROOT.parent / "shared" / "models"
    return [str(p.relative_to(folder)) for p in sorted(folder.rglob("*.onnx"))] or ["none"]


@pytest.mark.parametrize("name", real_files())
def test_real_files(shared: Path, name: str) -> None:
    path = shared / "models" / name
    if not path.is_file():
        pytest.skip("no real ONNX files")
    net, data = door.read(path, Options()), path.read_bytes()
    assert net.source is not None
    stored = onnx.load(path).graph.initializer
    assert net.source.parameter_count == sum(int(np.prod(t.dims)) for t in stored if t.data_type == TensorProto.FLOAT)
    same = door.rewrite(data, net, net, net.dtype)
    plain = not net.folded
    x = points(net.widths[0]).astype(np.float32)
    if name.endswith("controller_5_20.onnx"):  # Gemm on four axes: current runtimes refuse it
        h = x.astype(np.float64) - np.ravel(numpy_helper.to_array(stored[0]))
        arrays = [numpy_helper.to_array(t).astype(np.float64) for t in stored[1:]]
        for weight, bias in zip(arrays[::2], arrays[1::2], strict=True):
            h = h @ weight.T + bias
            h = np.maximum(h, 0) if len(bias) > 1 else h
        assert np.allclose(net(x), h, rtol=1e-9)
        return
    agree(net, data, rtol=5e-6)
    assert np.array_equal(run(same, x), run(data, x))
    if plain:
        new = shrunk(net)
        agree(new, door.rewrite(data, net, new, np.float32), rtol=5e-6)
        agree(net, door.write(net), rtol=5e-6)
