"""Networks: evaluation in floats, rationals and intervals, parameters, digests, refusals."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiberscope.domains import Box
from fiberscope.errors import FormatError, InputError, ScopeError
from fiberscope.network import Frame, Layer, Network

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
        ([([1.0], [0.0])], "expected 2-D"),
        ([([[1.0]], [0.0]), ([[1.0, 2.0]], [0.0])], "has 1 outputs but layer 1"),
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
