"""The page in a browser, with the embedded model behind it."""

import base64
import json
import subprocess

import pytest
from browsing import Shown, browsing
from noise import noise
from PIL import Image
from serving import HTTP, KEY, serving

from prumerge.tiny import samples


@pytest.fixture(scope="module")
def browser():
    with browsing() as driver:
        yield driver


@pytest.fixture
def page(server, browser):
    """The page, whose console stays empty, and which asks its server alone."""
    shown = Shown(browser, server.url)
    shown.console(), shown.requests()
    shown.open()
    yield shown
    assert shown.console() == []
    own = (server.url, "data:", "blob:")
    assert [url[:80] for url in shown.requests() if not url.startswith(own)] == []


@pytest.fixture
def keys():
    from selenium.webdriver.common.keys import Keys

    return Keys


def ask(page, text=None):
    """Ask, and wait for both answers."""
    if text is not None:
        page.at("question").clear()
        page.at("question").send_keys(text)
    page.at("send").click()
    page.until(lambda: page.states == ["done", "done"])
    return [one.text for one in page.all(".said")]


def choose(page, method):
    from selenium.webdriver.support.ui import Select

    Select(page.at("method")).select_by_visible_text(method)


def test_it_opens_with_a_sample_drawn_and_a_question_ready(page):
    assert page.at("model").text == "tiny"
    assert page.at("count").text == str(page.kept)
    assert page.at("of").text.startswith("of 576 visual tokens, ")
    assert page.at("question").get_attribute("value") == samples()[0].questions[0].text
    assert len(page.all("#samples button")) == 6


def test_a_picture_is_uploaded_and_drawn_in_its_own_shape_of_patches(page, tmp_path):
    before = page.kept
    wide = Image.open(samples()[1].path).resize((500, 300))
    wide.save(tmp_path / "wide.png")
    page.at("file").send_keys(str(tmp_path / "wide.png"))
    page.until(lambda: page.kept not in (0, before))
    assert page.at("error").text == ""
    assert page.all("#samples [aria-pressed=true]") == []
    assert page.at("canvas").size["width"] == page.at("canvas").size["height"]


def test_a_picture_is_dropped_anywhere(page):
    before = page.kept
    page.run(
        "const file = (name, bytes) => new File([bytes], name, {type: 'image/jpeg'});"
        "const bytes = Uint8Array.from(atob(arguments[0]), (one) => one.charCodeAt());"
        "const dataTransfer = new DataTransfer(); dataTransfer.items.add(file('mine.jpg', bytes));"
        "document.body.dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true, cancelable: true}))",
        base64.b64encode(samples()[4].path.read_bytes()).decode(),
    )
    page.until(lambda: page.kept not in (0, before))


def test_a_large_picture_is_made_smaller_before_it_is_sent(page, tmp_path):
    noise((2200, 1100)).save(tmp_path / "large.png")
    page.at("file").send_keys(str(tmp_path / "large.png"))
    page.says("took", "sent as 1600 x 800 pixels")


def test_a_sample_brings_its_questions_and_no_token_of_another(page, keys):
    before = page.at("count").text
    page.at("canvas").send_keys(keys.END)
    page.all("#samples button")[3].click()
    page.until(lambda: page.at("count").text != before)
    assert page.at("token").text == ""
    assert [one.text for one in page.all("#questions button")] == [q.text for q in samples()[3].questions]


def test_the_slider_redraws_as_many_tokens_as_it_says(page):
    choose(page, "pool")
    page.says("summary", "Average pooling")
    counts = []
    for place in (8, 14, 100):
        page.slide(place)
        wanted = page.at("budget").get_attribute("aria-valuetext")
        page.until(lambda wanted=wanted: wanted == f"{page.kept} tokens")
        counts.append(page.kept)
    assert counts == sorted(set(counts)) and counts[-1] == 576
    page.at("own").click()
    page.until(lambda: page.kept == 36)


def test_of_many_moves_the_last_one_counts(page):
    page.run(
        "for (const place of [50, 40, 30, 20, 10]) {"
        "arguments[0].value = place; arguments[0].dispatchEvent(new Event('input')); }",
        page.at("budget"),
    )
    last = int(page.at("budget").get_attribute("aria-valuetext").removesuffix(" tokens"))
    page.until(lambda: page.kept == last + 1)  # and one for all the rest


def test_what_went_into_a_token_is_shown_by_mouse_and_by_arrow_keys(page, keys):
    canvas = page.at("canvas")
    canvas.send_keys(keys.ARROW_RIGHT)
    first = page.at("token").text
    assert first.startswith("Token 1 of ") and canvas.get_attribute("data-token") == "0"
    canvas.send_keys(keys.ARROW_DOWN)
    assert page.at("token").text != first
    canvas.send_keys(keys.ESCAPE)
    assert page.at("token").text == ""
    page.run(
        "const box = arguments[0].getBoundingClientRect();"
        "arguments[0].dispatchEvent(new PointerEvent('pointermove',"
        " {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2}))",
        canvas,
    )
    assert page.at("token").text.startswith("Token ")


