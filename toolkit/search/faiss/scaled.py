"""The index one would run at another corpus size in place of one that was measured, by published rules.

A setting that suits 5,000 documents is one that nobody would run over 10 million: 64 lists would hold 150,000
vectors each. Knows factory strings and numbers of documents only; FAISS need not be installed.

Rules, and where they are from:

* lists: between 4 and 16 times the square root of the number of vectors, a power of two (FAISS wiki, "Guidelines to
  choose an index"). Within that range the measured multiple of the square root is kept.
* nprobe: the measured multiple of the square root of the number of lists (pgvector's README begins at that root). A
  search then reads a falling share of a growing corpus. Where all lists are read it is a scan: ``Flat``.
* HNSW: efSearch grows with the logarithm of the corpus, as the work for a fixed recall does (Malkov & Yashunin 2018,
  section 4.2); at least 16 links per node from 100,000 vectors and 32 from a million (the wiki's HNSW32).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from toolkit.search.faiss.curve import DEFAULT_PROBES, DEFAULT_WIDTH, lists_of

_FEWEST_LISTS, _MOST_LISTS = 4.0, 16.0  # times the square root of the vectors
_LEAST_LINKS = ((1_000_000, 32), (100_000, 16))
_WIDTH_STEP = 8


def scaled(
    index: str, search_args: Mapping[str, int], *, measured: int, documents: int
) -> tuple[str, dict[str, int]]:
    """(index, search arguments) at `documents` in place of those that were measured at `measured` documents.

    An index without lists or graph stays as it is, and every index does at the measured size or below it.
    """
    arguments = dict(search_args)
    if documents <= measured:
        return index, arguments
    lists = lists_of(index)
    if lists:
        probed = arguments.get("nprobe", DEFAULT_PROBES)
        plain = re.fullmatch(r"(B?)IVF\d+(_HNSW\d+)?(,Flat)?", index)
        if probed >= lists and plain:
            return f"{plain[1]}Flat", {}
        more = _lists(lists, measured, documents)
        arguments["nprobe"] = min(more, max(probed, round(probed * math.sqrt(more / lists))))
        return re.sub(r"IVF\d+", f"IVF{more}", index, count=1), arguments
    links = re.search(r"HNSW(\d*)", index)
    if links:
        width = arguments.get("efSearch", DEFAULT_WIDTH)
        grown = width * math.log(documents) / math.log(max(measured, 2))
        arguments["efSearch"] = _WIDTH_STEP * math.ceil(grown / _WIDTH_STEP)
        least = next((least for size, least in _LEAST_LINKS if documents >= size), 0)
        if links[1] and int(links[1]) < least:
            index = index.replace(links[0], f"HNSW{least}", 1)
    return index, arguments


def _lists(lists: int, measured: int, documents: int) -> int:
    """The power of two nearest to the measured multiple of the square root, within the wiki's range."""
    root = math.sqrt(documents)
    per_root = min(max(lists / math.sqrt(measured), _FEWEST_LISTS), _MOST_LISTS)
    power = 2 ** round(math.log2(per_root * root))
    while power < _FEWEST_LISTS * root:
        power *= 2
    return max(lists, power)


def bytes_added(index: str, grown: str, *, centroid_bytes: float, documents: int) -> float:
    """Bytes that `grown` takes more than `index` does at the same number of documents: centroids, or links."""
    lists, more_lists = lists_of(index), lists_of(grown)
    if more_lists > lists:
        return (more_lists - lists) * centroid_bytes
    before, after = (re.search(r"HNSW(\d+)", name) for name in (index, grown))
    if before and after:
        # The bottom level holds twice the links, four bytes each (Malkov & Yashunin 2018, section 4.2.3).
        return 8.0 * (int(after[1]) - int(before[1])) * documents
    return 0.0
