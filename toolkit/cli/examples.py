"""Examples under a command's options: what is typed most, each line ready to be copied."""

from __future__ import annotations

EXAMPLES = {
    "sweep": (
        "toolkit sweep --out results/first                      # the embedded model on the built-in set",
        "toolkit sweep --embedder local:Qwen/Qwen3-Embedding-0.6B --data beir:my/folder --out results/mine",
        "toolkit sweep --data csv:judged.csv --dims 64,128,256 --precision float32,int8 --index HNSW32",
        'toolkit sweep --instruction default --instruction none --instruction "Find code" --out results/code',
        "toolkit sweep plan.toml --out results/grid",
        "toolkit sweep --embedder static --embedder local:my/model --data builtin --data csv:my.csv --out results/two",
    ),
    "recommend": (
        "toolkit recommend results/first --keep 0.95",
        "toolkit recommend results/grid --max-p95-ms 5 --max-bytes-per-vector 256 --corpus-size 10M",
    ),
    "scale_test": (
        "toolkit scale-test results/grid --documents 1M",
        "toolkit scale-test results/grid --documents 250k --distractors other.txt",
    ),
    "plan": (
        "toolkit plan --documents 1B --tokens 200 --embedder local:Qwen/Qwen3-Embedding-4B --dim 512 --gpus 8",
        "toolkit plan --documents 10M --tokens 120 --embedder static --rates rates.json --price-file prices.toml",
    ),
    "report": ("toolkit report results/first",),
    "judge": (
        "toolkit judge results/mine --most 50",
        "toolkit judge results/mine --export judged.tsv",
    ),
    "embed": (
        "toolkit embed texts.txt --dim 256 --out vectors.npy",
        "toolkit embed queries.jsonl --role query --embedder local:Qwen/Qwen3-Embedding-0.6B --out queries.npy",
    ),
    "serve": (
        "toolkit serve --embedder static --port 30000",
        "toolkit serve --embedder local:Qwen/Qwen3-Embedding-4B --api-key-env EMBED_KEYS --host 0.0.0.0",
    ),
    "mteb": (
        "toolkit mteb --tasks SciFact,STSBenchmark --dims 64,128,256 --out results/mteb",
        "toolkit mteb --tasks beir:my/folder --instruction task --instruction none --out results/mteb",
    ),
    "claims": (
        "toolkit claims",
        "toolkit claims --embedder local:Qwen/Qwen3-Embedding-4B --data my/sets --out results/claims",
        "toolkit claims --only p99-at-128,batch-spread --serve",
        "toolkit claims --only p99-at-128 --server http://localhost:30000/v1#my-model",
    ),
    "doctor": (
        "toolkit doctor",
        "toolkit doctor --no-hub --json > doctor.json",
    ),
    "check": (
        "toolkit check http://127.0.0.1:30000/v1 --model my-model",
        "toolkit check http://127.0.0.1:8080/embed --model any --reference local:my/model --data builtin",
    ),
    "cache ls": ("toolkit cache ls",),
    "cache clear": (
        "toolkit cache clear 3f2a91c0",
        "toolkit cache clear wordllama-l2-supercat-256",
        "toolkit cache clear --all --yes",
    ),
    "bench encode": (
        "toolkit bench encode --embedder local:Qwen/Qwen3-Embedding-0.6B --workload passages",
        "toolkit bench encode --workload queries --dims auto",
        "toolkit bench encode --embedder static --json rates.json   # for toolkit plan --rates",
    ),
    "bench serve": (
        "toolkit bench serve http://127.0.0.1:30000/v1 --concurrency 1,8,32,128 --workload passages",
        "toolkit bench serve http://127.0.0.1:30000/v1#my-model --rate 50,200 --dims 32,2560 --json speed.json",
        "toolkit bench serve http://127.0.0.1:30000/v1 --concurrency 8 --texts-per-request 1,10,100,1000",
    ),
}


def examples(*lines: str) -> str:
    """The text for a command's `epilog`; click leaves a paragraph that begins with its mark as it is."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
