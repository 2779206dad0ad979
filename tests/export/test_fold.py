"""Norms disappear, and where they cannot they stay."""

import dataclasses

import numpy as np
import pytest

from export import fold
from export.pipeline import graph_of
from nets.lineages import LINEAGES
from tests.export.networks import narrow


def ops(graph):
    return {node.op for node in graph.nodes}


@pytest.mark.parametrize("lineage", ["arcface_torch", "insightface_mxnet", "insightface_tf_wide"])
def test_ir_networks_become_convolutions_prelus_additions_and_a_dense_layer(networks, lineage):
    assert ops(graph_of(networks(lineage))) == {
        "Conv",
        "PRelu",
        "Add",
        "Flatten",
        "Gemm",
    }


def test_pooled_shortcuts_keep_their_subsampling_alone(networks):
    graph = graph_of(networks("insightface_pytorch"))
    assert "Affine" not in ops(graph) and "MaxPool" in ops(graph)


def test_grouped_convolution_is_one_node(networks):
    graph = graph_of(networks("arcface_torch_mbf"))
    assert ops(graph) == {"Conv", "PRelu", "Add", "Flatten", "Gemm"}


@pytest.mark.parametrize("lineage, block", [("insightface_tf", "se"), ("cvlface", "se")])
def test_preactivation_norms_stay_behind_squeeze_excitation(networks, lineage, block):
    assert "Affine" in ops(graph_of(networks(lineage, block)))


@pytest.mark.parametrize("gamma, folded", [(0.0, False), (1e-9, False), (-0.5, True)])
def test_a_norm_stays_when_a_gamma_is_zero(monkeypatch, gamma, folded):
    network = narrow(monkeypatch, "arcface_torch")
    name = next(name for name in network.arrays if name.endswith("conv1_bn1/gamma"))
    network.arrays[name][3] = gamma
    affines = [node for node in graph_of(network).nodes if node.op == "Affine"]
    assert len(affines) == (0 if folded else 1)


def test_a_norm_stays_when_the_carried_shift_would_be_large(monkeypatch):
    network = narrow(monkeypatch, "arcface_torch")
    name = next(name for name in network.arrays if name.endswith("conv1_bn1/beta"))
    network.arrays[name][3] = 2 * fold.LARGEST_SHIFT
    assert [node.op for node in graph_of(network).nodes].count("Affine") == 1


def test_bottlenecks_fold_without_a_carried_shift(monkeypatch):
    row = dataclasses.replace(LINEAGES["cvlface"], bottlenecks=(50,))
    monkeypatch.setitem(LINEAGES, "cvlface", row)
    graph = graph_of(narrow(monkeypatch, "cvlface"))
    assert "Affine" not in ops(graph)
    assert not [node for node in graph.nodes if node.op == "Add" and node.weights]


def test_sum_of_products_is_the_dot_product():
    rng = np.random.RandomState(0)
    one, other = rng.standard_normal((70, 37)), rng.standard_normal(37)
    assert np.allclose(fold.sum_of_products(one, other), one.dot(other), rtol=1e-12)
