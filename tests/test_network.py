"""Networks: evaluation in floats, rationals and intervals, parameters, digests, refusals."""

import copy
import pickle
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.activations import activation
from fiberscope.domains import Box
from fiberscope.errors import FormatError, InputError, ScopeError, UnsupportedError
from fiberscope.network import Frame, Layer, Network, require_network

F = Fraction


def absolute():
    return Network.from_arrays(([[1.0], [-1.0]], [0, 0]), ([[1.0, 1.0]], [0]), activation="relu")


def test_closed_form_and_batches():
    net = absolute()
    assert net([-3.0]).tolist() == [3.0]
    assert net([[-3.0], [2.5]]).tolist() == [[3.0], [2.5]]
    assert net.exact([F(-1, 3)]) == (F(1, 3),)


def test_replay_uses_the_dtype_of_the_weights():
    net = Network.from_arrays((np.array([[1.0]], np.float32), np.array([1e-9], np.float32)), activation="relu")
    assert net.replay([1.0]).dtype == np.float32 and net.replay([1.0])[0] == 1.0
    assert net([1.0])[0] > 1.0


@given(seed=st.integers(0, 10**6), name=st.sampled_from(["relu", "leaky_relu", "hard_tanh", "abs", "square"]))
@settings(max_examples=25)
def test_float_evaluation_agrees_with_rational_evaluation(seed, name):
    net = Network.random((3, 4, 4, 2), activation=name, seed=seed)
    x = np.random.default_rng(seed).standard_normal(3)
    np.testing.assert_allclose(net(x), [float(v) for v in net.exact(x.tolist())], rtol=1e-9, atol=1e-9)


@given(seed=st.integers(0, 10**6), name=st.sampled_from(["relu", "abs", "hard_tanh", "leaky_relu"]))
@settings(max_examples=25)
def test_enclosures_contain_exact_values(seed, name):
    rng = np.random.default_rng(seed)
    net = Network.random((3, 5, 4, 2), activation=name, seed=seed)
    box = Box(-rng.random(3), rng.random(3) * 2)
    lower, upper = net.enclose(box)[-1]
    for x in box.sample(20, rng):
        for value, low, high in zip(net.exact(x.tolist()), lower, upper, strict=True):
            assert F(float(low)) <= value <= F(float(high))


def test_signs_alone_give_exact_enclosures_on_unbounded_inputs():
    net = Network.from_arrays(([[1.0]], [0]), ([[-1.0]], [0]), ([[1.0]], [0]), activation="relu")
    (low1, high1), (low2, high2), _ = net.enclose(Box.everywhere(1))
    assert (low1[0], high1[0]) == (-np.inf, np.inf)
    assert (low2[0], high2[0]) == (-np.inf, 0.0)


def test_exact_refuses_irrational_values():
    net = Network.from_arrays(([[1.0]], [0]), ([[1.0]], [0]), activation="tanh")
    assert net.exact([0]) == (0,)
    with pytest.raises(ScopeError, match="tanh"):
        net.exact([1])


def test_theta_round_trip_and_order():
    net = Network.from_arrays(([[1.0, 2.0]], [3.0]), ([[4.0], [5.0]], [6.0, 7.0]))
    assert net.theta.tolist() == [1, 2, 3, 4, 5, 6, 7]
    moved = net.with_theta(net.theta + 1)
    assert moved.theta.tolist() == [2, 3, 4, 5, 6, 7, 8] and moved.widths == net.widths
    with pytest.raises(InputError, match="7 parameters"):
        net.with_theta([1.0])


def test_rational_networks_stay_rational():
    net = Network.from_arrays(([[F(1, 3)]], [F(1, 7)]), ([[3]], [0]), activation="relu")
    assert net.exact([1]) == (F(10, 7),)
    assert net.theta[0] == F(1, 3)
    assert net([1.0])[0] == pytest.approx(10 / 7)


def test_digest_depends_on_values_and_not_on_dtype():
    one = Network.from_arrays((np.array([[0.5]], np.float32), [0.0]), activation="relu")
    two = Network.from_arrays((np.array([[F(1, 2)]], dtype=object), [-0.0]), activation="relu")
    assert one.digest == two.digest and one.same_as(two)
    assert one.digest != Network.from_arrays(([[0.75]], [0.0])).digest
    deep = ([[1.0]], [0.0]), ([[1.0]], [0.0])
    assert Network.from_arrays(*deep, activation="relu").digest != Network.from_arrays(*deep, activation="tanh").digest


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([([[1.0, np.nan]], [0.0])], r"weight\[0, 1\] is nan"),
        ([([[1.0]], [np.inf])], r"bias\[0\] is inf"),
        ([([[1.0]], [0.0, 1.0])], "do not fit"),
        ([([1.0], [0.0])], r"expected \(n_out, n_in\)"),
        ([([[1.0]], [0.0]), ([[1.0, 2.0]], [0.0])], "layer 1 has 1 outputs but layer 2 takes 2"),
        ([(np.zeros((0, 3)), np.zeros(0))], "every width"),
    ],
)
def test_broken_arrays_are_refused_in_one_line(pairs, words):
    with pytest.raises(FormatError, match=words) as caught:
        Network.from_arrays(*pairs)
    assert "\n" not in str(caught.value)


