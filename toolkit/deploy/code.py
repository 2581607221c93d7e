"""A setting as the lines of code that apply it: encode, cut, quantize, index, search.

Knows the notations of FAISS, Qdrant, pgvector and Milvus; runs none of them.
"""

from __future__ import annotations

from collections.abc import Callable

from toolkit.errors import PlanError
from toolkit.experiment.setting import Setting
from toolkit.search.faiss.factory import factory_string, is_binary

TARGETS = ("faiss", "qdrant", "pgvector", "milvus")
_TRANSFORMS = ("OPQ", "RR", "PCA")


def code_for(setting: Setting, *, embedder: str, target: str = "faiss", k: int = 10) -> str:
    """Python that applies a setting to `texts` and `questions`, two lists of strings.

    embedder : the spec it was measured with. target : ``faiss``, ``qdrant``, ``pgvector`` or ``milvus``.
    k : neighbours to ask for.

    Raises PlanError for another target, or one that has no such index or precision.
    """
    targets: dict[str, Callable[[Setting, int], list[str]]] = {
        "faiss": _faiss,
        "qdrant": _qdrant,
        "pgvector": _pgvector,
        "milvus": _milvus,
    }
    if target not in targets:
        raise PlanError(f"target {target!r} is unknown; choose from {', '.join(targets)}")
    return "\n".join([*_encode(setting, embedder), *targets[target](setting, k)])


def _encode(setting: Setting, embedder: str) -> list[str]:
    asked = {"default": "", "none": ', instruction=""'}.get(
        setting.instruction, f", instruction={setting.instruction!r}"
    )
    return [
        "import toolkit",
        "",
        f"embedder = toolkit.open_embedder({embedder!r})",
        f"docs = toolkit.embed(embedder, texts, dim={setting.dim})  # (n, {setting.dim}) float32, normalized",
        f'asked = toolkit.embed(embedder, questions, dim={setting.dim}, role="query"{asked})',
    ]


def _faiss(setting: Setting, k: int) -> list[str]:
    factory = factory_string(setting.index, setting.precision, setting.dim)
    binary = is_binary(factory)
    build, search = dict(setting.build_args), dict(setting.search_args)
    first = max([k, *(stage.candidates for stage in setting.rescore[:1])])
    lines = ["import faiss", "import numpy as np", ""]
    if binary:
        lines += [
            "docs, first = (np.packbits(rows > 0, axis=1) for rows in (docs, asked))",
            f'index = faiss.index_binary_factory({setting.dim}, "{factory}")',
        ]
    else:
        lines += [
            "first = asked",
            f'index = faiss.index_factory({setting.dim}, "{factory}", faiss.METRIC_INNER_PRODUCT)',
        ]
    if "efConstruction" in build:
        lines.append(f"index.hnsw.efConstruction = {build['efConstruction']}")
    if "niter" in build:
        lines.append(f"faiss.extract_index_ivf(index).cp.niter = {build['niter']}")
    lines += ["index.train(docs)", "index.add(docs)"]
    parameters = ""
    if "nprobe" in search:
        graph = (
            f", quantizer_params=faiss.SearchParametersHNSW(efSearch={search['efSearch']})"
            if "efSearch" in search
            else ""
        )
        parameters = f"faiss.SearchParametersIVF(nprobe={search['nprobe']}{graph})"
    elif "efSearch" in search:
        parameters = f"faiss.SearchParametersHNSW(efSearch={search['efSearch']})"
    if parameters and factory.startswith(_TRANSFORMS):
        parameters = f"faiss.SearchParametersPreTransform(index_params={parameters})"
    given = f", params={parameters}" if parameters else ""
    lines.append(f"scores, rows = index.search(first, min({first}, len(texts)){given})")
    for place, (dim, candidates) in enumerate(setting.rescore):
        following = [stage.candidates for stage in setting.rescore[place + 1 :]]
        lines += _rescored(setting, dim, candidates, min([*following[:1]]) if following else k)
    return lines


def _rescored(setting: Setting, dim: int, candidates: int, keep: int) -> list[str]:
    asked = {"default": "", "none": ', instruction=""'}.get(
        setting.instruction, f", instruction={setting.instruction!r}"
    )
    return [
        f"# the {candidates} candidates again, exactly, at {dim} dimensions",
        f"long_docs = toolkit.embed(embedder, texts, dim={dim})",
        f'long_asked = toolkit.embed(embedder, questions, dim={dim}, role="query"{asked})',
        'again = np.einsum("qd,qcd->qc", long_asked, long_docs[rows])',
        f"order = np.argsort(-again, axis=1)[:, :{keep}]",
        "scores, rows = (np.take_along_axis(one, order, axis=1) for one in (again, rows))",
    ]


def _graph_or_scan(setting: Setting, target: str) -> int:
    """Links of the graph, 0 for a scan; raises PlanError for another index."""
    if setting.index == "Flat":
        return 0
    if setting.index.startswith("HNSW"):
        return int(setting.index.removeprefix("HNSW") or 32)
    raise PlanError(
        f"{target} has no equivalent of index {setting.index!r} here; choose HNSW or Flat, or target 'faiss'"
    )


