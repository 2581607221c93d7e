"""Does a server's memory stay flat under minutes of mixed load?

Clients of all three APIs ask for short and long requests, all types and dimensions, with token ids and instructions;
others send what is refused, or go away before their answer. Every vector of a known text is compared. The server is
another process, whose resident memory is sampled; what it keeps for good is made in the first part of the time.

    python benchmarks/serve_memory.py [--minutes 10] [--clients 16] [--embedder static] [--save]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import psutil
from _record import record
from _servers import own, started

from toolkit.vectors import truncate

_SAMPLE_S = 1.0
# By this part of the time everything that is made once has been made.
_WARM_SHARE = 0.3
_TYPES = ("float", "float16", "int8", "uint8", "uint4", "binary", "ubinary")


class Load:
    """Requests at random, and what came of them."""

    def __init__(self, root: str, model: str, texts: list[str], rows: np.ndarray, until_s: float) -> None:
        self.root, self.model, self.texts, self.rows = root, model, texts, rows
        self.until_s = until_s
        self.statuses: Counter[int | str] = Counter()
        self.wrong = 0

    async def client(self, seed: int) -> None:
        """Asks until the time is over."""
        rng = random.Random(seed)
        ways = [self.known, self.known, self.batch, self.every_type, self.cohere, self.refused, self.leaves]
        async with httpx.AsyncClient(base_url=self.root, timeout=60) as http:
            while time.monotonic() < self.until_s:
                status = await rng.choice(ways)(http, rng)
                self.statuses[status] += 1

    async def known(self, http: httpx.AsyncClient, rng: random.Random) -> int:
        """A text whose vector is known, by OpenAI's API or TEI's."""
        i, dim = rng.randrange(len(self.texts)), rng.randint(1, self.rows.shape[1])
        if rng.random() < 0.5:
            body = {"model": self.model, "input": self.texts[i], "dimensions": dim}
            answer = await http.post("/v1/embeddings", json=body)
            got = answer.json()["data"][0]["embedding"] if answer.status_code == 200 else None
        else:
            answer = await http.post("/embed", json={"inputs": self.texts[i], "dimensions": dim})
            got = answer.json()[0] if answer.status_code == 200 else None
        if got is not None:
            self.wrong += not np.allclose(got, truncate(self.rows[i : i + 1], dim)[0], atol=1e-5)
        return answer.status_code

    async def batch(self, http: httpx.AsyncClient, rng: random.Random) -> int:
        """Many texts that were never seen, as queries with an instruction of their own."""
        texts = [
            f"{rng.random()} words of a passage " * rng.randint(1, 30) for _ in range(rng.randint(1, 300))
        ]
        body = {"model": self.model, "input": texts, "encoding_format": "base64"}
        if rng.random() < 0.3:
            body |= {"role": "query", "instruction": f"task {rng.randrange(10**6)}"}
        return (await http.post("/v1/embeddings", json=body)).status_code

    async def every_type(self, http: httpx.AsyncClient, rng: random.Random) -> int:
        """All types at several dimensions of one pass."""
        dims = [8 * rng.randint(1, self.rows.shape[1] // 8) for _ in range(3)]
        body = {"model": self.model, "input": "a text", "dimensions": dims, "embedding_types": list(_TYPES)}
        return (await http.post("/v1/embeddings", json=body)).status_code

    async def cohere(self, http: httpx.AsyncClient, rng: random.Random) -> int:
        """By Cohere's API."""
        body = {"model": self.model, "texts": [f"{rng.random()}"] * 5, "input_type": "search_document"}
        return (await http.post("/v2/embed", json=body)).status_code

    async def refused(self, http: httpx.AsyncClient, rng: random.Random) -> int:
        """Something that no server should answer."""
        body = rng.choice(
            [
                b"{",
                b"[" * 10_000,
                b'{"%d": 1}' % rng.randrange(10**9),
                b'{"model": "m%d"}' % rng.randrange(10**9),
            ]
        )
        path = rng.choice(["/v1/embeddings", "/v2/embed", "/embed", f"/{rng.randrange(10**9)}"])
        return (await http.post(path, content=body, headers={"content-type": "application/json"})).status_code

    async def leaves(self, _http: httpx.AsyncClient, rng: random.Random) -> str:
        """A client on a connection of its own that is gone before its answer."""
        body = {"model": self.model, "input": ["a long passage " * 50] * rng.randint(1, 100)}
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(base_url=self.root, timeout=rng.random() * 0.02 + 0.001) as http:
                await http.post("/v1/embeddings", json=body)
        return "left"


async def run(load: Load, process: psutil.Process, clients: int) -> list[tuple[float, int]]:
    """Seconds and resident bytes of the server while it is loaded."""
    asking = [asyncio.ensure_future(load.client(seed)) for seed in range(clients)]
    samples, start = [], time.monotonic()
    while not all(one.done() for one in asking):
        samples.append((time.monotonic() - start, process.memory_info().rss))
        await asyncio.sleep(_SAMPLE_S)
    await asyncio.gather(*asking)
    return samples


def growth(samples: list[tuple[float, int]]) -> dict[str, float]:
    """What memory did once everything is made: the medians of the first and last fifth of that, and the slope."""
    whole_s = samples[-1][0]
    late = [(at_s, rss) for at_s, rss in samples if at_s >= _WARM_SHARE * whole_s]
    fifth = max(1, len(late) // 5)
    first, last = (median(rss for _, rss in part) / 2**20 for part in (late[:fifth], late[-fifth:]))
    minutes, mib = np.array([at_s / 60 for at_s, _ in late]), np.array([rss / 2**20 for _, rss in late])
    slope = float(np.polyfit(minutes, mib, 1)[0]) if len(late) > 2 else 0.0
    return {
        "resident_mib_warm": round(first, 1),
        "resident_mib_end": round(last, 1),
        "growth": round(last / first - 1, 4),
        "mib_per_minute": round(slope, 3),
    }


def main() -> None:
    """Start the server, load it, and record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--embedder", default="static")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.csv"
        pairs.write_text(
            "query,document\n" + "".join(f"what is {i}?,it is {i} of many\n" for i in range(500))
        )
        with started(own(given.embedder, "--calibrate", f"csv:{pairs}")) as (url, pid):
            texts = [f"known text {i} about something" for i in range(64)]
            with httpx.Client(base_url=url) as http:
                model = http.get("/models").json()["data"][0]["id"]
                told = [
                    http.post("/embeddings", json={"model": model, "input": text}).json() for text in texts
                ]
            rows = np.array([one["data"][0]["embedding"] for one in told], dtype=np.float32)
            load = Load(url.removesuffix("/v1"), model, texts, rows, time.monotonic() + 60 * given.minutes)
            samples = asyncio.run(run(load, psutil.Process(pid), given.clients))
            time.sleep(1.0)
            waiting = [
                line
                for line in httpx.get(f"{load.root}/metrics").text.splitlines()
                if line.startswith("te_queue_size ")
            ]
    figures = growth(samples) | {
        "minutes": given.minutes,
        "clients": given.clients,
        "embedder": given.embedder,
        "requests": {str(status): count for status, count in sorted(load.statuses.items(), key=str)},
        "errors_500": sum(count for status, count in load.statuses.items() if str(status).startswith("5")),
        "wrong_vectors": load.wrong,
        "queue_at_end": float(waiting[0].split()[1]),
    }
    record("serve_memory", figures, given.save)


if __name__ == "__main__":
    main()