def test_wrong_use_is_refused():
    with pytest.raises(InputError, match="3 activations for 1 layers"):
        Network.from_arrays(([[1.0]], [0.0]), activation=["relu", "relu", "relu"])
    with pytest.raises(InputError, match="expected"):
        absolute()([1.0, 2.0])
    with pytest.raises(FormatError, match="head"):
        Network(absolute().layers, head="max")
    with pytest.raises(InputError, match="widths"):
        Network.random((3,))


def test_arrays_are_immutable():
    weight = np.ones((1, 1))
    net = Network.from_arrays((weight, [0.0]))
    weight[0, 0] = 5
    assert net.layers[0].weight[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        net.layers[0].weight[0, 0] = 2


def test_folded_layers_refuse_training_statements():
    layer = absolute().layers[0]
    net = Network((Layer(layer.weight, layer.bias, layer.activation, name="c1", folded=("Conv c1 unrolled",)),))
    with pytest.raises(ScopeError, match="Conv c1 unrolled"):
        net.require_own_parameters("an orbit")
    absolute().require_own_parameters("an orbit")


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_frames_give_back_the_files_own_parameters(seed):
    rng = np.random.default_rng(seed)
    frame = Frame.of(
        2,
        3,
        before=(1 / rng.uniform(1, 9, 3), rng.standard_normal(3)),
        after=(rng.uniform(1, 3, 2), rng.standard_normal(2)),
    )
    weight, bias = rng.standard_normal((2, 3)), rng.standard_normal(2)
    back = frame.own(*frame.folded(weight, bias))
    assert np.array_equal(back[0], weight) and np.array_equal(back[1], bias)
    x = rng.standard_normal(3)
    chain = frame.folded(weight, bias)
    inner = weight @ (np.asarray(frame.in_scale) * x + np.asarray(frame.in_shift)) + bias
    expected = np.asarray(frame.out_scale) * inner + np.asarray(frame.out_shift)
    got = np.array(chain[0], float) @ x + np.array(chain[1], float)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


# ---- what users hand over

MATRIX, VECTOR = [[1, 2], [3, 4], [5, 6]], [0, 0, 1]


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "no layers; give one pair"),
        ([[(MATRIX, VECTOR), ([[1, 1, 1]], [0])]], r"a list of pairs; .* from_arrays\(\*pairs\)"),
        ([np.ones((3, 2)), np.ones((1, 3))], r"layer 1: expected a pair \(W1, b1\).* got one array of shape \(3, 2\)"),
        ([np.ones((2, 2))], "got one array of shape"),
        ([(MATRIX, VECTOR, "relu")], "got 3 of them"),
        ([(MATRIX,)], "got 1 of them"),
        ([None], "got None"),
        (["abc"], "got 'abc'"),
        ([(MATRIX, VECTOR), (None, None)], "W2: entry None"),
        ([([[1, 2], [3]], None)], "W1: rows of different lengths"),
        ([(MATRIX, [[0]])], r"bias has shape \(1, 1\); expected \(n_out,\)"),
        ([(np.ones((2, 3)), np.ones(3))], "give the transposed weight"),
        ([([[np.inf, F(1, 3)]], [0])], "W1: NaN or an infinity"),
    ],
)
def test_layers_that_are_none_are_refused_by_name(pairs, words):
    with pytest.raises(InputError, match=words) as caught:
        Network.from_arrays(*pairs)
    assert "\n" not in str(caught.value)


def test_activations_are_given_as_to_load():
    pairs = (MATRIX, VECTOR), ([[1, 1, 1]], None)
    for row in ("tanh", ["tanh"], ("tanh", "identity"), "tanh,identity", {"name": "tanh"}, activation("tanh")):
        assert Network.from_arrays(*pairs, activation=row).architecture == "2-3-1 tanh"
    assert Network.from_arrays(*pairs, activation="leaky_relu(1/10)").layers[0].activation.parameters == (F(1, 10),)
    assert Network.random((2, 3, 4, 1), activation=["relu", "tanh"], seed=0).architecture == "2-3-4-1 relu/tanh"
    for wrong in (None, 3, np.tanh):
        with pytest.raises(UnsupportedError, match="give a name: abs, "):
            Network.from_arrays(*pairs, activation=wrong)


@pytest.mark.parametrize("widths", [(2.5, 3), "231", 5, None, (), (0, 1), ("a", "b"), (2, None), (True, True), {2: 3}])
def test_widths_are_whole_numbers(widths):
    assert Network.random(np.array([2, 3, 1]), seed=0) == Network.random([2, 3, 1], seed=0)
    with pytest.raises(InputError, match="^widths .*; give at least two whole numbers >= 1, inputs first"):
        Network.random(widths)


