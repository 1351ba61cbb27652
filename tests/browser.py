"""Debian's Chromium without a window, whose microphone plays a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WIDE, PHONE, SMALL = (1280, 760), (360, 740), (320, 640)  # the last is a wide screen at 400 %, too


def require_browser() -> None:
    """Skip where there is none."""
    pytest.importorskip("selenium", reason="the page's tests need the extra `dev`")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium: apt install chromium chromium-driver")


@contextmanager
def browser(profile: Path, microphone: Path | None = None) -> Iterator[Any]:
    """A selenium driver. profile: an empty folder; microphone: a wav file, None for no microphone"""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_experimental_option("prefs", {"download.default_directory": str(profile / "downloads")})
    arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile / 'profile'}"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # which does not start as root
    if microphone is not None:
        arguments += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}%noloop"]
    for argument in arguments:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def show(
    driver: Any, url: str, size: tuple[int, int] = WIDE, theme: str = "light", permission: str = "granted"
) -> None:
    """Open a page in a window of this size, with a system's theme and what its user says to the microphone."""
    permit = {"permission": {"name": "microphone"}, "setting": permission, "origin": url}
    driver.execute_cdp_cmd("Browser.setPermission", permit)
    phone = size in (PHONE, SMALL)
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get(url)
