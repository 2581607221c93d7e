"""The commands that are disturbed, each in a process of its own forked from one that has imported everything.

A run takes a fraction of a second, and is killed as any process is. What it left is looked at in a fork too, so that
the first process never starts a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TIMED = (
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "first_stage_share",
    "qps",
    "qps_1_thread",
    "build_s",
    "insert_rows_per_s",
    "peak",
)
NOBODY = 65534
# Shards reach the disk about once a run, not every ten seconds, so that faults meet writes.
_FLUSH_S = 0.01


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (None for a killed one), what it said, and how long it took."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def unclear(self) -> str | None:
        """What is wrong with how it failed: a traceback, or anything but one line; None for a clear end."""
        if self.code is None:
            return None
        lines = [line for line in self.err.replace("\r", "\n").split("\n") if line.strip()]
        if any("Traceback" in line for line in lines):
            return "\n".join(lines[-4:])
        errors = [line for line in lines if line.startswith("error: ")]
        if self.code != 0 and (self.code != 2 or len(errors) != 1 or lines[-1] != errors[0]):
            return f"exit code {self.code}: " + " | ".join(lines[-4:])
        return None


def start(
    work: Callable[[], object],
    at: Path,
    *,
    stdin: str = "",
    unprivileged: bool = False,
    largest_file: int | None = None,
) -> tuple[int, Path]:
    """Fork and begin `work` in the folder `at`; returns the process and where its words go."""
    words = at.parent / f"{at.name}.words-{time.monotonic_ns()}"
    words.mkdir()
    (words / "in").write_text(stdin)
    pid = os.fork()
    if pid:
        return pid, words
    code = 1
    try:
        for number, name, flags in (
            (0, "in", os.O_RDONLY),
            (1, "out", os.O_WRONLY | os.O_CREAT),
            (2, "err", os.O_WRONLY | os.O_CREAT),
        ):
            os.dup2(os.open(words / name, flags, 0o666), number)
        os.chdir(at)
        os.environ["TOOLKIT_CACHE"] = "cache"
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        if unprivileged and not os.getuid():
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        from toolkit.embedding import cache

        cache._FLUSH_SECONDS = _FLUSH_S
        _draw_one_chart()
        work()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:  # noqa: BLE001 - the process ends here, and its traceback is what is looked for
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _draw_one_chart() -> None:
    """One of a report's charts is drawn: drawing takes most of a tiny sweep's time, and all are written alike."""
    from toolkit.report import write

    drawn = write.kinds
    write.kinds = lambda: dict([*drawn().items()][:1])


def end(pid: int, words: Path, begun: float) -> Ended:
    """Wait for a process."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    said = {name: (words / name).read_text(errors="replace") for name in ("out", "err")}
    shutil.rmtree(words)
    if code < 0 and code != -signal.SIGKILL:
        said["err"] += f"\nTraceback: died of signal {-code}"
        code = 1
    return Ended(None if code < 0 else code, said["out"], said["err"], time.monotonic() - begun)


def run(work: Callable[[], object], at: Path, *, kill_after_s: float | None = None, **how: object) -> Ended:
    """Run `work` to its end, or kill it after so many seconds."""
    begun = time.monotonic()
    pid, words = start(work, at, **how)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return end(pid, words, begun)


def toolkit(*arguments: str) -> Callable[[], object]:
    """A command line as `work`."""

    def typed() -> None:
        from toolkit.cli import main

        main([*arguments])

    return typed


def preload(commands: Sequence[Command], at: Path) -> None:
    """Import what the commands import, as a first run of each in a fork tells, so that later forks need not."""
    for command in commands:
        for name in looked_at(lambda command=command: _imported_by(command.work), at)["modules"]:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _imported_by(work: Callable[[], object]) -> dict[str, list[str]]:
    with contextlib.suppress(SystemExit):
        work()
    return {"modules": [name for name, module in sys.modules.items() if getattr(module, "__spec__", None)]}


# --- the data ------------------------------------------------------------------------------------

_WORDS = "red green blue iron oak elm ash pine cat dog hen cow gold lime fir yew sea hill fog rain".split()  # noqa: SIM905
DOCUMENTS, QUERIES, TEXTS = 80, 24, 4_500
PLAN = """
dims = [64]
k = 20
data = "beir:../data/set"
indexes = ["Flat", "HNSW8"]
precisions = ["int8"]
max_unlabelled = 12
{embedder}
[timing]
queries = 4
rounds = 2
threads = [1]
"""


