"""Pages in headless Chromium, through the pipe of its DevTools protocol, for the tests of pages.

    class Mine(PageCase):
        def test_page(self):
            self.check_page(folder / "report.html", charts=3)

Without Chromium such tests are skipped and say so.
"""
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from program import Case

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = unittest.skipUnless(CHROMIUM, "no Chromium: tools/setup.sh check installs it")
MOST_BYTES = 5_000_000  # of a page
PATIENCE = 60  # seconds

# A pixel of each series of each chart has the series' colour; what has not is told.
DRAWN = """(() => {
  const parts = (text) => {
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    probe.fillStyle = text; probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data];
  };
  const missing = [];
  for (const canvas of document.querySelectorAll(".chart canvas")) {
    const chart = Chart.getChart(canvas), copy = document.createElement("canvas");
    copy.width = canvas.width; copy.height = canvas.height;
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const bars = chart.config.type === "bar";
    const name = canvas.getAttribute("aria-label"), ratio = chart.currentDevicePixelRatio;
    if (chart.data.datasets.length === 0) missing.push(name + ": no series");
    chart.data.datasets.forEach((series, i) => {
      const wanted = [series.borderColor, series.backgroundColor].map(parts);
      const close = (pixel) => wanted.some((colour) => pixel[3] > 60 &&
        colour.slice(0, 3).every((value, c) => Math.abs(value - pixel[c]) < 60));
      const values = chart.getDatasetMeta(i).data.filter((e) => Number.isFinite(e.x) && Number.isFinite(e.y));
      const there = ({ x, y }) => close(context.getImageData(Math.round(x * ratio), Math.round(y * ratio), 1, 1).data);
      const centres = values.map((e) => e.getCenterPoint());
      const between = (a, b) => [...Array(100).keys()].map((k) => ({ x: a.x + (b.x - a.x) * k / 100, y: a.y + (b.y - a.y) * k / 100 }));
      // A point may lie in a gap of a dashed line, and all of a line's below those of another.
      const dashed = series.borderDash?.length > 0;
      const covered = (c) => chart.data.datasets.some((other, j) => j !== i && other.pointRadius > 0 &&
        chart.getDatasetMeta(j).data.some((e) => Math.hypot(e.x - c.x, e.y - c.y) < 6));
      const seen = centres.some((c, k) => there(c) || (dashed && k > 0 && between(centres[k - 1], c).some(there))) ||
        (centres.length > 0 && !bars && centres.every(covered));
      if (!seen) missing.push(`${name}: series ${series.label} is not there`);
    });
  }
  return missing;
})()"""
# Where the middle point of a chart's first series is, on the screen.
POINT = """(() => {
  const canvas = document.querySelectorAll(".chart canvas")[%d];
  canvas.scrollIntoView({ block: "center" });
  const chart = Chart.getChart(canvas), values = chart.getDatasetMeta(0).data;
  const { x, y } = values[Math.floor(values.length / 2)].getCenterPoint(), box = canvas.getBoundingClientRect();
  return [box.left + x, box.top + y];
})()"""
TOOLTIP = """(() => {
  const { tooltip } = Chart.getChart(document.querySelectorAll(".chart canvas")[%d]);
  return tooltip.opacity > 0 ? tooltip.body.flatMap((part) => part.lines).join("; ") : "";
})()"""


