"""Look at a report in headless Chromium, and write the picture of its card for the README.

    python docs/images/look_at_report.py runs/NAME/report.html [docs/images/card.png]

Needs Playwright (`pip install playwright`) and Chromium (Debian's package), neither of which the project installs. The
exit code is 1 for a console message, a request, a picture that is not at its natural size or has no text, or a table
that does not sort.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

SIZES = "() => [...document.images].filter(i => i.naturalWidth != i.clientWidth || !i.alt).map(i => i.alt || 'no alt')"
COLUMN = "h => [...h.closest('table').tBodies[0].rows].map(row => parseFloat(row.cells[h.cellIndex].textContent))"


def faults(page: Page, url: str) -> list[str]:
    """Open the report and return what is wrong with it."""
    found: list[str] = []
    page.on("console", lambda message: found.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("request", lambda request: None if request.url.startswith(("data:", url)) else found.append(request.url))
    page.goto(url)
    found += [f"not at its natural size, or without a text: {text}" for text in page.evaluate(SIZES)]
    head = page.locator("th", has_text="force MAE").last
    for order in (1, -1):
        head.click()
        values = head.evaluate(COLUMN)
        if values != sorted(values, key=lambda value: order * value):
            found.append(f"a table is not sorted: {values}")
    return found


def main(report: Path, picture: Path | None) -> int:
    """Print the faults in light and dark; take the picture in light."""
    found: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for scheme in ("dark", "light"):
            page = browser.new_page(viewport={"width": 1080, "height": 1200}, color_scheme=scheme)
            found += faults(page, report.resolve().as_uri())
        if picture:
            page.evaluate("window.scrollTo(0, 0)")
            bottom = page.locator(".figures").first.bounding_box()
            page.screenshot(
                path=picture, clip={"x": 0, "y": 0, "width": 1080, "height": bottom["y"] + bottom["height"]}
            )
        browser.close()
    print("\n".join(found) or "nothing is wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
