"""The packed engine beside sentence-transformers, on one GPU, with random weights of published shapes.

Both sides get the same weights, strings, tokenizer and bfloat16. Rates are from strings to rows on the
host, tokenizing included; `device` entries leave tokenizing and packing out. MFU is work (2 a parameter
and token, and causal attention, of the whole model) over time over the measured matmul ceiling.

    python benchmarks/encode.py --tokenizer FOLDER [--shapes 4b 0.6b 8b] [--parts ...] [--save]
    python benchmarks/encode.py --tokenizer FOLDER --cold      # seconds to a first result, fresh process
"""

from __future__ import annotations

import time

_BEGIN = time.perf_counter()

import argparse  # noqa: E402 - the clock of --cold starts before any import
import gc  # noqa: E402
import json  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from _record import record  # noqa: E402

from toolkit.embedding.config import LocalConfig  # noqa: E402
from toolkit.embedding.packed import PackedEmbedder  # noqa: E402
from toolkit.embedding.packed.packing import Pack, TokenizedTexts  # noqa: E402
from toolkit.embedding.packed.shape import QWEN3_SHAPES, DecoderShape  # noqa: E402
from toolkit.embedding.packed.weights import named_tensors, random_weights  # noqa: E402
from toolkit.experiment.encode_speed import (  # noqa: E402
    WORKLOADS,
    matmul_ceiling,
    measure_latency,
    workload_texts,
)

CUDA = torch.device("cuda")
SHORT = {"bfloat16": "bf16", "fp8": "fp8"}
BEST_BATCHES = {"passages": 128, "queries": 128, "long": 8}
REPEATS = 3
DIMS = (32, 64, 128, 256, 512, 768, 1024, 1536, 2048, 2560)
LENGTHS = (1, 2, 17, 64, 100, 300, 513, 2_000, 4_096, 8_192, 32_768)
FLOAT32_UP_TO = 4_096  # transformers' float32 attention needs memory of the length squared


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with Qwen3's tokenizer.json")
    parser.add_argument("--shapes", nargs="+", default=["4b", "0.6b", "8b"], choices=list(QWEN3_SHAPES))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.cold:
        embedder = toolkit_embedder("4b", "bfloat16", options.tokenizer)
        embedder.encode(["a first query"])
        print(json.dumps({"first_result_s": round(time.perf_counter() - _BEGIN, 2)}))
        return
    figures: dict[str, object] = {"ceiling_tflops": round(matmul_ceiling("cuda"), 1)}
    figures |= bandwidth()
    # The profiler part comes last of all: once used, torch's profiler seems to slow all launches that follow.
    try:
        for part in (part for part in PARTS if part in options.parts):
            for shape in options.shapes:
                begin = time.perf_counter()
                for name, found in PARTS[part](shape, figures, options.tokenizer):
                    figures[name] = found
                    print(name, json.dumps(found), flush=True)
                gc.collect()
                torch.cuda.empty_cache()
                print(f"-- {part} {shape}: {time.perf_counter() - begin:.0f} s", flush=True)
        figures["ceiling_after_tflops"] = round(matmul_ceiling("cuda"), 1)
    finally:  # an interrupted run keeps what it has
        record("encode_h100", figures, options.save)


def toolkit_embedder(shape: str, dtype: str, tokenizer: Path, **settings: int) -> PackedEmbedder:
    """The packed engine with random weights."""
    config = LocalConfig(model=f"random-qwen3-{shape}", device="cuda", dtype=dtype, **settings)
    return PackedEmbedder.random(config, QWEN3_SHAPES[shape], tokenizer)


def bandwidth() -> dict[str, float]:
    """TB/s of a device-to-device copy, read and written bytes counted."""
    source = torch.randint(0, 2**31 - 1, (2**29,), dtype=torch.int32, device=CUDA)
    target = torch.empty_like(source)
    seconds = [timed(lambda: target.copy_(source)) for _ in range(20)]
    return {"copy_tb_s": round(2 * source.nbytes / min(seconds) / 1e12, 3)}


def timed(work: Callable[[], object]) -> float:
    """Seconds until the device has done it."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def rates(shape: DecoderShape, figures: dict, lengths: list[int], seconds: list[float]) -> dict[str, object]:
    """What a workload's median time comes to."""
    median = float(np.median(seconds))
    ceiling = figures["ceiling_tflops"] * 1e12
    return {
        "tok_s": round(sum(lengths) / median),
        "texts_s": round(len(lengths) / median, 1),
        "mfu": round(shape.flops(lengths) / median / ceiling, 4),
        "seconds": [round(s, 4) for s in seconds],
    }


