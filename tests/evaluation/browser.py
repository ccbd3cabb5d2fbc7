"""A headless Chromium, spoken to by its own driver over the loopback interface."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 30.0


class Browser:
    """One window.

    Args:
        chromium: the browser.
        driver: chromedriver.
    """

    def __init__(self, chromium: str, driver: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._url = f"http://127.0.0.1:{port}"
        try:
            self._wait()
            flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--window-size=1400,1400"]  # fmt: skip
            wanted = {
                "goog:chromeOptions": {"binary": chromium, "args": flags}, "goog:loggingPrefs": {"browser": "ALL"},
            }  # fmt: skip
            session = self._send("/session", {"capabilities": {"alwaysMatch": wanted}})
            self._url += f"/session/{session['sessionId']}"
        except BaseException:
            self._process.kill()
            raise

    def _wait(self) -> None:
        """Wait until the driver listens."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._send("/status", method="GET")
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _send(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def open(self, path: Path) -> None:
        self._send("/url", {"url": path.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """Run JavaScript and return what it returns."""
        return self._send("/execute/sync", {"script": script, "args": []})

    def errors(self) -> list[str]:
        """Everything that the page has put into the console since the last call."""
        return [entry["message"] for entry in self._send("/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._send("/screenshot", method="GET")))

    def close(self) -> None:
        try:
            self._send("", method="DELETE")
        finally:
            self._process.kill()
            self._process.wait()


def find_browser() -> tuple[str, str]:
    """Return Chromium and its driver, or skip the test."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("NOT TESTED IN A BROWSER: no chromium and chromedriver; apt-get install chromium chromium-driver")
    return chromium, driver