def write_data(folder: Path) -> None:
    """A labelled set with some unlabelled queries, pairs, and texts to embed."""
    documents = [
        {"_id": f"d{i}", "text": f"{_WORDS[i % 20]} {_WORDS[i * 7 % 19]} {_WORDS[i * 3 % 17]} number {i}"}
        for i in range(DOCUMENTS)
    ]
    queries = [
        {"_id": f"q{i}", "text": f"which {_WORDS[i % 20]} {_WORDS[i * 7 % 19]}"} for i in range(QUERIES)
    ]
    (folder / "set" / "qrels").mkdir(parents=True)
    (folder / "set" / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    (folder / "set" / "queries.jsonl").write_text("".join(json.dumps(one) + "\n" for one in queries))
    judged = "".join(f"q{i}\td{i}\t1\n" for i in range(QUERIES // 2))
    (folder / "set" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    (folder / "texts.jsonl").write_text(
        "".join(
            json.dumps({"text": f"{_WORDS[i % 20]} text {i} " + "word " * (i % 30)}) + "\n"
            for i in range(TEXTS)
        )
    )
    (folder / "plan.toml").write_text(PLAN.format(embedder='embedder = "static"'))


# --- what they leave -----------------------------------------------------------------------------


def _sweep(at: Path) -> dict[str, object]:
    import pandas as pd

    out = at / "out"
    measured = pd.read_parquet(out / "measurements.parquet")
    plain = measured[[name for name in measured if not name.startswith(TIMED)]]
    kept = {
        path.relative_to(out).as_posix(): _digest(path.read_bytes())
        for path in sorted(out.rglob("*"))
        if path.name in ("plan.toml", "per_query.parquet", "bounds.parquet")
        or path.name.endswith((".neighbours.npz", ".pairs.npz"))
    }
    builds = {}
    for path in sorted(out.glob("raw/*.build.json")):
        facts = json.loads(path.read_text())
        builds[path.name] = [facts["factory"], facts["index_bytes"]]
    return kept | {"measurements": _digest(plain.to_csv().encode()), "builds": builds}


def quality(at: Path) -> dict[str, float]:
    """nDCG@10 by setting."""
    import pandas as pd

    measured = pd.read_parquet(at / "out" / "measurements.parquet")
    return dict(zip(measured["setting"], measured["ndcg@10"], strict=True))


def _embed(at: Path) -> dict[str, object]:
    import numpy as np

    from toolkit.embedding.cache import VectorCache, text_keys
    from toolkit.embedding.open import open_embedder

    texts = [
        json.loads(line)["text"] for line in (at.parent / "data" / "texts.jsonl").read_text().splitlines()
    ]
    there = VectorCache(at / "out").for_space(open_embedder("static").space)
    rows = np.zeros((len(texts), 256), np.float32)
    missing = there.read(text_keys(texts), rows, np.arange(len(texts)))
    return {"rows": _digest(rows.tobytes()), "missing": len(missing)}


def _mteb(at: Path) -> dict[str, object]:
    found = {}
    for path in sorted((at / "out" / "results").rglob("*.json")):
        stored = json.loads(path.read_text())
        if "scores" in stored:
            found[path.relative_to(at).as_posix()] = stored["scores"]
    return found


def _judge(at: Path) -> dict[str, object]:
    lines = (at / "out" / "judgements" / "judgements.tsv").read_text().splitlines()[1:]
    return {"answers": [line.split("\t")[:5] for line in lines]}


@dataclass(frozen=True)
class Command:
    """A command that keeps what it computes, and how what it left is read.

    anew : what starts it over where it says that it cannot go on.
    """

    name: str
    arguments: tuple[str, ...]
    left: Callable[[Path], dict[str, object]]
    anew: tuple[str, ...] = ()

    @property
    def work(self) -> Callable[[], object]:
        return toolkit(*self.arguments)


SWEEP = Command("sweep", ("sweep", "../data/plan.toml", "--out", "out"), _sweep, ("--overwrite",))
EMBED = Command("embed", ("embed", "../data/texts.jsonl", "--out", "out"), _embed)
MTEB = Command("mteb", ("mteb", "--tasks", "beir:../data/set", "--dims", "64", "--out", "out"), _mteb)
JUDGE = Command("judge", ("judge", "out", "--most", "4", "--name", "nobody"), _judge)


def left_by(command: Command, at: Path) -> dict[str, object]:
    """What a command left, read in a fork; ``{"unreadable": ..}`` where it cannot be."""
    return looked_at(lambda: command.left(at), at)


def looked_at(look: Callable[[], object], at: Path) -> dict[str, object]:
    """What `look` finds, in a fork."""
    answer = at.parent / f"{at.name}.found.json"
    ended = run(lambda: answer.write_text(json.dumps(look())), at)
    if ended.code:
        return {"unreadable": ended.err[-300:]}
    try:
        return json.loads(answer.read_text())
    finally:
        answer.unlink()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()
