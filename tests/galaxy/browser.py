"""What a person sees in the portal, by Playwright and the system's Chromium: run with .planemo's interpreter.

    browser.py forms URL OUT TOOL...        opens each tool's form
    browser.py predict URL OUT FILE         uploads FILE, runs xmodal predict, looks at the report and the plot

Pictures go to OUT; what was seen goes to stdout as JSON. Nothing is judged here: tests/test_galaxy_browser.py does.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Request, sync_playwright

CHROMIUM = "/usr/bin/chromium"
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SLOW = 180_000  # ms: machines are shared
QUIET = 1500  # ms in which the last parts of a page come
GREEN, RED = ".content-item[data-state=ok]", ".content-item[data-state=error]"


class Errors(list[str]):
    """What the page says to the console as an error, throws, or cannot load."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        page.on("console", lambda message: self.append(f"console: {message.text}") if message.type == "error" else None)
        page.on("pageerror", lambda error: self.append(f"thrown: {error}"))
        page.on("requestfailed", self._failed)
        page.on(
            "response", lambda answer: self.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None
        )

    def _failed(self, request: Request) -> None:
        # What is being loaded when another page is opened is no error.
        if request.failure != "net::ERR_ABORTED":
            self.append(f"not loaded: {request.url} {request.failure}")


def forms(page: Page, url: str, out: Path, tools: list[str]) -> dict[str, Any]:
    """What each tool's form says: its text, its alerts, and whether the pictures of its help are there."""
    seen = {}
    for tool in tools:
        page.goto(f"{url}/?tool_id={tool}")
        page.wait_for_selector("#execute")
        page.wait_for_timeout(QUIET)
        pictures = page.locator("#center img")
        pictures.evaluate_all("all => all.forEach(one => one.scrollIntoView())")
        seen[tool] = {
            "text": page.locator("#center").inner_text(),
            "alerts": page.locator("#center .alert-danger").all_inner_texts(),
            "pictures": pictures.evaluate_all("all => all.map(one => one.naturalWidth)"),
        }
        page.locator("#execute").first.scroll_into_view_if_needed()
        page.screenshot(path=out / f"{tool}.png")
    return seen


def predict(page: Page, url: str, out: Path, file: Path) -> dict[str, Any]:
    """Upload, run, and look at what came out; ``run_s``: seconds from Run to the last green dataset."""
    page.goto(url)
    page.wait_for_selector("#activity-upload")
    page.frame_locator("iframe#frame").get_by_role("link", name="Predict").first.wait_for()
    page.wait_for_timeout(QUIET)
    page.screenshot(path=out / "welcome.png")
    page.frame_locator("iframe#frame").get_by_role("link", name="Predict").first.click()
    page.wait_for_selector("#execute")
    upload(page, file)
    page.wait_for_timeout(QUIET)
    page.screenshot(path=out / "form.png")
    began = time.monotonic()
    page.locator("#execute").first.click()
    page.wait_for_selector(".content-item >> nth=6")
    page.wait_for_function(f"document.querySelectorAll('{GREEN}').length == 7 || document.querySelector('{RED}')")
    seconds = round(time.monotonic() - began, 1)
    page.wait_for_timeout(QUIET)
    page.screenshot(path=out / "done.png")
    names = page.locator(".content-item .name").all_inner_texts()
    return {"run_s": seconds, "datasets": names, "failed": page.locator(RED).count(), **looked_at(page, out)}


def upload(page: Page, file: Path) -> None:
    page.click("#activity-upload")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose local file").click()
    chooser.value.set_files(file)
    page.click("#btn-start:visible:enabled")
    page.click("#btn-close:visible")
    page.wait_for_selector(GREEN)


def looked_at(page: Page, out: Path) -> dict[str, Any]:
    """The report as it stands in the middle of the page, and the size in which the plot is shown."""
    view(page, "report")
    page.wait_for_selector("iframe#frame")
    frame = page.frame_locator("iframe#frame")
    frame.locator("h1").wait_for()
    page.wait_for_timeout(QUIET)
    page.screenshot(path=out / "report.png")
    report = frame.locator("body").inner_text()
    styled = frame.locator("body").evaluate("body => getComputedStyle(body).fontFamily")
    pictures = frame.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
    view(page, "plot")
    plot = page.locator("#center img[src*=display]").first
    plot.wait_for()
    page.wait_for_timeout(QUIET)
    page.screenshot(path=out / "plot.png")
    return {"report": report, "font": styled, "pictures": pictures, "plot": plot.evaluate("one => one.naturalWidth")}


def view(page: Page, name: str) -> None:
    page.locator(".content-item", has_text=f": {name}").locator("a[title=View]").click()


def main() -> int:
    job, url, out, *rest = sys.argv[1:]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(SLOW)
        errors = Errors(page)
        began = time.monotonic()
        seen = forms(page, url, folder, rest) if job == "forms" else predict(page, url, folder, Path(rest[0]))
        browser.close()
    sys.stdout.write(
        json.dumps({"seen": seen, "errors": errors, "seconds": round(time.monotonic() - began, 1)}, indent=1)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
