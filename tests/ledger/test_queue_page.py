"""The pages of the service in a real browser: whole at each width, with no call elsewhere."""

import pytest

from tests.report.report_browser import CHROMIUM, Browser

pytest.importorskip("cryptography")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from tests.ledger.running_service import Running


class Address(str):
    """What the browser opens, as a path is opened."""

    def as_uri(self):
        return str(self)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with Browser(tmp_path_factory.mktemp("profile"), seconds=300) as opened:
        yield opened


@pytest.fixture
def site(make):
    ledger = make(page=True)
    ledger.request("rows=a0003", id="done-1")
    ledger.request("rows=nobody", id="lost-1")
    ledger.run()
    ledger.request("group=owner-5", id="waits-" + "x" * 60)
    with Running(ledger.folder) as running:
        yield f"http://127.0.0.1:{running.wait().port}"


@pytest.mark.chromium
@pytest.mark.slow
def test_a_browser_shows_queue_report_and_interface_whole_and_asks_nobody(browser, site):
    for path in ("/", "/?state=not%20found", "/docs"):
        for width, dark in ((1280, False), (390, True)):
            browser.open(Address(site + path), width, dark)
            assert browser.complaints() == []
            assert browser.requests() == [site + path]
            wide = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide == [width, width]
    browser.open(Address(site + "/"), 1280)
    rows = browser.evaluate("[...document.querySelectorAll('tbody th')].map(e => e.innerText)")
    assert rows == ["waits-" + "x" * 60, "done-1", "lost-1"]
    link = "document.querySelector('a[href$=\"report.html\"]').href"
    browser.open(Address(browser.evaluate(link)), 1280)
    assert browser.complaints() == []
    assert browser.evaluate("document.title").startswith("Unlearning audit")
    assert browser.evaluate("self.origin") == "null"
