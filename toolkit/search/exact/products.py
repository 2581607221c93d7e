"""Inner products of one more segment, added in place to those there are, by the BLAS call made for that.

numpy can only write products into an array of their own, which then has to be added: one more pass over
memory per dimension. BLAS adds as it multiplies (beta = 1), and SciPy hands out the address of its BLAS
to callers like this one (``scipy.linalg.cython_blas``). Where that has another signature, numpy does it.
Knows nothing of norms.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np

# What SciPy writes beside the address: a BLAS of 32-bit integers and single precision.
_SIGNATURE = (
    "void (char *, char *, int *, int *, int *, __pyx_t_5scipy_6linalg_11cython_blas_s *, "
    "__pyx_t_5scipy_6linalg_11cython_blas_s *, int *, __pyx_t_5scipy_6linalg_11cython_blas_s *, int *, "
    "__pyx_t_5scipy_6linalg_11cython_blas_s *, __pyx_t_5scipy_6linalg_11cython_blas_s *, int *)"
)
_ARGUMENTS = 13


class SegmentProducts:
    """Adds ``queries[:, a:b] @ block[:, a:b].T`` to products, segment by segment.

    queries : (q, full_dim) float32 of one chunk, C order.
    """

    def __init__(self, queries: np.ndarray) -> None:
        self._queries = queries
        self._sgemm = _sgemm()

    def add(self, block: np.ndarray, segment: slice, products: np.ndarray, *, scratch: np.ndarray) -> None:
        """Add a segment's products to (q, rows) `products`, or write them for a segment that starts at 0.

        block : (rows, full_dim) float32 in C order.
        scratch : an array like `products`, whose content is lost.
        """
        fresh = segment.start == 0
        if self._sgemm is None:
            some, rows = self._queries[:, segment], block[:, segment].T
            np.matmul(some, rows, out=products if fresh else scratch)
            if not fresh:
                np.add(products, scratch, out=products)
            return
        # Fortran reads C rows as columns: products.T (rows, q) = block (rows, d) @ queries.T (d, q).
        byref, number = ctypes.byref, ctypes.c_int
        queries, skipped = self._queries, 4 * segment.start
        self._sgemm(
            b"T",
            b"N",
            byref(number(len(block))),
            byref(number(len(queries))),
            byref(number(segment.stop - segment.start)),
            byref(_ONE),
            block.ctypes.data + skipped,
            byref(number(block.strides[0] // 4)),
            queries.ctypes.data + skipped,
            byref(number(queries.strides[0] // 4)),
            byref(_ZERO if fresh else _ONE),
            products.ctypes.data,
            byref(number(products.strides[0] // 4)),
        )


_ONE, _ZERO = ctypes.c_float(1.0), ctypes.c_float(0.0)


@cache
def _sgemm() -> Callable[..., None] | None:
    """SciPy's sgemm as a function that lets go of the interpreter's lock; None if it is not the one known."""
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__.get("sgemm")
    if capsule is None:
        return None
    asks_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)
    asks_address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    name_of = asks_name(("PyCapsule_GetName", ctypes.pythonapi))
    address_of = asks_address(("PyCapsule_GetPointer", ctypes.pythonapi))
    name = name_of(capsule)
    if name.decode() != _SIGNATURE:
        return None
    pointers = [ctypes.c_char_p, ctypes.c_char_p] + [ctypes.c_void_p] * (_ARGUMENTS - 2)
    return ctypes.CFUNCTYPE(None, *pointers)(address_of(capsule, name))
