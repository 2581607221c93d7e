import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from toolkit.errors import DimensionError, VectorError
from toolkit.vectors import Vectors, normalize, truncate

MATRICES = arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.integers(1, 24)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@given(rows=MATRICES, data=st.data())
def test_truncate_is_prefix_then_unit_norm(rows, data):
    dim = data.draw(st.integers(1, rows.shape[1]))
    cut = truncate(rows, dim)
    assert cut.shape == (len(rows), dim)
    assert cut.dtype == np.float32
    for row, unit in zip(rows[:, :dim].astype(np.float64), cut, strict=True):
        norm = np.linalg.norm(row)
        if norm == 0:
            assert not unit.any()
        else:
            np.testing.assert_allclose(unit, row / norm, rtol=1e-5, atol=1e-7)


@given(rows=MATRICES, data=st.data())
def test_truncating_twice_is_truncating_once(rows, data):
    longer = data.draw(st.integers(1, rows.shape[1]))
    shorter = data.draw(st.integers(1, longer))
    whole, prefix = (np.linalg.norm(rows[:, :dim].astype(np.float64), axis=1) for dim in (longer, shorter))
    # A prefix that is smaller yet is no longer a float32 once its row has norm 1.
    held = (prefix == 0) | (prefix > 1e-30 * whole)
    twice, once = truncate(truncate(rows, longer), shorter), truncate(rows, shorter)
    np.testing.assert_allclose(twice[held], once[held], atol=1e-6)


def test_input_is_left_alone():
    rows = np.array([[3.0, 4.0]], dtype=np.float32)
    truncate(rows, 2)
    assert rows.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_names_the_row(bad):
    rows = np.ones((20_000, 3), dtype=np.float32)
    rows[17_000, 1] = bad
    with pytest.raises(VectorError, match="row 17000 holds NaN or infinity"):
        normalize(rows)


def test_not_finite_beyond_the_cut_does_not_matter():
    assert truncate(np.array([[1.0, np.nan]], dtype=np.float32), 1).tolist() == [[1.0]]


@pytest.mark.parametrize("rows", [np.ones(3), np.ones((2, 3), dtype=int), np.ones((1, 2, 3))])
def test_what_is_no_matrix_of_floats_is_refused(rows):
    with pytest.raises(VectorError):
        normalize(rows)


@pytest.mark.parametrize("dim", [0, 4])
def test_dimension_outside_the_vectors(dim):
    with pytest.raises(DimensionError, match=r"choose 1\.\.3"):
        truncate(np.ones((1, 3), dtype=np.float32), dim)


def test_blocks_of_a_mapped_file_are_the_whole(tmp_path):
    rows = normalize(np.random.default_rng(0).normal(size=(1_000, 16)).astype(np.float32))
    np.save(tmp_path / "v.npy", rows)
    mapped = Vectors.open(tmp_path / "v.npy")
    assert isinstance(mapped.rows, np.memmap)
    blocks = list(mapped.blocks(8, block_rows=300))
    assert [start for start, _ in blocks] == [0, 300, 600, 900]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), truncate(rows, 8))


def test_take_keeps_the_order_asked_for():
    rows = np.eye(4, dtype=np.float32)
    np.testing.assert_array_equal(Vectors(rows).take([3, 1, 3]).rows, rows[[3, 1, 3]])
