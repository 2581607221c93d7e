"""A JupyterLab of one's own, and a page of it in a browser, for tests that use notebooks as people do."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

_HEIGHT_PX = 1000
# No news to ask for, and every cell in the page whether it is on the screen or not.
_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
# The page shows an error as it shows what goes to stderr; the notebook's model tells them apart.
_CELLS = "jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code')"
_ERRORS = f"""{_CELLS}.flatMap(cell => cell.model.outputs.toJSON())
  .filter(output => output.output_type === 'error').map(output => `${{output.ename}}: ${{output.evalue}}`)"""
# Behind a cell that fails, the others do not run.
_RAN = f"""() => {_CELLS}.every(cell => cell.model.executionState !== 'running')
  && (({_ERRORS}).length > 0 || {_CELLS}.every(cell => cell.model.executionCount !== null))"""
_CONTRAST = """node => {
  const paper = element => {
    for (; element; element = element.parentElement) {
      const found = getComputedStyle(element).backgroundColor;
      if (!/, 0\\)$|transparent/.test(found)) return found;
    }
    return 'rgb(255, 255, 255)';
  };
  const luminance = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(node);
  const ink = luminance(node instanceof SVGElement ? style.fill : style.color), back = luminance(paper(node));
  return (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
}"""


class Lab:
    """A server that runs, and the folder that its notebooks lie in."""

    def __init__(self, url: str, token: str, folder: Path) -> None:
        self.url, self.token, self.folder = url, token, folder

    @contextmanager
    def open(self, browser, name: str) -> Iterator[Notebook]:
        """A notebook in a page of its own, its kernel ready; the kernel ends with it."""
        page = browser.new_page(viewport={"width": 1280, "height": _HEIGHT_PX})
        page.set_default_timeout(120_000)
        page.goto(f"{self.url}/lab/workspaces/{secrets.token_hex(4)}/tree/{name}.ipynb?token={self.token}")
        page.locator(".jp-StatusBar-Left").get_by_text(re.compile(r"Python 3 .*\| Idle")).wait_for()
        page.evaluate("jupyterapp.shell.collapseLeft()")
        try:
            yield Notebook(page)
        finally:
            for one in page.request.get(f"{self.url}/api/sessions?token={self.token}").json():
                page.request.delete(f"{self.url}/api/sessions/{one['id']}?token={self.token}")
            page.close()


class Notebook:
    """A notebook's page."""

    def __init__(self, page) -> None:
        self.page = page

    def menu(self, *steps: str) -> None:
        """Press through the menu bar."""
        bar, *items = steps
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{bar}$")).click()
        for item in items:
            self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{re.escape(item)}$")).click()

    def theme(self, name: str) -> None:
        """``Light`` or ``Dark``."""
        self.menu("Settings", "Theme", f"JupyterLab {name}")
        self.page.locator(f"body[data-jp-theme-name='JupyterLab {name}']").wait_for(state="attached")

    def wait_until_run(self) -> None:
        """Until every cell has run, without an error."""
        self._wait_until_idle()
        assert self.errors == []

    def wait_until_stopped(self) -> None:
        """Until no cell runs, because one of them ended in an error."""
        self._wait_until_idle()
        assert self.errors

    def _wait_until_idle(self) -> None:
        self.page.wait_for_function(_RAN, timeout=240_000)

    @property
    def errors(self) -> list[str]:
        """What cells ended with, other than well: ``name: message``."""
        return self.page.evaluate(_ERRORS)

    def select(self, words: str) -> None:
        """Make the cell with these words in its code the current one."""
        self.page.locator(".jp-CodeCell .jp-InputArea-editor", has_text=words).click()

    def narrow(self, width_px: int) -> None:
        """As in a window of this width."""
        self.page.set_viewport_size({"width": width_px, "height": _HEIGHT_PX})

    def outputs(self, inside: str):
        """Elements in what cells gave."""
        return self.page.locator(f".jp-OutputArea-output {inside}")

    def contrast(self, element) -> float:
        """Of an element's text against what is behind it, as WCAG 2 counts."""
        return element.evaluate(_CONTRAST)

    def picture(self, name: str) -> None:
        """The screen as a small picture in the folder that SCREENSHOTS names, if it does."""
        if "SCREENSHOTS" not in os.environ:
            return
        from io import BytesIO

        from PIL import Image

        folder = Path(os.environ["SCREENSHOTS"])
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(BytesIO(self.page.screenshot())) as shot:
            shot.convert("RGB").save(folder / f"{name}.webp", quality=50, method=6)


@contextmanager
def jupyterlab(folder: Path) -> Iterator[Lab]:
    """JupyterLab on a free port, its settings and temporary files below `folder`, notebooks in ``folder/notebooks``."""
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    places = {name: folder / name for name in ("config", "data", "runtime", "tmp", "notebooks")}
    for place in places.values():
        place.mkdir(exist_ok=True)
    for name, values in _SETTINGS.items():
        path = places["config"] / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    env = os.environ | {
        "JUPYTER_CONFIG_DIR": str(places["config"]),
        "JUPYTER_DATA_DIR": str(places["data"]),
        "JUPYTER_RUNTIME_DIR": str(places["runtime"]),
        "JUPYTER_TOKEN": token,
        "TMPDIR": str(places["tmp"]),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=0",
        "--LabApp.expose_app_in_browser=True",
        f"--ServerApp.root_dir={places['notebooks']}",
    ]
    with subprocess.Popen(
        command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if "is running at" in line:
                    break
            else:
                pytest.fail(f"JupyterLab did not start: {''.join(said[-5:])}")
            Thread(target=process.stderr.read, daemon=True).start()
            yield Lab(f"http://127.0.0.1:{port}", token, places["notebooks"])
        finally:
            process.terminate()
            process.wait(30)