def toolkit_part(name: str, figures: dict, tokenizer: Path) -> Iterator[tuple[str, object]]:
    """Throughput, latency, memory and a profile of the packed engine."""
    shape = QWEN3_SHAPES[name]
    for dtype, short in SHORT.items():
        torch.cuda.reset_peak_memory_stats()
        embedder = toolkit_embedder(name, dtype, tokenizer)
        for workload in WORKLOADS:
            texts = workload_texts(workload)
            if name == "8b":  # a shorter look
                texts = texts[: len(texts) // 4]
            lengths = embedder.token_counts(texts)
            packs = list(embedder.packs(texts))
            for _ in range(2):  # the first pass compiles, the second records
                drain(embedder.stream_packs(packs))
            torch.cuda.reset_peak_memory_stats()
            whole, device = [], []
            for _ in range(REPEATS):  # taking turns, so that a drift of the clocks hits both
                whole.append(timed(lambda: drain(embedder.stream(texts))))  # noqa: B023
                device.append(timed(lambda: drain(embedder.stream_packs(packs))))  # noqa: B023
            found = rates(shape, figures, lengths, whole)
            alone = rates(shape, figures, lengths, device)
            found["device"] = alone
            found["of_device_rate"] = round(found["tok_s"] / alone["tok_s"], 4)
            found["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            yield f"toolkit/{name}/{short}/{workload}", found
        dims = [dim for dim in DIMS if dim <= shape.hidden]
        samples = measure_latency(embedder, dims, count=40)
        medians = {dim: float(np.median(taken)) for dim, taken in samples.items()}
        weights_s = 2 * shape.layers * shape.layer_parameters / (figures["copy_tb_s"] * 1e12)
        yield (
            f"latency/{name}/{short}",
            {
                "by_dim_ms": {
                    dim: [round(float(np.percentile(taken, p)), 3) for p in (50, 95, 99)]
                    for dim, taken in samples.items()
                },
                "dimension_effect_ms": round(max(medians.values()) - min(medians.values()), 3),
                "weights_read_once_ms": round(weights_s * 1e3 / (2 if dtype == "fp8" else 1), 3),
            },
        )
        embedder.close()


def profile_part(name: str, figures: dict, tokenizer: Path) -> Iterator[tuple[str, object]]:  # noqa: ARG001
    """Where the device's time goes."""
    for dtype, short in SHORT.items():
        embedder = toolkit_embedder(name, dtype, tokenizer)
        query = ["a single short query"]
        for _ in range(3):
            embedder.encode(query)
        yield f"profile/{name}/{short}/query", profile(lambda: embedder.stream(query))  # noqa: B023 - called at once
        if dtype == "bfloat16" or name == "4b":
            for workload in WORKLOADS:
                packs = list(embedder.packs(workload_texts(workload)))[-3:]
                drain(embedder.stream_packs(packs))
                yield f"profile/{name}/{short}/{workload}", profile(lambda: embedder.stream_packs(packs))  # noqa: B023
        embedder.close()


def drain(blocks: Iterator) -> None:
    """Take all."""
    for _ in blocks:
        pass


def profile(work: Callable[[], Iterator]) -> list[tuple[str, float, int]]:
    """Kernels by share of device time in per cent: name, share, launches."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        drain(work())
        torch.cuda.synchronize()
    kernels = sorted(profiler.key_averages(), key=lambda kernel: -kernel.self_device_time_total)
    total = sum(kernel.self_device_time_total for kernel in kernels)
    return [
        (kernel.key[:60], round(100 * kernel.self_device_time_total / total, 2), kernel.count)
        for kernel in kernels[:12]
    ]


def transformers_model(name: str, dtype: torch.dtype) -> torch.nn.Module:
    """transformers' Qwen3Model with the weights that `PackedEmbedder.random` draws."""
    from transformers import Qwen3Config, Qwen3Model
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    shape = QWEN3_SHAPES[name]
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        rms_norm_eps=shape.norm_eps,
        attn_implementation="sdpa",
        use_cache=False,
    )
    with torch.device("meta"):
        model = Qwen3Model(config)
    weights = random_weights(shape, device=CUDA, dtype=torch.bfloat16)
    model.load_state_dict(dict(named_tensors(weights)), assign=True)
    model = model.to(dtype)
    # After the cast, which would round its frequencies too; from_pretrained keeps them in float32.
    model.rotary_emb = Qwen3RotaryEmbedding(config).to(CUDA)
    return model.eval()


def sentence_transformers_part(name: str, figures: dict, tokenizer: Path) -> Iterator[tuple[str, object]]:
    """sentence-transformers' encode at its default batch size, and at the best one known."""
    if name == "8b":
        return
    shape = QWEN3_SHAPES[name]
    model = sentence_transformer(transformers_model(name, torch.bfloat16), tokenizer)
    for workload in WORKLOADS:
        texts = workload_texts(workload)
        lengths = [len(text.split()) + 1 for text in texts]
        for engine, batch in (
            ("sentence-transformers", 32),
            ("sentence-transformers-best", BEST_BATCHES[workload]),
        ):
            model.encode(texts[: 2 * batch], batch_size=batch, normalize_embeddings=True)
            seconds = timed(lambda: model.encode(texts, batch_size=batch, normalize_embeddings=True))  # noqa: B023
            yield (
                f"{engine}/{name}/bf16/{workload}",
                rates(shape, figures, lengths, [seconds]) | {"batch_size": batch},
            )


def sentence_transformer(model: torch.nn.Module, tokenizer: Path) -> object:
    """`model` inside sentence-transformers, with last-token pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    tokens = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer / "tokenizer.json"),
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=32_768,
    )
    with tempfile.TemporaryDirectory() as folder:
        # Its own way in is a folder: a tiny model there, then the large one in its place.
        tiny = Qwen3Config(
            vocab_size=len(tokens), hidden_size=64, intermediate_size=64, num_hidden_layers=1, head_dim=32
        )
        Qwen3Model(tiny).save_pretrained(folder)
        tokens.save_pretrained(folder)
        transformer = Transformer(folder, max_seq_length=32_768)
    setattr(transformer, "model" if hasattr(transformer, "model") else "auto_model", model)
    pooling = Pooling(model.config.hidden_size, pooling_mode="lasttoken")
    return SentenceTransformer(modules=[transformer, pooling], device="cuda")


def exactness_part(name: str, figures: dict, tokenizer: Path) -> Iterator[tuple[str, object]]:  # noqa: ARG001
    """Cosines against transformers one text at a time, at lengths 1 to 32,768."""
    if name != "4b":
        return
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 150_000, length).astype(np.int32) for length in LENGTHS]
    short = [text for text in ids if len(text) <= FLOAT32_UP_TO]
    reference = {}
    for dtype, texts in ((torch.bfloat16, ids), (torch.float32, short)):
        model = transformers_model(name, dtype)
        with torch.inference_mode():
            states = [
                model(torch.from_numpy(text).long().to(CUDA)[None]).last_hidden_state[0, -1] for text in texts
            ]
        reference[dtype] = torch.nn.functional.normalize(torch.stack(states).float(), dim=-1).cpu().numpy()
        del model, states
        torch.cuda.empty_cache()
    exact, rounded = reference[torch.float32], reference[torch.bfloat16]
    yield "exactness/transformers_bf16_to_float32", cosines(rounded[: len(exact)], exact)
    ours = {}
    for dtype in ("float32", "bfloat16", "float16", "fp8"):
        embedder = toolkit_embedder(name, dtype, tokenizer)
        for way, groups in (("packed", [range(len(ids))]), ("alone", [[i] for i in range(len(ids))])):
            rows = np.empty((len(ids), QWEN3_SHAPES[name].hidden), dtype=np.float32)
            for group in groups:
                pack = Pack.of(np.array(group), TokenizedTexts.of([ids[i] for i in group]))
                for positions, block in embedder.stream_packs([pack]):
                    rows[positions] = block
            ours[dtype] = rows
            yield (
                f"exactness/{dtype}/{way}",
                {
                    "to_transformers_float32": cosines(rows[: len(exact)], exact),
                    "to_transformers_bf16": cosines(rows, rounded),
                    "to_toolkit_float32": cosines(rows, ours["float32"]),
                },
            )
        embedder.close()
        torch.cuda.empty_cache()


def cosines(left: np.ndarray, right: np.ndarray) -> dict[int, float]:
    """By length of the text."""
    values = (left * right).sum(axis=1)
    return {length: round(float(value), 6) for length, value in zip(LENGTHS, values, strict=False)}


def ranking_part(name: str, figures: dict, tokenizer: Path) -> Iterator[tuple[str, object]]:  # noqa: ARG001
    """What a precision costs in ranking: how far each keeps float32's neighbours.

    Texts come in pairs that share half of their words, so that there is something to find.
    """
    if name != "4b":
        return
    passages = workload_texts("passages")[:1_000]
    queries = [" ".join(text.split()[: max(2, len(text.split()) // 2)]) for text in passages[:200]]
    found = {}
    for dtype in ("float32", "bfloat16", "float16", "fp8"):
        embedder = toolkit_embedder(name, dtype, tokenizer, max_tokens=64)
        documents, asked = embedder.encode(passages), embedder.encode(queries)
        found[dtype] = (documents, asked @ documents.T)
        embedder.close()
        torch.cuda.empty_cache()
    exact_documents, exact_scores = found["float32"]
    best = np.argsort(-exact_scores, axis=1)[:, :10]
    for dtype, (documents, scores) in found.items():
        order = np.argsort(-scores, axis=1)
        kept = [len(set(a) & set(b)) / 10 for a, b in zip(order[:, :10].tolist(), best.tolist(), strict=True)]
        own = np.arange(len(scores))[:, None]
        yield (
            f"ranking/{name}/{dtype}",
            {
                "cosine_mean": round(float((documents * exact_documents).sum(axis=1).mean()), 6),
                "cosine_min": round(float((documents * exact_documents).sum(axis=1).min()), 6),
                "same_top10": round(float(np.mean(kept)), 4),
                "same_top1": round(float((order[:, 0] == best[:, 0]).mean()), 4),
                "own_passage_in_top10": round(float((order[:, :10] == own).any(axis=1).mean()), 4),
            },
        )


PARTS = {
    "toolkit": toolkit_part,
    "sentence-transformers": sentence_transformers_part,
    "exactness": exactness_part,
    "ranking": ranking_part,
    "profile": profile_part,
}

if __name__ == "__main__":
    main()
