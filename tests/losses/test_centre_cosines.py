"""Cosines in blocks against NumPy; the gradient of chosen rows; loops over blocks."""

import numpy as np
import pytest

from losses import centre_cosines as module
from losses.centre_cosines import RowGradient, centre_cosines, for_blocks, in_blocks, unit_rows
from runtime.tf1 import tf

EMBEDDINGS_ND = np.random.RandomState(0).normal(0, 3, (4, 5)).astype(np.float32)
CENTRES_KD = np.random.RandomState(1).normal(0, 1, (7, 5)).astype(np.float32)


def units(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_unit_rows_have_length_one_and_a_row_of_zeros_stays_one():
    rows_ND = EMBEDDINGS_ND.copy()
    rows_ND[2] = 0.0
    with tf.Graph().as_default(), tf.Session() as session:
        given_ND = tf.constant(rows_ND)
        units_ND, lengths_N = unit_rows(given_ND)
        gradient_ND = tf.gradients(units_ND * tf.constant(EMBEDDINGS_ND[::-1]), given_ND)[0]
        found_ND, found_N, slope_ND = session.run([units_ND, lengths_N, gradient_ND])
    np.testing.assert_allclose(found_N, np.linalg.norm(rows_ND, axis=1), rtol=1e-5)
    kept = [0, 1, 3]
    np.testing.assert_allclose(found_ND[kept], units(rows_ND[kept]), rtol=1e-5)
    assert not found_ND[2].any() and not slope_ND[2].any() and slope_ND[kept].any()


@pytest.mark.parametrize("rows", [None, [6, 0, 3]])
@pytest.mark.parametrize("block", [2, 4096])
def test_cosines_are_those_of_the_chosen_rows_whatever_the_block(monkeypatch, rows, block):
    monkeypatch.setattr(module, "BLOCK_ROWS", block)
    with tf.Graph().as_default(), tf.Session() as session:
        centres = tf.get_variable("centres", initializer=CENTRES_KD)
        rows_R = None if rows is None else tf.constant(rows, tf.int64)
        units_ND = unit_rows(tf.constant(EMBEDDINGS_ND))[0]
        cosine_NR = centre_cosines(units_ND, centres, rows_R)
        session.run(tf.global_variables_initializer())
        found_NR = session.run(cosine_NR)
    chosen = CENTRES_KD if rows is None else CENTRES_KD[rows]
    np.testing.assert_allclose(found_NR, units(EMBEDDINGS_ND) @ units(chosen).T, atol=1e-5)


def test_the_gradient_of_the_centres_is_of_the_chosen_rows_alone():
    rows, weights_NR = [6, 0, 3], np.random.RandomState(2).normal(0, 1, (4, 3)).astype("f")
    with tf.Graph().as_default(), tf.Session() as session:
        centres = tf.get_variable("centres", initializer=CENTRES_KD)
        dense = tf.get_variable("dense", initializer=CENTRES_KD)
        units_ND = tf.constant(units(EMBEDDINGS_ND).astype("f"))
        cosine_NR = centre_cosines(units_ND, centres, tf.constant(rows, tf.int64))
        gradient = tf.gradients(cosine_NR * weights_NR, centres)[0]
        assert isinstance(gradient, RowGradient)
        plain_RD = tf.nn.l2_normalize(tf.gather(dense, rows), axis=1)
        plain_NR = tf.matmul(units_ND, plain_RD, transpose_b=True)
        expected = tf.gradients(plain_NR * weights_NR, dense)[0]
        session.run(tf.global_variables_initializer())
        found, block_BD = session.run(
            [
                tf.convert_to_tensor(gradient),
                gradient.block(1, tf.gather(centres, rows[1:])),
            ]
        )
        expected = session.run(tf.convert_to_tensor(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(block_BD, expected[rows[1:]], atol=1e-5)


def test_blocks_are_visited_in_order_and_the_last_is_shorter():
    with tf.Graph().as_default(), tf.Session() as session:
        seen = tf.TensorArray(tf.int32, 3, element_shape=[2])

        def body(start, stop, index, seen):
            return (seen.write(index, tf.stack([start, stop])),)

        found = session.run(in_blocks(body, 8, (seen,), block=3)[0].stack())
    assert found.tolist() == [[0, 3], [3, 6], [6, 8]]


def test_for_blocks_runs_each_operation_once():
    with tf.Graph().as_default(), tf.Session() as session:
        total = tf.get_variable("total", [], tf.int32, tf.zeros_initializer())
        done = for_blocks(lambda start, stop, _: [total.assign_add(stop - start).op], 8, block=3)
        session.run(tf.global_variables_initializer())
        session.run(done)
        assert session.run(total) == 8