@pytest.mark.parametrize("option", [{"seed": -1}, {"seed": "a"}, {"dtype": int}, {"dtype": "float12"}])
def test_random_refuses_other_options(option):
    with pytest.raises(InputError, match=next(iter(option))):
        Network.random((2, 3, 1), **option)


def test_layers_are_looked_up_and_checked():
    assert Layer([[1, 2]], [0], "relu").activation is not None
    assert Layer([[1, 2]], [0], "relu").activation == activation("relu")
    with pytest.raises(UnsupportedError, match="did you mean 'relu'"):
        Layer([[1, 2]], [0], "rleu")
    with pytest.raises(FormatError, match="layer: weight: rows of different lengths"):
        Layer([[1, 2], [1]], [0], "relu")
    for layers in (None, [1, 2], np.ones((2, 2)), Layer([[1]], [0], "relu")):
        with pytest.raises(InputError, match=r"give a sequence of Layer, or use Network.from_arrays"):
            Network(layers)
    assert repr(Layer([[1, 2]], [0], "relu", name="fc1")) == "Layer(2 -> 1 relu, fc1)"


@pytest.mark.parametrize("call", ["__call__", "replay", "preactivations", "exact", "enclose", "domain"])
@pytest.mark.parametrize("point", ["a", [None], {1: 2}, [1j], [[1], [1, 2]]])
def test_points_that_are_none_are_refused(call, point):
    with pytest.raises(InputError):
        getattr(absolute(), call)(point)


def test_an_exact_point_is_one_finite_point():
    assert absolute().exact(np.float32([0.1])) == (F(float(np.float32(0.1))),)
    for point in ([np.nan], [np.inf], [[1.0]], 1.0, [1.0, 2.0]):
        with pytest.raises(InputError, match="input"):
            absolute().exact(point)


def test_what_overflows_is_said_by_the_values():
    net = Network.from_arrays(([[1e300], [-1e300]], None), ([[1e300, 1e300]], None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert net([1e300]).tolist() == [np.inf] and np.isnan(net([np.nan])).all()
        assert net.preactivations([1e300])[0][0, 0] == np.inf
        assert net.replay([1e300])[0] == np.inf


def test_domains_are_named():
    net = Network.random((2, 1), seed=0)
    low, high = net.enclose("[0,1]")[0]
    assert np.array_equal(low, net.enclose(Box([0, 0], [1, 1]))[0][0]) and (low <= high).all()
    assert net.enclose(None)[0][1].tolist() == [np.inf]
    with pytest.raises(InputError, match="--domain file: there is no file"):
        net.domain("file")
    with pytest.raises(InputError, match=r"domain \[0, 1\] is no text; give Box\(lower, upper\)"):
        net.domain([0, 1])


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_are_equal_and_frozen(again):
    net = Network.from_arrays(([[F(1, 3)], [2]], None), ([[1, 1]], [0.5]), head="softmax")
    assert net.digest and net.layers[0].weight64.shape == (2, 1)  # computed and kept before the copy
    twin = again(net)
    assert twin == net and hash(twin) == hash(net) and twin.head == "softmax"
    assert not any(array.flags.writeable for layer in twin.layers for array in (layer.weight, layer.bias))


def test_equality_is_that_of_the_numbers():
    net = Network.from_arrays(([[1, 2]], [0]), activation="relu")
    assert net == Network.from_arrays((np.float32([[1, 2]]), None)) and net != absolute() and net != "net"
    assert net != Network.from_arrays(([[1, 2]], [0]), head="softmax")
    with pytest.raises(InputError, match="the other network is 'a.onnx', no Network; read it first: fs.load"):
        net.same_as("a.onnx")


@pytest.mark.parametrize("given", [None, 3, "a.onnx", Path("a.onnx"), [1], Network])
def test_what_is_no_network_is_told_how_to_become_one(given):
    require_network(absolute())
    with pytest.raises(InputError, match=r"fs\.load\("):
        require_network(given)


def test_integers_and_floats_of_a_point_are_what_they_are():
    net = Network.from_arrays(([[1.0, 1.0]], [0.0]))
    assert net.exact([2**53 + 1, 0.5]) == (2**53 + 1 + Fraction(1, 2),)
    assert Network.from_arrays(([[2**53 + 1, 0.5]], [0])).exact([1, 0]) == (2**53 + 1,)


@pytest.mark.parametrize("widths", [[2, [3], 1], [[2, 3], [1, 1]], np.array([[2, 1]]), "21", 3, None, [2.0, 1]])
def test_widths_that_are_none_are_refused_in_one_line(widths):
    with pytest.raises(InputError, match="^widths .*give at least two whole numbers"):
        Network.random(widths)


def test_activations_may_come_as_any_list_of_names():
    pairs = ([[1.0]], [0.0]), ([[1.0]], [0.0])
    wanted = Network.from_arrays(*pairs, activation=["tanh", "relu"])
    for several in (np.array(["tanh", "relu"]), (name for name in ("tanh", "relu")), "tanh,relu"):
        assert Network.from_arrays(*pairs, activation=several) == wanted
