"""A browser without a window, and what it shows."""

import json
import shutil
from contextlib import contextmanager

import pytest
from serving import until

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")


@contextmanager
def browsing():
    """A headless Chromium; the test is skipped where there is none."""
    pytest.importorskip("selenium", reason="selenium drives the browser; pip install selenium")
    if not CHROMIUM or not CHROMEDRIVER:
        pytest.skip("there is no chromium with a chromedriver here; apt install chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Shown:
    """The page of a server in a browser."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url

    def open(self, width=1280, height=900):
        """The page anew, with its first picture drawn."""
        self.resize(width, height)
        self.driver.get(self.url)
        self.until(lambda: self.kept)

    def resize(self, width, height, dark=False):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})

    def at(self, name):
        """The element of an id."""
        return self.driver.find_element("id", name)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, holds):
        until(holds, 15)

    def says(self, name, text):
        """Wait until an element holds a text."""
        self.until(lambda: text in self.at(name).text)

    def slide(self, place):
        """Move the slider, as dragging does."""
        self.run(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
            self.at("budget"),
            place,
        )

    @property
    def kept(self):
        """How many tokens the canvas shows; 0 where it shows none."""
        return int(self.at("canvas").get_attribute("data-kept") or 0)

    @property
    def states(self):
        """How far the answers are."""
        return [one.get_attribute("data-state") for one in self.all(".answer")]

    def console(self):
        """What was written to the console since it was read last."""
        return [one["message"] for one in self.driver.get_log("browser")]

    def requests(self):
        """Where it asked for something since this was read last."""
        events = [json.loads(one["message"])["message"] for one in self.driver.get_log("performance")]
        sent = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent]