def _one_of(setting: Setting, target: str, names: dict[str, str]) -> str:
    if setting.precision not in names:
        raise PlanError(f"{target} does not store {setting.precision}; it has {', '.join(names)}")
    return names[setting.precision]


def _later(setting: Setting) -> list[str]:
    return [
        f"# then score the best {candidates} again at {dim} dimensions" for dim, candidates in setting.rescore
    ]


def _qdrant(setting: Setting, k: int) -> list[str]:
    links = _graph_or_scan(setting, "qdrant")
    build, search = dict(setting.build_args), dict(setting.search_args)
    kinds = {
        "float32": "",
        "float16": ", datatype=models.Datatype.FLOAT16",
        "int8": ", quantization_config=models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8))",  # noqa: E501
        "binary": ", quantization_config=models.BinaryQuantization(binary=models.BinaryQuantizationConfig())",
    }
    kind = _one_of(setting, "qdrant", kinds)
    graph = (
        f", hnsw_config=models.HnswConfigDiff(m={links}, ef_construct={build.get('efConstruction', 40)})"
        if links
        else ""
    )
    how = f"hnsw_ef={search['efSearch']}" if "efSearch" in search else f"exact={not links}"
    return [
        "from qdrant_client import QdrantClient, models",
        "",
        'client = QdrantClient("http://localhost:6333")',
        f'client.create_collection("docs", vectors_config=models.VectorParams(size={setting.dim}, '
        f"distance=models.Distance.COSINE{graph}{kind}))",
        'client.upload_collection("docs", vectors=docs)',
        f'found = [client.query_points("docs", query=row, limit={k}, search_params=models.SearchParams({how})) for row in asked]',  # noqa: E501
        *_later(setting),
    ]


def _pgvector(setting: Setting, k: int) -> list[str]:
    links = _graph_or_scan(setting, "pgvector")
    build, search = dict(setting.build_args), dict(setting.search_args)
    kinds = {"float32": "vector", "float16": "halfvec", "binary": "bit"}
    kind = _one_of(setting, "pgvector", kinds)
    operators = {
        "vector": ("vector_cosine_ops", "<=>"),
        "halfvec": ("halfvec_cosine_ops", "<=>"),
        "bit": ("bit_hamming_ops", "<~>"),
    }
    ops, operator = operators[kind]
    made = f"CREATE INDEX ON docs USING hnsw (embedding {ops}) WITH (m = {links}, ef_construction = {max(build.get('efConstruction', 40), 2 * links)});"  # noqa: E501
    return [
        'sql = """',
        f"CREATE TABLE docs (id bigint PRIMARY KEY, embedding {kind}({setting.dim}));",
        *([made] if links else []),
        *([f"SET hnsw.ef_search = {max(search['efSearch'], k)};"] if "efSearch" in search else []),
        f"SELECT id FROM docs ORDER BY embedding {operator} %s LIMIT {k};",  # noqa: S608 - a text to read
        '"""',
        *_later(setting),
    ]


def _milvus(setting: Setting, k: int) -> list[str]:
    build, search = dict(setting.build_args), dict(setting.search_args)
    if setting.index.startswith("IVF"):
        lists = int("".join(filter(str.isdigit, setting.index.split("_")[0])))
        names = {"float32": "IVF_FLAT", "int8": "IVF_SQ8", "pq": "IVF_PQ", "rabitq": "IVF_RABITQ"}
        kind, made, asked = (
            _one_of(setting, "milvus", names),
            {"nlist": lists},
            {"nprobe": search.get("nprobe", 1)},
        )
    else:
        links = _graph_or_scan(setting, "milvus")
        names = (
            {"float32": "HNSW", "float16": "HNSW", "int8": "HNSW_SQ", "pq": "HNSW_PQ"}
            if links
            else {"float32": "FLAT", "float16": "FLAT"}
        )
        kind = _one_of(setting, "milvus", names)
        made = {"M": links, "efConstruction": build.get("efConstruction", 40)} if links else {}
        asked = {"ef": search.get("efSearch", 16)} if links else {}
    stored = "FLOAT16_VECTOR" if setting.precision == "float16" else "FLOAT_VECTOR"
    return [
        "from pymilvus import DataType, MilvusClient",
        "",
        'client = MilvusClient("http://localhost:19530")',
        "schema = client.create_schema()",
        'schema.add_field("id", DataType.INT64, is_primary=True)',
        f'schema.add_field("embedding", DataType.{stored}, dim={setting.dim})',
        "indexes = client.prepare_index_params()",
        f'indexes.add_index("embedding", index_type="{kind}", metric_type="COSINE", params={made})',
        'client.create_collection("docs", schema=schema, index_params=indexes)',
        'client.insert("docs", [{"id": i, "embedding": row} for i, row in enumerate(docs)])',
        f'found = client.search("docs", data=list(asked), limit={k}, search_params={{"params": {asked}}})',
        *_later(setting),
    ]