def test_both_answers_stream_side_by_side_with_tokens_and_milliseconds(page):
    page.run(
        "window.states = []; new MutationObserver(() => states.push("
        "[...document.querySelectorAll('.answer')].map((one) => one.dataset.state).join()))"
        ".observe(document.getElementById('answers'),"
        " {subtree: true, attributes: true, attributeFilter: ['data-state']})"
    )
    assert ask(page, "which shape is blue?") == ["heart", "heart"]
    seen = page.run("return states")
    assert {"streams,waits", "done,streams", "done,done"} <= set(seen)
    few, every = page.all(".answer")
    assert few.location["y"] == every.location["y"] and few.location["x"] < every.location["x"]
    facts = [dict(zip(*[iter(one.text.split("\n")[2:])] * 2, strict=True)) for one in (few, every)]
    assert [one["Visual tokens"] for one in facts] == [str(page.kept), "576"]
    for one in facts:
        assert all(one[stage].endswith((" ms", "cached")) for stage in ("Encode", "Reduce"))
        assert one["First token"].endswith(" ms") and one["Whole answer"].endswith(" ms")
    assert page.at("verdict").text.startswith("The same answer")


def test_a_method_inside_the_language_model_is_asked_though_it_is_not_drawn(page):
    choose(page, "fastv")
    page.says("took", "This method drops tokens while the model answers")
    assert page.kept == 0
    assert ask(page, "which shape is blue?") == ["heart", "heart"]


def test_a_method_that_reads_the_question_draws_anew_for_another_one(page):
    choose(page, "cdpruner")
    page.until(lambda: page.kept == 64)
    page.requests()
    page.at("question").send_keys(" and green?")
    page.until(lambda: f"{page.url}/page/select" in page.requests())


def test_the_line_for_a_shell_is_the_request(page):
    page.slide(20)
    page.until(lambda: page.kept == page.run("return Number(document.getElementById('count').textContent)"))
    origin = page.url.rstrip("/")
    granted = {"origin": origin, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    page.driver.execute_cdp_cmd("Browser.grantPermissions", granted)
    page.at("copy").click()
    page.says("copied", "Copied, with the whole picture")
    line = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    stand_in = 'curl() { printf "%s\\n" "$@"; echo; cat; }\n'
    said = subprocess.run(["bash", "-c", stand_in + line], capture_output=True, text=True, check=True).stdout
    arguments, sent = said.split("\n\n", 1)
    assert f"{origin}/v1/chat/completions" in arguments.split("\n")
    assert json.loads(sent)["reducer"] == "prumerge" and "keep" in json.loads(sent)
    found = HTTP.post(f"{origin}/v1/chat/completions", content=sent.encode()).json()
    assert found["choices"][0]["message"]["content"] == "heart"
    shown = page.at("curl").text
    assert "base64,/9j/4AAQSkZJ…" in shown and len(shown) < 500


def test_everything_is_reached_and_done_by_keyboard(page, keys):
    from selenium.webdriver.common.action_chains import ActionChains

    def press(*pressed):
        ActionChains(page.driver).send_keys(*pressed).perform()

    def focused():
        return page.run("return document.activeElement.id || document.activeElement.name")

    reached = []
    while len(reached) < 30 and focused() != "copy":
        press(keys.TAB)
        reached.append(focused())
    order = [name for name in reached if name]
    assert order == ["file", "canvas", "view", "own", "budget", "method", "question", "send", "copy"]
    before = page.kept
    page.run("arguments[0].focus()", page.at("budget"))
    press(keys.ARROW_LEFT, keys.ARROW_LEFT, keys.ARROW_LEFT)
    page.until(lambda: 0 < page.kept < before)
    page.run("arguments[0].focus()", page.at("question"))
    press(keys.ENTER)
    page.until(lambda: page.states == ["done", "done"])


def test_nothing_is_cut_off_at_phone_width(page):
    ask(page)
    for width in (320, 360, 390):
        page.resize(width, 780)
        assert page.run("return innerWidth") == width
        assert page.run("return document.documentElement.scrollWidth") <= width
        ends = (
            "return [...document.querySelectorAll('main *')].map((one) => one.getBoundingClientRect().right)"
        )
        assert max(page.run(ends)) <= width


def test_a_broken_picture_is_one_sentence(page, tmp_path):
    before = page.kept
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    page.at("file").send_keys(str(tmp_path / "broken.png"))
    page.says("error", "his file is no picture that the browser can open; take a JPEG, PNG, WebP or GIF")
    assert page.kept == before


def test_what_the_server_refuses_is_its_sentence(page):
    page.at("question").clear()
    page.at("question").send_keys("<image>")
    page.at("send").click()
    page.until(lambda: page.states == ["failed", "failed"])
    assert all("<image>" in one.text for one in page.all(".said"))
    assert all("400" in line for line in page.console())


def test_a_key_is_asked_for_once_and_kept_in_the_tab(tiny, browser):
    with serving(*tiny, key=KEY) as server:
        page = Shown(browser, server.url)
        browser.get(server.url)
        page.until(lambda: page.at("unlock").is_displayed())
        page.at("key").send_keys("wrong")
        page.at("key").submit()
        page.says("error", "he API key is missing or wrong")
        page.until(lambda: page.at("unlock").is_displayed())
        page.at("key").clear()
        page.at("key").send_keys(KEY)
        page.at("key").submit()
        page.until(lambda: page.kept)
        assert ask(page)[0] == "heart"
        assert "$PRUMERGE_API_KEY" in page.at("curl").text and KEY not in page.at("curl").text
        page.open()
        assert not page.at("unlock").is_displayed()
        assert page.run("return localStorage.length + document.cookie.length") == 0
        assert all("401" in line for line in page.console())
