"""The code that a recommendation gives finds what the sweep found."""

import ast

import numpy as np
import pytest

import toolkit
from toolkit.data.builtin import load_builtin
from toolkit.deploy.code import code_for
from toolkit.errors import PlanError
from toolkit.experiment.grid_search import Searchable
from toolkit.experiment.setting import Setting
from toolkit.search.backend import IndexSpec, get_backend
from toolkit.search.empty_last import CorpusBuilder
from toolkit.vectors import Vectors

pytest.importorskip("faiss", reason="needs faiss")


@pytest.fixture(scope="module")
def texts():
    data = load_builtin()
    docs = [text for text in data.docs if text.strip()][:600]
    return docs, list(data.queries[:40])


@pytest.fixture(scope="module")
def vectors(texts):
    return [Vectors(toolkit.embed("static", some, progress=False)) for some in texts]


@pytest.mark.parametrize(
    ("key", "least"),
    [
        ("128 float32 Flat", 1.0),
        ("64 int8 Flat", 0.99),
        ("128 binary Flat rescore=256@100", 0.99),
        ("128 binary HNSW32 efSearch=128 rescore=256@100", 0.97),
        ("64 float16 HNSW32 build:efConstruction=80 efSearch=64", 0.97),
        ("128 float32 IVF8 nprobe=4", 0.9),
        ("64 binary Flat rescore=128@200>256@50", 0.99),
    ],
)
def test_the_code_finds_what_the_sweep_found(texts, vectors, key, least):
    setting = Setting.parse(key)
    docs, queries = vectors
    builder = CorpusBuilder(get_backend("faiss"), docs, setting.dim)
    built = builder.build(IndexSpec(setting.index, setting.precision, setting.dim, dict(setting.build_args)))
    if setting.rescore:
        funnel = Searchable(docs, {}).funnel(built, setting)
        swept = funnel.search(funnel.prepare(queries.rows), 10)[0].rows
    else:
        swept = built.search(queries.at(setting.dim), 10, dict(setting.search_args)).rows
    scope = {"texts": texts[0], "questions": texts[1]}
    exec(compile(code_for(setting, embedder="static"), "code", "exec"), scope)
    assert scope["rows"].shape == swept.shape
    same = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(swept, scope["rows"], strict=True)])
    assert same >= least


@pytest.mark.parametrize(
    ("target", "key", "said"),
    [
        ("qdrant", "128 int8 HNSW32 build:efConstruction=80 efSearch=64",
         ["=128", "m=32", "ef_construct=80", "hnsw_ef=64", "INT8"]),
        ("pgvector", "128 float16 HNSW16 efSearch=64", ["halfvec(128)", "m = 16", "hnsw.ef_search = 64"]),
        ("milvus", "128 int8 IVF64 nprobe=8", ["IVF_SQ8", "'nlist': 64", "'nprobe': 8", "dim=128"]),
    ],
)  # fmt: skip
def test_other_stores_get_the_same_arguments(target, key, said):
    code = code_for(Setting.parse(key), embedder="static", target=target)
    ast.parse(code)
    assert [one for one in said if one not in code] == []


def test_what_a_store_does_not_have_is_said():
    with pytest.raises(PlanError, match="pgvector does not store int8; it has float32"):
        code_for(Setting.parse("128 int8 HNSW32"), embedder="static", target="pgvector")
    with pytest.raises(PlanError, match="qdrant has no equivalent of index 'IVF64'"):
        code_for(Setting.parse("128 float32 IVF64"), embedder="static", target="qdrant")
    with pytest.raises(PlanError, match="target 'redis' is unknown; choose from faiss"):
        code_for(Setting.parse("128 float32 Flat"), embedder="static", target="redis")
