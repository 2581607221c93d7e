"""What only Hopper GPUs run. `wing` is the door: it says what is offered on a device, and why something is not.

    wing.py           what a device gets: operations, passes over few tokens, or the reason against
    operations.py     the layer's operations, each the best way that Hopper has
    attention.py      attention of long texts, in Gluon
    gluon.py          whether the Triton installed is one that attention.py is written for
    gated_product.py  the MLP's gated product in one kernel
    small_batch.py    a whole pass over few tokens as one kernel (small_batch.cu, ptx.cuh)
    cuda.py           CUDA C++ compiled when needed, and launched on torch's streams

Nothing outside imports more than `wing`.
"""
