"""From a request to its answer: names, templates, tokens, one forward pass, then every dimension and type of it.

The same for every API; knows no HTTP and no socket.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from http import HTTPStatus

import numpy as np

from toolkit.errors import EngineClosedError, ServerError, ToolkitError
from toolkit.serve.calibration import Calibration
from toolkit.serve.engine_port import EnginePort
from toolkit.serve.metrics import Metrics
from toolkit.serve.model import ServedModel
from toolkit.vectors import truncate
from toolkit.wire.answers import Answer, Usage
from toolkit.wire.codes import RANGED, encode
from toolkit.wire.findings import Finding, RequestError, wrong
from toolkit.wire.requests import EmbeddingRequest, Limits, unfit_dims

# Tokenizing or quantizing more than this would hold up the other clients of the event loop.
_LONG_CHARACTERS = 20_000
_MANY_NUMBERS = 200_000
_CHARACTERS_PER_TOKEN = 4  # where the tokenizer is not known


class Service:
    """Answers requests with one engine; one per event loop."""

    def __init__(
        self,
        model: ServedModel,
        port: EnginePort,
        *,
        most_inputs: int,
        most_tokens: int,
        calibration: Calibration | None,
        metrics: Metrics,
    ) -> None:
        self.model = model
        self.metrics = metrics
        self._port = port
        self._most_tokens = most_tokens
        self._calibration = calibration
        self.limits = Limits(
            full_dim=model.space.full_dim,
            inputs=most_inputs,
            vocabulary=model.counter.vocabulary if model.counter else None,
        )

    @property
    def calibration(self) -> Calibration | None:
        """What 8- and 4-bit vectors are quantized with."""
        return self._calibration

    def metrics_text(self) -> bytes:
        """As Prometheus reads it, with what waits just now."""
        self.metrics.queue(*self._port.waiting)
        return self.metrics.text()

    async def embed(self, request: EmbeddingRequest) -> Answer:
        """One forward pass, and all that was asked of it; raises RequestError."""
        alias = self.model.alias(request.model)
        dims = request.dims or (alias.dim or self.model.space.full_dim,)
        told = self.model.dim_warnings(dims)
        more: dict[str, object] = {}
        types = request.types or (alias.query_kind if request.side == "query" else alias.kind,)
        if request.types is None and (unfit := unfit_dims(types, dims)):
            raise RequestError(unfit)
        ranged = any(kind in RANGED for kind in types)
        if ranged:
            more["calibration"] = self._calibration_for(types).about()
        texts = request.texts if request.token_ids is None else await self._decoded(request.token_ids)
        rendered, of_instruction = self.model.render(texts, request, alias)
        told += of_instruction
        counts = await self._counts(rendered)
        usage = self._usage(request, counts)
        self.metrics.input(len(rendered), usage.tokens)
        rows = await self._rows(rendered, usage.tokens)
        if 0 in counts:
            told += [
                f"input {i} has no tokens; its vector is zero" for i, count in enumerate(counts) if not count
            ]
        if told:
            more["warnings"] = told
        numbers = len(rows) * len(types) * sum(dims)
        if numbers > _MANY_NUMBERS or (ranged and not all(map(self._calibration.has, dims))):
            vectors = await asyncio.to_thread(self._vectors, rows, dims, types)
        else:
            vectors = self._vectors(rows, dims, types)
        return Answer(
            model=request.model or self.model.name,
            vectors=vectors,
            usage=usage,
            several=request.several,
            # Who asks for base64 and names no type reads float32.
            base64=request.base64 and (request.types is not None or types == ("float",)),
            more=more,
        )

    def _vectors(
        self, rows: np.ndarray, dims: Sequence[int], types: Sequence[str]
    ) -> dict[tuple[int, str], np.ndarray]:
        vectors = {}
        for dim in dims:
            cut = rows if dim == rows.shape[1] else truncate(rows, dim)
            for kind in types:
                ranges = self._calibration.ranges(dim) if kind in RANGED and self._calibration else None
                vectors[dim, kind] = encode(cut, kind, ranges)
        return vectors

    async def _rows(self, texts: list[str], tokens: int) -> np.ndarray:
        try:
            return await self._port.submit(texts, tokens)
        except EngineClosedError as error:
            finding = Finding(None, str(error), "requests before the server stops", "send the request again")
            raise RequestError(
                [finding], status=HTTPStatus.SERVICE_UNAVAILABLE, code="stopping", retry_after_s=5
            ) from None
        except ServerError as error:
            finding = Finding(
                None, str(error), "an engine that answers", "look at the server behind this one"
            )
            raise RequestError([finding], status=HTTPStatus.BAD_GATEWAY, code="engine_failed") from error
        except RequestError:
            raise
        except ToolkitError as error:
            finding = Finding(None, str(error), "an engine that works", "look into the server's log")
            raise RequestError(
                [finding], status=HTTPStatus.INTERNAL_SERVER_ERROR, code="engine_failed"
            ) from error

    async def _counts(self, texts: list[str]) -> list[int]:
        counter = self.model.counter
        if counter is None:
            return [max(1, math.ceil(len(text) / _CHARACTERS_PER_TOKEN)) for text in texts]
        with self.metrics.tokenization():
            if sum(map(len, texts)) > _LONG_CHARACTERS:
                return await asyncio.to_thread(counter.count, texts)
            return counter.count(texts)

    def _usage(self, request: EmbeddingRequest, counts: list[int]) -> Usage:
        """Tokens to embed; raises RequestError for texts that are too long and may not be cut."""
        most = self.model.max_tokens
        cut = 0
        if most and max(counts) > most:
            cut = sum(count - most for count in counts if count > most)
            if not request.truncate:
                raise RequestError(
                    [
                        Finding(
                            f"input[{i}]",
                            f"input[{i}] has {count:,} tokens",
                            f"1..{most:,} tokens",
                            "shorten it, or set truncate to true to embed its beginning only",
                        )
                        for i, count in enumerate(counts)
                        if count > most
                    ],
                    code="context_length_exceeded",
                )
        tokens = sum(counts) - cut
        if tokens > self._most_tokens:
            raise self._too_many_tokens(tokens)
        return Usage(tokens, cut)

    def _too_many_tokens(self, tokens: int) -> RequestError:
        finding = Finding(
            "input",
            f"the inputs have {tokens:,} tokens together",
            f"up to {self._most_tokens:,} tokens in a request",
            "send several requests",
        )
        return RequestError([finding], code="max_tokens_per_request")

    async def _decoded(self, token_ids: list[list[int]]) -> list[str]:
        """The engine takes strings: the text that has exactly these ids."""
        counter = self.model.counter
        count = sum(map(len, token_ids))
        if count > self._most_tokens:
            raise self._too_many_tokens(count)
        texts: list[str | None] = [None] * len(token_ids)
        if counter and count * _CHARACTERS_PER_TOKEN > _LONG_CHARACTERS:
            texts = await asyncio.to_thread(counter.texts_of, token_ids)
        elif counter:
            texts = counter.texts_of(token_ids)
        foreign = [i for i, text in enumerate(texts) if not text]
        if foreign:
            raise RequestError(
                [
                    wrong(
                        "input" if len(token_ids) == 1 else f"input[{i}]",
                        token_ids[i],
                        f"token ids that {self.model.space.model}'s tokenizer gives for some text",
                        "these are of another tokenizer, or cut within a character; send the text",
                    )
                    for i in foreign
                ],
                code="foreign_token_ids",
            )
        return [text for text in texts if text]

    def _calibration_for(self, types: Sequence[str]) -> Calibration:
        if self._calibration is not None:
            return self._calibration
        raise RequestError(
            [
                wrong(
                    "embedding_types",
                    ", ".join(kind for kind in types if kind in RANGED),
                    "float, float16, binary and ubinary, because this server was started without a calibration",
                    "start it with calibration texts or a results folder",
                )
            ]
        )
