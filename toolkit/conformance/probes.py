"""The table of probes: what each asks, what its finding means for a user, and the setting that mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from toolkit.conformance import protocol_probes as protocol
from toolkit.conformance import vector_probes as vectors
from toolkit.conformance.subject import Subject, Verdict


@dataclass(frozen=True)
class Probe:
    """One question to a server.

    sends : what. means : what a finding means for a user. mends : the server's setting, or what to do instead.
    upstream : issues where others met it. handling : what a client that trusts the server does, whose cost in nDCG
        is measured with data (`cost.handling`); None where a finding costs no quality by itself.
    risky : may take the server down; asked last, and only if wanted.
    """

    name: str
    sends: str
    means: str
    mends: str
    run: Callable[[Subject], Verdict]
    upstream: str = ""
    handling: str | None = None
    risky: bool = False


PROBES = (
    Probe(
        "count",
        "8 texts",
        "texts without a vector, or vectors that nobody can place",
        "send one text per request, or update the server",
        vectors.count,
    ),
    Probe(
        "order",
        "8 texts together and each alone",
        "documents get each other's vectors: search finds the wrong ones",
        "sort by index; if the indexes are wrong, send one text per request",
        vectors.order,
    ),
    Probe(
        "norm",
        "8 texts",
        "an index with inner product ranks long vectors first",
        "normalize in the client, or switch on the server's normalization (TEI: normalize, vLLM: pooler config)",
        vectors.norm,
        handling="not normalized",
    ),
    Probe(
        "dimensions",
        "a text at three shorter dimensions",
        "vectors of another length than the index expects, and no memory saved",
        "vLLM: --hf-overrides '{\"is_matryoshka\": true}'; SGLang: --json-model-override-args with the same; else cut "
        "and normalize in the client",
        protocol.dimensions,
        upstream="infinity #538, vllm #23435",
    ),
    Probe(
        "dimension_norm",
        "a text at half the dimension",
        "inner products of cut vectors are no cosines: ranking and thresholds shift",
        "normalize after cutting, in the client",
        protocol.dimension_norm,
        handling="cut, not normalized",
    ),
    Probe(
        "dimension_prefix",
        "a text at half the dimension and in full",
        "cut vectors are not those of the model's Matryoshka training",
        "ask for the full vector and cut in the client",
        protocol.dimension_prefix,
        handling="cut by the server",
    ),
    Probe(
        "dimension_bounds",
        "dimensions 0, -1 and one too many",
        "a wrong setting goes unnoticed: vectors of another length are stored",
        "update the server (vLLM from 0.24 on refuses them); check the length in the client",
        protocol.dimension_bounds,
    ),
    Probe(
        "base64",
        "a text in base64 and in numbers",
        "the openai SDK, which asks for base64, reads other numbers",
        'pass encoding_format="float"',
        protocol.base64_encoding,
        upstream="ollama #6262",
    ),
    Probe(
        "token_ids",
        "three token ids",
        "clients that tokenize themselves get errors or vectors of the wrong text",
        "langchain: check_embedding_ctx_length=False",
        protocol.token_ids,
        upstream="langchain #30574",
    ),
    Probe(
        "determinism",
        "two texts twice",
        "a cache and the index disagree; results cannot be repeated",
        "check for sampling of replicas with other weights or dtypes behind one address",
        vectors.determinism,
    ),
    Probe(
        "batch_invariance",
        "8 texts of unlike lengths together and each alone",
        "a document's vector depends on its neighbours in the request: padding is read as text",
        "send texts of one length together or one by one; run in float32; update the server",
        vectors.batch_invariance,
        upstream="TEI #704, TEI #749",
        handling="batches",
    ),
    Probe(
        "concurrency",
        "64 requests, 16 at once",
        "users get each other's vectors under load",
        "one request at a time until the server is mended",
        vectors.concurrency,
        upstream="QwenLM/Qwen3-Embedding #140",
        handling="at once",
    ),
    Probe(
        "silent_truncation",
        "pairs of texts of up to 960 words that differ at the end alone",
        "the rest of long documents cannot be found, and nothing says so",
        "split texts below that length; TEI: --auto-truncate false; Ollama: truncate false and num_ctx",
        vectors.silent_truncation,
        upstream="ollama #14259, TEI #882",
    ),
    Probe(
        "odd_texts",
        "accents, other scripts, emoji, control characters",
        "one odd text fails a whole batch, or stores NaN",
        "bfloat16 or float32 instead of float16; clean texts in the client",
        vectors.odd_texts,
    ),
    Probe(
        "empty_text",
        "the empty text",
        "one empty document fails or spoils a batch",
        "leave empty texts out in the client",
        vectors.empty_text,
    ),
    Probe(
        "usage",
        "two texts alone and together",
        "token accounting and rate limits are wrong",
        "count in the client",
        protocol.usage,
    ),
    Probe(
        "errors",
        "not JSON, no input, a number as input",
        "mistakes look like results or like a broken server: clients retry in vain",
        "update the server",
        protocol.errors,
    ),
    Probe(
        "models",
        "GET /models",
        "clients cannot find the model's name",
        "set the served name",
        protocol.models,
    ),
    Probe(
        "health",
        "GET /health",
        "a load balancer cannot tell whether it is up",
        "probe the embeddings path instead",
        protocol.health,
    ),
    Probe(
        "reference",
        "8 texts, also to the local model",
        "vectors are not those of the model that was evaluated: a missing end token or prompt, other pooling",
        "add the end token in the tokenizer's files; start without a prompt template; same dtype and pooling",
        vectors.reference,
        upstream="QwenLM/Qwen3-Embedding #85, #88, #188",
        handling="as it is",
    ),
    Probe(
        "long_texts",
        "pairs of texts of up to 7,680 words that differ at the end alone",
        "one long document is cut without a word, or stops the service for all",
        "limit the length of a text before the server, and split longer ones",
        vectors.long_texts,
        upstream="ollama #14259, TEI #882",
        risky=True,
    ),
    Probe(
        "huge",
        "a text of 1 MB, then 2,049 texts",
        "one user's request stops the service for all",
        "limit body and batch before the server",
        vectors.huge,
        risky=True,
    ),
)
