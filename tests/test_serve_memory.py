"""What a server holds does not grow with what was asked of it. Bounds on resident memory, of real processes."""

import ctypes
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[1]
_MIB = 2**20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory as Linux counts it")


@pytest.fixture(scope="module")
def servers():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import _servers
    finally:
        sys.path.pop(0)
    return _servers


def test_texts_that_never_come_again_leave_nothing(servers):
    """In the tokenizers' caches of words, of the engine and of the counter, they took 3.6 MiB; 0.6 is left."""
    with servers.started(servers.own("static")) as (url, pid), httpx.Client(base_url=url, timeout=60) as http:

        def ask(number):
            texts = [f"text {number} {i} of nobody else " * 8 for i in range(50)]
            body = {"model": "wordllama-l2-supercat-256", "input": texts, "dimensions": 64}
            assert http.post("/embeddings", json=body).status_code == 200

        def resident():
            return psutil.Process(pid).memory_info().rss

        for number in range(10):
            ask(number)
        before = resident()
        for number in range(10, 250):
            ask(number)
        assert resident() - before < 2 * _MIB


def heap_of(code):
    """What a program prints, in a process whose C library's heap is its own."""
    head = "import ctypes, threading, time\nfrom toolkit.serve.memory import lean_heap\nheap = ctypes.CDLL(None)\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="malloc_trim and mallopt are glibc's"
)


@needs_glibc
def test_free_pages_between_blocks_in_use_are_given_back():
    told = heap_of("""
heap.malloc.restype = ctypes.c_void_p
heap.free.argtypes = [ctypes.c_void_p]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def blocks():
    return [heap.malloc(4_000) for _ in range(30_000)]
taken = blocks()
for block in taken:
    ctypes.memset(block, 1, 4_000)
for i, block in enumerate(taken):
    if i % 1_000:
        heap.free(block)
peak = resident()
with lean_heap(trim_every_s=0.05):
    until = time.monotonic() + 20
    while resident() > peak - 80 * 2**20 and time.monotonic() < until:
        time.sleep(0.05)
print(peak - resident())
""")
    assert int(told[0]) > 80 * _MIB


@needs_glibc
def test_threads_share_two_arenas(tmp_path):
    code = f"""
heap.fopen.restype = ctypes.c_void_p
heap.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
heap.fclose.argtypes = [ctypes.c_void_p]
together = threading.Barrier(8)
def work():
    together.wait()
    heap.malloc(1_000)
    together.wait()
with lean_heap():
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    file = heap.fopen({str(tmp_path / "info")!r}.encode(), b"w")
    heap.malloc_info(0, file)
    heap.fclose(file)
print(open({str(tmp_path / "info")!r}).read().count("<heap "))
"""
    assert int(heap_of(code)[0]) <= 2
