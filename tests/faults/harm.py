"""The faults, one function each: disturb a command, let it go on, and compare with an undisturbed run.

What is found is counted: `lost` is what was kept before the fault and is not there after it; `differences` is what ends
otherwise than undisturbed; `unclear` is a failure that is not one line.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.commands import (
    EMBED,
    JUDGE,
    NOBODY,
    PLAN,
    SWEEP,
    Command,
    Ended,
    end,
    left_by,
    looked_at,
    preload,
    quality,
    run,
    start,
    toolkit,
    write_data,
)
from tests.faults.server import BORNE, MODEL, MODES, HostileServer

KEYS = "".join(random.Random(3).choice("0123") for _ in range(4_000))


@dataclass
class Trials:
    """A folder with the data, what undisturbed runs left, and the counts so far."""

    folder: Path
    seed: int
    counts: Counter = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)
    whole: dict[str, dict[str, object]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    _made: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        write_data(self.folder / "data")

    def preload(self, commands: Sequence[Command]) -> None:
        """Import what the commands need."""
        at = self.folder / "first"
        at.mkdir()
        preload(commands, at)

    def undisturbed(self, command: Command) -> Path:
        """The folder of an undisturbed run, made once."""
        at = self.folder / f"whole-{command.name}"
        if command.name not in self.whole:
            self._begin(command, at)
            ended = run(command.work, at, stdin=_keys(command, 0))
            if ended.code != 0:
                raise RuntimeError(f"{command.name} fails undisturbed: {ended.err[-2000:]}")
            self.seconds[command.name] = ended.seconds
            self.whole[command.name] = left_by(command, at)
            if "unreadable" in self.whole[command.name]:
                raise RuntimeError(str(self.whole[command.name]))
        return at

    def fresh(self, command: Command, *, of: Path | None = None) -> Path:
        """A folder to disturb a command in: as before its run, or a copy of what a run left."""
        self._made += 1
        at = self.folder / f"trial-{self._made}"
        if of is None:
            self._begin(command, at)
        else:
            shutil.copytree(of, at)
        return at

    def _begin(self, command: Command, at: Path) -> None:
        if command is JUDGE:
            shutil.copytree(self.undisturbed(SWEEP), at)
        else:
            at.mkdir()

    def check(self, ended: Ended, what: str) -> None:
        """Count a failure that is not one clear line."""
        if ended.unclear:
            self.note("unclear", f"{what}: {ended.unclear}")

    def finish(self, command: Command, at: Path, what: str) -> None:
        """Let a command go on, anew only if it says that it cannot, and compare what it leaves."""
        ended = run(command.work, at, stdin=_keys(command, _answers(at)))
        self.check(ended, f"{what}, then again")
        if ended.code and command.anew:
            ended = run(toolkit(*command.arguments, *command.anew), at)
        if ended.code:
            self.note("lost", f"{what}: does not go on: {ended.err[-300:]}")
            return
        self.compare(command, at, what)

    def compare(self, command: Command, at: Path, what: str) -> None:
        """Count what differs from the undisturbed run."""
        left, whole = left_by(command, at), self.whole[command.name]
        if left != whole:
            other = [name for name in whole.keys() | left.keys() if whole.get(name) != left.get(name)]
            self.note("differences", f"{what}: {sorted(other)[:4]} {str(left.get('unreadable', ''))[-300:]}")

    def note(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        self.found.append(f"{kind}: {what}")
        sys.stderr.write(f"{self.found[-1]}\n")


def _keys(command: Command, answered: int) -> str:
    return "\n".join(KEYS[answered:]) + "\n" if command is JUDGE else ""


def _answers(at: Path) -> int:
    """Whole lines of the journal below its head."""
    try:
        return max((at / "out" / "judgements" / "judgements.tsv").read_bytes().count(b"\n") - 1, 0)
    except OSError:
        return 0


def kills(trials: Trials, command: Command, times: int) -> None:
    """SIGKILL at random moments, up to four times in a row, then on to the end."""
    trials.undisturbed(command)
    killed = 0
    while killed < times:
        at = trials.fresh(command)
        before = 0
        for _ in range(trials.random.randint(1, 4)):
            moment = trials.random.uniform(0.0, 1.1 * trials.seconds[command.name])
            ended = run(command.work, at, kill_after_s=moment, stdin=_keys(command, _answers(at)))
            trials.check(ended, f"{command.name} killed after {moment:.3f} s")
            if ended.code is None:
                killed += 1
                trials.counts["kills"] += 1
            if command is JUDGE:
                # A document is shown when the answer before it is kept.
                shown = ended.out.count("╭─ query")
                if _answers(at) < before + shown - 1:
                    trials.note("lost", f"judge: {shown} shown after {before}, {_answers(at)} kept")
                before = _answers(at)
        kept = _kept(command, at)
        trials.finish(command, at, f"{command.name} killed after {moment:.3f} s")
        for path, stamp in kept.items():
            if not path.exists() or path.stat().st_mtime_ns != stamp:
                trials.note("lost", f"{command.name} killed after {moment:.3f} s: {path.name} was made again")
        shutil.rmtree(at)


def _kept(command: Command, at: Path) -> dict[Path, int]:
    """Files that are written once and must outlive a kill."""
    patterns = {"sweep": ("out/raw/*.neighbours.npz", "out/raw/*.build.json", "cache/*/*.safetensors")}
    patterns |= {
        "embed": ("out/*/*.safetensors",),
        "mteb": ("out/results/*/*/*.json", "cache/*/*.safetensors"),
    }
    found = [path for pattern in patterns.get(command.name, ()) for path in at.glob(pattern)]
    return {path: path.stat().st_mtime_ns for path in found if path.name != "model_meta.json"}


def disk_full(trials: Trials, command: Command, times: int) -> None:
    """A disk that is too small, a tmpfs where one may mount; else no file larger than so much. Then room is made."""
    whole = trials.undisturbed(command)
    sizes = [path.stat().st_size for path in whole.rglob("*") if path.is_file()]
    for _ in range(times):
        at = trials.fresh(command)
        begins = sum(path.stat().st_size + 4096 for path in at.rglob("*")) if command is JUDGE else 0
        room = 4096 * trials.random.randint(1, max(2, (sum(sizes) + 4096 * len(sizes) - begins) // 4096))
        with _small_disk(at, begins + room) as grow:
            limit = None if grow else trials.random.randint(0, max(sizes))
            ended = run(command.work, at, stdin=_keys(command, 0), largest_file=limit)
            what = (
                f"{command.name} on a disk of {room} bytes"
                if grow
                else f"{command.name}, files up to {limit} bytes"
            )
            trials.check(ended, what)
            trials.counts["disk_full"] += 1
            trials.counts["disk_full_that_failed"] += bool(ended.code)
            if grow:
                grow()
            trials.finish(command, at, what)
        shutil.rmtree(at)


@contextlib.contextmanager
def _small_disk(at: Path, size: int):
    """The folder as a tmpfs of that size, with what was in it; yields what enlarges it, None where it may not be."""
    aside = at.with_name(f"{at.name}.aside")
    shutil.copytree(at, aside)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at], capture_output=True)
    if mounted.returncode:
        shutil.rmtree(aside)
        yield None
        return
    try:
        with contextlib.suppress(shutil.Error, OSError):
            shutil.copytree(aside, at, dirs_exist_ok=True)
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", at], check=True)
    finally:
        subprocess.run(["umount", at], check=True)
        shutil.rmtree(aside)


HARMS = ("cut short", "emptied", "a byte flipped", "random bytes", "removed")


def corruptions(trials: Trials, command: Command, *, most_per_kind: int = len(HARMS)) -> None:
    """Every kind of file that a run left, each harmed in several ways; readers meet it first, then it goes on."""
    whole = trials.undisturbed(command)
    kinds: dict[str, list[Path]] = {}
    for path in sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file()):
        kind = re.sub(r"[0-9a-f]{8,}", "*", path.as_posix())
        kind = re.sub(
            r"(^|/)[^/]*\.(neighbours\.npz|timing\.npz|build\.json|conditions\.json)$", r"\1*.\2", kind
        )
        kinds.setdefault(re.sub(r"charts/.*\.", "charts/*.", kind), []).append(path)
    for kind, paths in kinds.items():
        for harm in trials.random.sample(HARMS, min(most_per_kind, len(HARMS))):
            at = trials.fresh(command, of=whole)
            harmed = at / trials.random.choice(paths)
            _harm(harmed, harm, trials.random)
            what = f"{command.name}: {kind} {harm}"
            trials.counts["corruptions"] += 1
            if command in (SWEEP, JUDGE):
                reader = trials.random.choice(("recommend", "report"))
                trials.check(run(toolkit(reader, "out"), at), f"{what}, {reader}")
            if command is JUDGE:
                trials.check(run(command.work, at, stdin="0\n1\nq\n"), what)
            else:
                trials.finish(command, at, what)
            shutil.rmtree(at)


def _harm(path: Path, harm: str, choose: random.Random) -> None:
    content = path.read_bytes()
    if harm == "removed":
        path.unlink()
        return
    if harm == "cut short":
        content = content[: choose.randrange(max(len(content), 1))]
    elif harm == "emptied":
        content = b""
    elif harm == "random bytes":
        content = choose.randbytes(len(content))
    elif content:
        at = choose.randrange(len(content))
        content = content[:at] + bytes([content[at] ^ 1 << choose.randrange(8)]) + content[at + 1 :]
    path.write_bytes(content)


def revoked(trials: Trials, command: Command) -> None:
    """Folders that may not be written and files that may not be read, by somebody who is not root."""
    whole = trials.undisturbed(command)
    places = {"cache", "out", "out/raw", "out/judgements"} & {
        path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_dir()
    }
    files = [path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()]
    for place in [*sorted(places), *trials.random.sample(sorted(files), min(6, len(files))), ""]:
        begun = place in files or trials.random.random() < 0.5
        at = trials.fresh(command, of=whole if begun else None)
        if place and not (at / place).exists():
            (at / place).mkdir(parents=True)
        for path in (at, *at.rglob("*")):
            if not os.getuid():
                os.chown(path, NOBODY, NOBODY)
        mode = (at / place).stat().st_mode
        (at / place).chmod(0o000 if place in files else 0o555)
        what = f"{command.name}: {place or 'its folder'} refused"
        ended = run(command.work, at, unprivileged=True, stdin=_keys(command, 0))
        trials.check(ended, what)
        trials.counts["permissions"] += 1
        (at / place).chmod(mode)
        if command is not JUDGE:
            trials.finish(command, at, what)
        shutil.rmtree(at)


def hostile_servers(trials: Trials, modes: Sequence[str] = MODES, *, each: int = 1) -> None:
    """A sweep over a server that lies from some request on, then with the honest one."""
    with HostileServer(trials.folder) as server:
        remote = (
            f'[embedder]\nkind = "remote"\nbase_url = "{server.url}"\nmodel = "{MODEL}"\nbatch_size = 16\n'
            "retries = 1\ntimeout_s = 1.0\nconcurrency = 2\n"
        )
        plan = PLAN.replace("[64]", "[24]").replace("{embedder}", "") + remote
        (trials.folder / "data" / "remote.toml").write_text(plan)
        command = Command("remote", ("sweep", "../data/remote.toml", "--out", "out"), SWEEP.left, SWEEP.anew)
        whole = trials.undisturbed(command)
        right = looked_at(lambda: quality(whole), whole)
        for mode in modes:
            for honest in trials.random.sample((0, 1, 2, 3, 5), each):
                at = trials.fresh(command)
                what = f"server {mode} after {honest} requests"
                server.behave(mode, honest=honest)
                ended = run(command.work, at)
                trials.check(ended, what)
                trials.counts["hostile_servers"] += 1
                if ended.code and mode in BORNE:
                    trials.note("differences", f"{what}: {ended.err[-200:]}")
                server.behave()
                if mode == "rounded" and ended.code == 0:
                    now = looked_at(lambda at=at: quality(at), at)
                    if any(abs(now[name] - right[name]) > 0.02 for name in right):
                        trials.note("differences", f"{what}: {now}")
                else:
                    trials.finish(command, at, what)
                shutil.rmtree(at)


def concurrent(trials: Trials, times: int) -> None:
    """Several writers of one cache, and of one results folder; one of them is killed at times."""
    for turn in range(times):
        for command, writers in ((EMBED, 3), (SWEEP, 3)):
            trials.undisturbed(command)
            at = trials.fresh(command)
            begun = time.monotonic()
            running = [start(command.work, at) for _ in range(writers)]
            if turn % 2:
                time.sleep(trials.random.uniform(0, trials.seconds[command.name]))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(running[0][0], 9)
            for pid, words in running:
                trials.check(end(pid, words, begun), f"{command.name}, {writers} at once")
            trials.counts["concurrent_writers"] += writers
            trials.finish(command, at, f"{command.name}, {writers} at once")
            shutil.rmtree(at)


def served(trials: Trials, times: int) -> None:
    """A server killed under its clients and started again on its port: every answer that came was right."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    texts = [f"text {i}" for i in range(8)]
    work = toolkit("serve", "--embedder", "static", "--port", str(port))
    at = trials.fresh(EMBED)
    right = None
    for _ in range(times + 1):
        begun = time.monotonic()
        pid, words = start(work, at)
        answered = _asked(port, texts, within_s=30)
        right = right or answered
        until = time.monotonic() + trials.random.uniform(0, 0.3)
        while answered is not None and time.monotonic() < until:
            if answered != right:
                trials.note("differences", "serve: another answer than before the kill")
            answered = _asked(port, texts, within_s=0)
        if answered is None:
            trials.note("lost", "serve: does not answer after a kill")
        os.kill(pid, 9)
        end(pid, words, begun)
        trials.counts["kills"] += 1


def _asked(port: int, texts: list[str], *, within_s: float) -> object:
    until = time.monotonic() + within_s
    body = json.dumps({"model": "wordllama-l2-supercat-256", "input": texts})
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = json.loads(answer.read())
            if answer.status == 200:
                return [entry["embedding"] for entry in content["data"]]
            said = content
        except (OSError, http.client.HTTPException):
            said = None
        finally:
            connection.close()
        if time.monotonic() > until:
            if said:
                sys.stderr.write(f"serve answers {said}\n")
            return None
        time.sleep(0.05)
