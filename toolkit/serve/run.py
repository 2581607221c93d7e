"""Starts a server and stops it: listens first, loads the model beside it, finishes what was accepted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import TYPE_CHECKING, Self

from toolkit.embedding.engine import Engine
from toolkit.embedding.protocol import Embedder
from toolkit.embedding.tokens import token_counter
from toolkit.errors import PlanError, ToolkitError, require_package
from toolkit.serve.app import State, make_app
from toolkit.serve.calibration import Calibration, calibrate
from toolkit.serve.engine_port import Admission, LocalPort
from toolkit.serve.memory import lean_heap
from toolkit.serve.metrics import Metrics
from toolkit.serve.model import Alias, ServedModel
from toolkit.serve.recommended import SUFFIX, RecommendedSetting
from toolkit.serve.service import Service
from toolkit.serve.settings import ServeSettings

if TYPE_CHECKING:
    import uvicorn

_SWITCH_S = 0.0005  # Python's own is 0.005


def serve(
    open_engine: Callable[[], Embedder],
    settings: ServeSettings,
    *,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until interrupted or terminated; raises what the model failed to load with."""
    # The process is the server's alone. Its engine's thread must not wait long for the interpreter while answers are
    # written; a full collection over all that loading a model leaves takes as long as many requests, and frees nothing.
    sys.setswitchinterval(_SWITCH_S)

    def open_frozen() -> Embedder:
        engine = open_engine()
        gc.collect()
        gc.freeze()
        return engine

    running = RunningServer(open_frozen, settings, announce=announce)
    if settings.is_open:
        announce(
            "warning: whoever reaches this address can use the server; give it keys, or put a proxy with keys before it"
        )
    with lean_heap():
        running.run()


class RunningServer:
    """A server that listens from its making on; `run` serves, in this thread or, with `with`, in another.

    with RunningServer(lambda: toolkit.open_embedder("static"), ServeSettings(port=0)) as server:
        print(server.url)
    """

    def __init__(
        self,
        open_engine: Callable[[], Embedder],
        settings: ServeSettings,
        *,
        announce: Callable[[str], None] = lambda _line: None,
    ) -> None:
        for package in ("uvicorn", "starlette", "orjson", "prometheus_client"):
            require_package(package, needed_for="the server", extra="serve")
        import uvicorn

        self._open_engine, self._settings, self._announce = open_engine, settings, announce
        self._recommended = RecommendedSetting.of(settings.results) if settings.results else None
        self._socket = listen(settings.host, settings.port)
        host, port = self._socket.getsockname()[:2]
        self.root = f"http://{_shown(host)}:{port}"
        self.state = State(settings)
        self._loaded = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        config = uvicorn.Config(
            make_app(self.state, lifespan=self._lifespan),
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=int(settings.stop_timeout_s),
            backlog=2_048,
            proxy_headers=False,
        )
        self._server = _server(config, self.state)

    @property
    def url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"{self.root}/v1"

    def run(self) -> None:
        """Serve until told to stop; raises what the model failed to load with."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self._loaded.set()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Finish what was accepted, and end."""
        self.state.stopping = True
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        """Serve in another thread, from when the model is loaded."""
        self._thread = threading.Thread(target=self._run_quietly, name="serve", daemon=True)
        self._thread.start()
        self._loaded.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def _run_quietly(self) -> None:
        with contextlib.suppress(ToolkitError):  # raised where the thread was started
            self.run()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: object) -> AsyncIterator[None]:
        loading = asyncio.create_task(self._load())
        loading.add_done_callback(self._was_loaded)
        self._announce(f"listening on {self.root}; loading the model")
        yield
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError, ToolkitError):
            engine = await loading
            await asyncio.to_thread(engine.close)

    async def _load(self) -> Embedder:
        settings, recommended = self._settings, self._recommended
        engine = await asyncio.to_thread(_open_warm, self._open_engine)
        space = engine.space
        aliases = {name: Alias() for name in settings.names or (space.model,)}
        if recommended is not None:
            warning = recommended.check(space)
            if warning:
                self._announce(warning)
            aliases[next(iter(aliases)) + SUFFIX] = recommended.alias()
        admission = Admission(requests=settings.most_waiting, tokens=settings.most_waiting_tokens)
        metrics = Metrics()
        self.state.service = Service(
            ServedModel(space, token_counter(engine), aliases),
            LocalPort(engine, admission, metrics),
            most_inputs=settings.most_inputs,
            most_tokens=settings.most_tokens,
            calibration=await asyncio.to_thread(_calibration, engine, settings, recommended),
            metrics=metrics,
        )
        return engine

    def _was_loaded(self, loading: asyncio.Task[Embedder]) -> None:
        if loading.cancelled():
            return
        self._failure = loading.exception()
        if self._failure is None:
            self._announce(f"ready: {self.url} serves {self.state.ready_service().model.name}")
        else:
            self._server.should_exit = True
        self._loaded.set()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises PlanError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise PlanError(
            f"cannot listen on {_shown(host)}:{port} ({error.strerror}); choose another port or host"
        ) from None
    listening.set_inheritable(True)
    return listening


def _calibration(
    engine: Embedder, settings: ServeSettings, recommended: RecommendedSetting | None
) -> Calibration | None:
    if settings.calibrate:
        return calibrate(engine, settings.calibrate)
    return recommended.calibration(engine) if recommended and recommended.needs_ranges else None


def _open_warm(open_engine: Callable[[], Embedder]) -> Embedder:
    engine = open_engine()
    if isinstance(engine, Engine):
        engine.warm_up()
    return engine


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _server(config: uvicorn.Config, state: State) -> uvicorn.Server:
    """uvicorn's server; told to stop, it says so to probes at once, and ends well when all is finished."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Finish what was accepted; a second interrupt does not wait for it."""
            state.stopping = True
            super().handle_exit(sig, frame)
            self._captured_signals.clear()  # or the process would die of it after all is done

    return Server(config)
