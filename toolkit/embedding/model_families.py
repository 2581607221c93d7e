"""What the makers of well-known models state about them, found by the model's name.

Used where the model's own files say nothing: a remote server tells only a name, and no file format
records the shortest trained prefix. A model that is not listed counts as not Matryoshka-trained.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolkit.space import QWEN3_PROMPTS, Prompts

QWEN3_MIN_DIM = 32  # model card: "user-defined output dimensions ranging from 32"

_SEARCH_PASSAGES = "Represent this sentence for searching relevant passages: "


@dataclass(frozen=True)
class Family:
    """Models of one maker that share a recipe.

    pattern : regular expression, searched in the lower-case model name.
    min_dim : shortest prefix that the makers trained or state; None for a family without.
    prompts : templates; None where the model's own files must give them.
    """

    pattern: str
    min_dim: int | None = None
    prompts: Prompts | None = None


# Sources are the model cards on the hub unless named otherwise.
_FAMILIES = (
    # With its size and a storage format at most: a model trained further has more in its name, and its own prompts.
    Family(
        r"qwen3-embedding([-:_][\d.]+b)?([-:_.](gguf|fp8|int8|awq|gptq|mlx|onnx|bf16|f16|fp16|\d?-?bit|q\d\w*))*$",
        QWEN3_MIN_DIM,
        QWEN3_PROMPTS,
    ),
    # "embedding dimensions 768, 512, 256, 128, 64"
    Family(r"nomic-embed-text-v1\.5", 64, Prompts(query="search_query: ", document="search_document: ")),
    Family(r"nomic-embed-text-v1$", None, Prompts(query="search_query: ", document="search_document: ")),
    # The card's example cuts to 512; no shorter one is stated.
    Family(r"mxbai-embed-large-v1", 512, Prompts(query=_SEARCH_PASSAGES)),
    # "MRL ... 256"
    Family(r"snowflake-arctic-embed-[ml]-v2", 256, Prompts(query="query: ")),
    Family(r"snowflake-arctic-embed-(xs|s|m|l)$", None, Prompts(query=_SEARCH_PASSAGES)),
    # "truncated to 512, 256 or 128"
    Family(
        r"embeddinggemma-300m",
        128,
        Prompts(query="task: search result | query: ", document="title: none | text: "),
    ),
    # "32, 64, 128, 256, 512, 768, 1024"; v5 as in mteb's model metadata. Their prompts choose adapters,
    # which a text prefix cannot do.
    Family(r"jina-embeddings-v[35]", 32),
    # OpenAI, "New embedding models and API updates" (2024): the shortest sizes of its table.
    Family(r"text-embedding-3-small", 512),
    Family(r"text-embedding-3-large", 256),
    # No Matryoshka training, but wrong vectors without the prefixes.
    Family(
        r"(^|/)(multilingual-)?e5-(small|base|large)(-v2)?$",
        None,
        Prompts(query="query: ", document="passage: "),
    ),
)


def family_of(name: str) -> Family | None:
    """The family that a model name belongs to, or None."""
    wanted = name.lower().rstrip("/")
    return next((family for family in _FAMILIES if re.search(family.pattern, wanted)), None)
