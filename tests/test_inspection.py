"""Inspection: one screen, consistent data, sentences that follow from the numbers."""

import json

import numpy as np
import pytest

from fiberscope.domains import Box
from fiberscope.errors import InputError
from fiberscope.inspection import inspect
from fiberscope.network import Layer, Network
from fiberscope.theorems import cite


def twin():
    return Network.from_arrays(
        ([[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]], [0.5, 1.0, -1.0]), ([[1.0, 1.0, 3.0]], [0.0]), activation="relu"
    )


def test_counts_and_sentences_agree():
    found = inspect(twin())
    data = found.to_dict()
    row = data["layers"][0]
    assert (row["width"], row["effective"], row["dead"], row["proportional"]) == (3, 1, 1, 1)
    assert data["tiles"][0]["title"] == "3 → 1" and data["tiles"][0]["rigor"] == "EXACT"
    assert found.findings[0].text.startswith("2 of 3 hidden neurons can be removed")
    assert found.redundant
    kinds = {c["kind"]: c["members"] for c in data["classes"]}
    assert kinds == {"merged": [0, 1], "dead": [2]}
    assert data["weights_preview"]["layers"][0] == [[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]]


def test_data_is_json_and_text_fits_a_screen():
    for net in (twin(), Network.random((4, 80, 70, 60, 3), activation="tanh", seed=0), Network.random((2, 1), seed=0)):
        found = inspect(net)
        json.dumps(found.to_dict(), allow_nan=False)
        lines = str(found).splitlines()
        assert len(lines) <= 40
        assert cite(found)


def test_balance_values_and_their_absence():
    found = inspect(twin())
    assert found.balance[0].values == pytest.approx((1 + 4 + 0.25 - 1, 4 + 16 + 1 - 1, 1 - 9))
    assert "no such law" in inspect(Network.random((2, 3, 1), activation="tanh", seed=0)).balance_note


def test_stability_columns_on_a_box():
    net = Network.from_arrays(([[1.0], [1.0], [1.0]], [2.0, -2.0, 0.0]), ([[1.0, 1.0, 1.0]], [0.0]), activation="relu")
    row = inspect(net, Box.parse("[-1,1]", 1)).layers[0]
    assert (row.active, row.inactive, row.unstable) == (1, 1, 1)
    assert inspect(net).layers[0].unstable == 3


def test_folded_layers_get_function_statements_only():
    first, last = twin().layers
    folded = Layer(first.weight, first.bias, first.activation, name="conv1", folded=("Conv conv1 unrolled",))
    found = inspect(Network((folded, last)))
    assert found.redundant and found.sim is None and "conv1" in found.sim_refused
    assert found.balance == () and not next(r for r in found.scope if r.theorem == "equitable-sim").applies
    assert "refused" in found.to_dict()["sim"]


def test_generic_network_is_not_called_redundant():
    found = inspect(Network.random((5, 40, 30, 2), activation="relu", seed=3, dtype=np.float32))
    assert not found.redundant and "no redundant neuron" in found.findings[0].text


def test_scope_names_the_failing_hypothesis():
    wide = inspect(Network.random((2, 9, 3, 1), activation="relu", seed=3))
    row = next(r for r in wide.scope if r.theorem == "relu-fiber-dimension")
    assert not row.applies and "n1 <= n0 (found 9 and 2)" in row.reason


def test_output_head_is_reported():
    net = Network(twin().layers, head="softmax")
    assert inspect(net).skipped[0]["layer"] == "softmax"


def test_huge_weights_still_give_json():
    net = Network.from_arrays(([[1e200], [-3e200]], [0.0, 1]), ([[1e200, 1e200]], [0.0]))
    row = json.loads(inspect(net).to_json())["balance"][0]
    assert row["max"] in (None, "inf")


def test_balance_of_degree_two():
    net = Network.from_arrays(([[3.0]], [1.0]), ([[2.0]], [0.0]), activation="square")
    row = inspect(net).balance[0]
    assert row.values == (9 + 1 - 2 * 4,) and "2 |v_i|^2" in row.to_dict()["law"]


def test_a_constant_function_is_called_constant():
    one = np.array([[1.0, 2.0], [1.0, 2.0]])
    net = Network.from_arrays((one, [0.5, 0.5]), ([[1.0, -1.0]], [3.0]), activation="relu")
    texts = [f.text for f in inspect(net).findings]
    assert any(text.startswith("the function is constant on all real inputs") for text in texts)
    assert not any("constant on" in f.text for f in inspect(twin()).findings)


def test_an_affine_map_is_told_in_words():
    text = str(inspect(Network.random((2, 1), seed=0)))
    assert "no hidden layer: one affine map" in text and "there is no hidden neuron, so none is redundant" in text
    assert "effective" not in text  # no empty table
    flat = str(inspect(Network.from_arrays(([[0.0, 0.0]], [1.0]))))
    assert "the function is constant on all real inputs" in flat and "keeps one neuron" not in flat


@pytest.mark.parametrize("given", [None, "a.onnx", 3])
def test_what_is_no_network_is_refused(given):
    with pytest.raises(InputError, match="no Network; .*fs.load"):
        inspect(given)