class Browser:
    """A browser process; pages are opened one after another."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="lapidary-chromium-")
        to_read, self.write_end = os.pipe()
        self.read_end, to_write = os.pipe()
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
                   f"--user-data-dir={self.profile}", "about:blank"]
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "sh", *command], pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        os.close(to_read)
        os.close(to_write)
        self.received, self.events, self.number = b"", [], 0

    def close(self):
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.write_end)
        os.close(self.read_end)
        shutil.rmtree(self.profile, ignore_errors=True)

    def message(self, until):
        while b"\0" not in self.received:
            ready, _, _ = select.select([self.read_end], [], [], max(0, until - time.monotonic()))
            if not ready:
                raise RuntimeError(f"Chromium said nothing for {PATIENCE} s")
            part = os.read(self.read_end, 1 << 20)
            if not part:
                raise RuntimeError("Chromium ended")
            self.received += part
        text, self.received = self.received.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, session=None, **params):
        self.number += 1
        command = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.write_end, json.dumps(command).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while True:
            message = self.message(until)
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def wait_for(self, method):
        until = time.monotonic() + PATIENCE
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.message(until))


class Page:
    """A page of a file, at a width and in a colour scheme."""

    def __init__(self, browser, path, width, scheme):
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.scheme(scheme)
        browser.events = []
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        browser.wait_for("Page.loadEventFired")

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def evaluate(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{script[:80]}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def eventually(self, script):
        """The first value of the script that counts as true, or its last."""
        until = time.monotonic() + 5
        while not (value := self.evaluate(script)) and time.monotonic() < until:
            time.sleep(0.05)
        return value

    def hover(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x, y):
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, name):
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}[name]
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if name == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **text)

    def tab_to(self, script):
        """Presses Tab until the script, of the element that has the focus, is true."""
        for _ in range(400):
            self.key("Tab")
            if self.evaluate(f"((element) => {script})(document.activeElement)"):
                return True
        return False

    def complaints(self):
        """Errors of the console, exceptions, and whatever was asked of the network."""
        found = []
        for event in self.browser.events:
            params, method = event.get("params", {}), event.get("method")
            if method == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("file:", "data:")):
                found.append("asks for " + params["request"]["url"])
        return found


@needs_chromium
class PageCase(Case):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    def open(self, path, width=1280, scheme="light"):
        page = Page(self.browser, path, width, scheme)
        self.addCleanup(page.close)
        return page

    def check_page(self, path, charts):
        """What every page keeps: quiet, drawn, legible at 1280 and 400 pixels in light and dark, and its charts say
        their values to pointer and keyboard. `charts` is how many it has."""
        self.assertLess(Path(path).stat().st_size, MOST_BYTES)
        backs = {}
        for width in (1280, 400):
            for scheme in ("light", "dark"):
                with self.subTest(width=width, scheme=scheme):
                    page = self.open(path, width, scheme)
                    self.assertEqual(page.evaluate('document.querySelectorAll(".chart canvas").length'), charts)
                    self.check_drawn(page, charts)
                    self.assertLessEqual(page.evaluate("document.documentElement.scrollWidth"), width)
                    backs[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
                    self.check_tooltips(page, charts)
                    self.assertEqual(page.complaints(), [])
        self.assertNotEqual(backs["light"], backs["dark"])
        page = self.open(path)
        page.scheme("dark")  # while it is looked at
        self.check_drawn(page, charts)
        self.assertEqual(page.complaints(), [])

    def check_drawn(self, page, charts):
        if charts > 0:
            self.assertEqual(page.evaluate(DRAWN), [])

    def check_tooltips(self, page, charts):
        for chart in range(charts):
            self.assertEqual(page.evaluate(TOOLTIP % chart), "")
            page.hover(*page.evaluate(POINT % chart))
            self.assertNotEqual(page.eventually(TOOLTIP % chart), "", f"chart {chart}, by pointer")
        page.hover(1, 1)
        page.evaluate("document.activeElement.blur()")
        for chart in range(charts):
            here = f'element === document.querySelectorAll(".chart canvas")[{chart}]'
            self.assertTrue(page.tab_to(here), f"chart {chart} is not reached by keyboard")
            page.key("ArrowRight")
            first = page.eventually(TOOLTIP % chart)
            self.assertNotEqual(first, "", f"chart {chart}, by keyboard")
            self.assertIn(first.split(";")[0], page.evaluate('document.querySelector(".said").textContent'))
            page.key("ArrowRight")
            points = page.evaluate(f'Chart.getChart(document.querySelectorAll(".chart canvas")[{chart}]).data.datasets[0].data.length')
            at = "Chart.getChart(document.querySelectorAll('.chart canvas')[%d]).tooltip.dataPoints[0].dataIndex" % chart
            self.assertEqual(page.evaluate(at), min(1, points - 1))
            page.key("Escape")
            self.assertTrue(page.eventually(f"({TOOLTIP % chart}) === ''"), f"chart {chart}, after Escape")
