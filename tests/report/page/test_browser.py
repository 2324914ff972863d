"""The page in a real browser: it opens from a file, asks for nothing, and shows the values of the run's files."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import browser as browsers
from browser import Tab
from made_runs import read, write_run
from refinerl.alignment import align
from refinerl.report.page import building, write_page
from toy import Toy

pytestmark = pytest.mark.slow
Open = Callable[..., Tab]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browsers.chromium() as browser:
        yield browser


@pytest.fixture
def show(chromium: Any) -> Iterator[Open]:
    """Opens pages, and at the end of a test checks that nothing went wrong in them."""
    tabs: list[Tab] = []

    def opened(path: Path, **options: Any) -> Tab:
        tabs.append(Tab(chromium, path, **options))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("browser") / "paper")


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return write_page(run)


@pytest.fixture(scope="module")
def both(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("both")
    return write_page([run, write_run(folder / "plain", gain=0.3, seed=5)], folder / "both.html")


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def column(run: Path, name: str) -> list[float | None]:
    return [row.get(name) for row in rows(run)]


def curve(tab: Tab, name: str) -> dict[str, Any]:
    """The x of a curve, and the values of each of its lines, as the chart draws them."""
    return tab.js(
        """name => { const curve = document.querySelector(`[data-metric="${name}"]`).curve;
           return {x: curve.data[0], labels: curve.main.map(m => m.line.label),
                   lines: curve.main.map(m => Array.from(curve.data[m.index], v => v === undefined ? null : v)),
                   scale: curve.plot.scales.y.distr, bands: curve.plot.bands.length,
                   colours: curve.main.map(m => m.colour)}; }""",
        name,
    )


def wait_for_text(tab: Tab, selector: str, text: str) -> None:
    """Wait until an element holds a text: charts move their cursor in the next frame."""
    script = "([selector, text]) => document.querySelector(selector).innerText.startsWith(text)"
    tab.page.wait_for_function(script, arg=[selector, text], timeout=5000)


def test_the_page_of_a_real_run(toy: Toy, tmp_path: Path, show: Open) -> None:
    run = tmp_path / "run"
    assert toy.run(run, "trainer.steps=3", "algorithm.dynamic_sampling=false") == 0
    tab = show(write_page(run))
    assert curve(tab, "reward/mean")["lines"] == [column(run, "reward/mean")]
    written = [row for step in (1, 2, 3) for row in read(run, step)]
    assert tab.text("#count") == f"{len(written)} rollouts"
    measured = {
        f"{row['step']}/{row['prompt']['id']}/{row['sample']}": row["refinement"]["completion"]
        for row in written
        if row["refinement"] and "logprobs" in row["refinement"]["completion"]
    }
    tab.page.select_option("#kind", "measured")
    assert len(measured) > 0
    assert tab.js("explorer.rows.length") == len(measured)
    for key, completion in measured.items():
        tab.js("key => open(explorer.rows.find(row => row.key === key))", key)
        shown = tab.js("[...document.querySelectorAll('.heat .token')].map(t => Number(t.dataset.nats))")
        assert shown == [-value for value in completion["logprobs"]]


def test_it_opens_without_an_error_or_a_request(page: Path, show: Open) -> None:
    tab = show(page)
    assert tab.page.title() == "paper · refinerl"
    assert tab.text("h1") == "paper"
    assert "The mean reward rose from" in tab.text(".headline")
    assert "DAPO on made/model, constraint dynamic in the loss, β = 0.01. 12 steps." in tab.text(".subject")
    assert tab.page.locator(".notes").count() == 0
    assert not tab.js("fetch('http://127.0.0.1:9/').then(() => true, () => false)")
    assert any(
        "Content Security Policy" in text or "127.0.0.1" in text for text in tab.wrong
    )  # it could not have asked
    tab.wrong.clear()


def test_curves_carry_the_values_of_the_run(run: Path, page: Path, show: Open) -> None:
    tab = show(page)
    for name in ("reward/mean", "constraint/ce", "policy/kl_to_reference", "policy/grad_norm", "time/step"):
        found = curve(tab, name)
        assert found["x"] == list(range(1, 13))
        assert found["lines"] == [column(run, name)], name
    held_out = curve(tab, "evaluate/pass@1")
    assert (held_out["x"], held_out["bands"]) == ([4, 8, 12], 1)  # a line from one evaluation to the next
    shown = tab.js(
        "[...document.querySelectorAll('#sections figure')].filter(f => f.checkVisibility()).map(f => f.dataset.metric)"
    )
    assert {"reward/mean", "refiner/improved_ratio", "policy/entropy", "time/step"} <= set(shown)
    assert "time/sync" not in shown
    tab.page.click("#sections > details:last-of-type > summary")
    assert curve(tab, "time/sync")["lines"] == [[0.25] * 12]
    drawn = tab.js(
        """() => { const {plot} = document.querySelector('[data-metric="reward/mean"]').curve;
           const {width, height} = plot.ctx.canvas;
           const pixels = plot.ctx.getImageData(0, 0, width, height).data;
           let seen = 0; for (let i = 3; i < pixels.length; i += 4) seen += pixels[i] > 0;
           const ticks = plot.axes.map(axis => axis._values.filter(text => text !== '').length);
           return [seen, ticks, plot.axes[0].label]; }"""
    )
    assert drawn[0] > 1000  # pixels
    assert drawn[1][0] >= 3  # ticks
    assert drawn[1][1] >= 3
    assert drawn[2] == "step"


def test_a_value_is_shown_under_the_pointer_and_by_keys(run: Path, page: Path, show: Open) -> None:
    tab = show(page)
    values = column(run, "reward/mean")
    readout = '[data-metric="reward/mean"] .readout'
    assert tab.text(readout) == f"step 12: {values[11]:.4g}".replace("-", "−")
    box = tab.page.locator('[data-metric="reward/mean"] .u-over').bounding_box()
    tab.page.mouse.move(box["x"] + 2, box["y"] + 50)
    wait_for_text(tab, readout, f"step 1: {values[0]:.4g}".replace("-", "−"))
    assert tab.text('[data-metric="policy/entropy"] .readout').startswith("step 1: ")  # the curves move together
    tab.page.mouse.move(5, 5)
    tab.page.focus('[data-metric="constraint/ce"]')
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("ArrowRight")
    wait_for_text(tab, '[data-metric="constraint/ce"] .readout', f"step 2: {column(run, 'constraint/ce')[1]:.4g}")


def test_x_smoothing_and_log_scale(run: Path, page: Path, show: Open) -> None:
    tab = show(page)
    tab.page.check("input[value=tokens]")
    tokens = list(itertools.accumulate(column(run, "tokens/step")))
    assert curve(tab, "reward/mean")["x"] == tokens
    tab.page.check("input[value=time]")
    assert curve(tab, "reward/mean")["x"] == [8.0 * step for step in range(1, 13)]
    tab.page.check("input[value=step]")
    tab.page.check("#log")
    assert curve(tab, "policy/kl_to_reference")["scale"] == 3  # logarithmic
    assert curve(tab, "reward/mean")["scale"] == 4  # around 0, because it has values below 0
    tab.page.uncheck("#log")
    tab.js("() => { const range = document.getElementById('smoothing'); range.value = 0.5; range.oninput(); }")
    values = column(run, "policy/entropy")
    expected, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = 0.5 * total + 0.5 * value, 0.5 * weight + 0.5
        expected.append(total / weight)
    assert curve(tab, "policy/entropy")["lines"] == [pytest.approx(expected)]


def test_two_runs_are_overlaid(run: Path, both: Path, show: Open) -> None:
    tab = show(both)
    found = curve(tab, "reward/mean")
    assert found["labels"] == ["paper", "plain"]
    assert found["lines"] == [column(run, "reward/mean"), column(both.parent / "plain", "reward/mean")]
    assert len(set(found["colours"])) == 2
    assert tab.texts(".run h2") == ["paper", "plain"]
    tab.page.click("#legend button:first-child")
    assert curve(tab, "reward/mean")["labels"] == ["plain"]
    tab.page.select_option("#which select", "1")
    assert tab.js("explorer.rows.every(row => rolloutsOf(1).includes(row))")
    assert "rollout/plain/" in tab.js("location.hash")


def test_seeds_of_a_name_are_a_band(tmp_path: Path, show: Open) -> None:
    runs = [write_run(tmp_path / "dynamic" / f"seed-{seed}", seed=seed) for seed in range(3)]
    tab = show(write_page(runs, tmp_path / "seeds.html"))
    found = curve(tab, "reward/mean")
    values = list(zip(*(column(run, "reward/mean") for run in runs), strict=True))
    assert (found["labels"], found["bands"]) == (["dynamic · 3 seeds"], 1)
    assert found["lines"] == [pytest.approx([sum(step) / 3 for step in values])]
    ends = tab.js(
        "document.querySelector('[data-metric=\"reward/mean\"]').curve.main[0].points.map(p => [p.low, p.high])"
    )
    assert ends == [[min(step), max(step)] for step in values]
    tab.page.uncheck("#bands")
    assert curve(tab, "reward/mean")["labels"] == [f"dynamic · seed {seed}" for seed in range(3)]


def test_outcomes_and_times_are_stacked(run: Path, page: Path, show: Open) -> None:
    tab = show(page)
    last = [row["reward"]["outcome"] for row in read(run, 12)]
    told = tab.texts("#outcomes .legend [data-part]")
    for name in set(last):
        share = f"{int(100 * last.count(name) / len(last) + 0.5)}%"
        assert any(text.strip() == f"{name.replace('_', ' ')} {share}" for text in told), (name, told)
    sums = tab.js("document.getElementById('outcomes').plot.data.slice(1)")
    assert sums[0] == [1.0] * 12  # the whole
    assert tab.js("document.getElementById('phases').plot.data.slice(1).map(v => v[0])") == [8, 7.75, 7.5, 4.5, 3, 2]


def test_filters_and_order_of_the_explorer(run: Path, page: Path, show: Open) -> None:
    tab = show(page)
    every = [row for step in range(1, 13) for row in read(run, step)]
    assert tab.text("#count") == f"{len(every)} rollouts"

    def keys() -> list[str]:
        return tab.js("explorer.rows.map(row => row.key)")

    def expected(keep: Callable[[dict[str, Any]], bool]) -> set[str]:
        return {f"{r['step']}/{r['prompt']['id']}/{r['sample']}" for r in every if keep(r)}

    def gain(row: dict[str, Any]) -> float:
        z = row["refinement"]
        return -9 if z is None else z["reward"]["value"] - row["reward"]["value"]

    assert tab.js("explorer.rows.map(row => row.refined?.gain ?? -9)") == pytest.approx(
        sorted(map(gain, every), reverse=True)
    )
    tab.page.fill("#from", "3")
    tab.page.fill("#to", "5")
    assert set(keys()) == expected(lambda r: 3 <= r["step"] <= 5)
    tab.page.select_option("#outcome", "compile_error")
    assert set(keys()) == expected(lambda r: 3 <= r["step"] <= 5 and r["reward"]["outcome"] == "compile_error")
    tab.page.fill("#from", "")
    tab.page.fill("#to", "")
    tab.page.select_option("#outcome", "")
    for kind, keep in {
        "accepted": lambda r: r["refinement"] and r["refinement"]["accepted"],
        "rejected": lambda r: r["refinement"] and not r["refinement"]["accepted"],
        "none": lambda r: not r["refinement"],
        "measured": lambda r: r["refinement"] and "logprobs" in r["refinement"]["completion"],
    }.items():
        tab.page.select_option("#kind", kind)
        assert set(keys()) == expected(keep), kind
        assert tab.text("#count") == f"{len(keys())} of {len(every)} rollouts"
    tab.page.select_option("#kind", "all")
    tab.page.fill("#search", "RETRUN")
    assert set(keys()) == expected(lambda r: "retrun" in r["completion"]["text"])
    tab.page.fill("#search", "")
    tab.page.select_option("#sort", "step")
    assert tab.js("explorer.rows.map(row => row.step)") == sorted(row["step"] for row in every)
    tab.page.select_option("#sort", "cost")
    assert tab.js("explorer.rows[0].refined.tokens !== undefined")
    assert tab.page.locator("#list .row").count() < 30  # rows out of sight are no elements


def first_measured(run: Path) -> dict[str, Any]:
    rows = [row for step in range(1, 13) for row in read(run, step)]
    return next(row for row in rows if row["refinement"] and "logprobs" in row["refinement"]["completion"])


def test_the_heat_map_has_the_numbers_of_the_run(run: Path, page: Path, show: Open) -> None:
    row = first_measured(run)
    refined = row["refinement"]["completion"]
    key = f"{row['step']}/{row['prompt']['id']}/{row['sample']}"
    tab = show(page)
    tab.js("key => open(explorer.rows.find(row => row.key === key))", key)
    tokens = tab.js(
        "[...document.querySelectorAll('.heat .token')].map(t => [t.innerText, t.dataset.nats, t.className])"
    )
    assert [float(nats) for _, nats, _ in tokens] == [-value for value in refined["logprobs"]]
    assert tab.js("document.querySelector('.heat').textContent") == row["refinement"]["completion"]["text"]
    marked = [i for i, (_, _, names) in enumerate(tokens) if "first" in names.split()]
    (alignment,) = align([row["completion"]["token_ids"]], [refined["token_ids"]])
    assert marked == [alignment.refined_kept.tolist().index(False)]
    changed = ["changed" in names.split() for _, _, names in tokens]
    assert changed.count(False) / len(changed) == pytest.approx(row["refinement"]["copy_ratio"])
    heats = tab.js(
        "[...document.querySelectorAll('.heat .token')].map(t => parseFloat(t.style.getPropertyValue('--heat')))"
    )
    order = sorted(range(len(heats)), key=lambda i: -refined["logprobs"][i])
    assert [heats[i] for i in order] == sorted(heats)
    token = tab.page.locator(".heat .token.first")
    token.hover()
    value = -refined["logprobs"][marked[0]]
    assert f"{value:.4g} nats, the first changed token" in " ".join(tab.text("#rollout p.readout").split())
    bars = tab.js("document.querySelector('.profile').plot.data")
    assert [a if b is None else b for a, b in zip(*bars[1:], strict=True)] == [-v for v in refined["logprobs"]]
    assert tab.page.locator(".heat").count() == 1
    tab.page.check("#logprobs")
    nats = tab.js(
        "[...document.querySelectorAll('.heat')[1].querySelectorAll('.token')].map(t => Number(t.dataset.nats))"
    )
    assert nats == [-value for value in row["completion"]["logprobs"]]


def test_the_diff_and_both_texts(run: Path, page: Path, show: Open) -> None:
    row = first_measured(run)
    tab = show(page)
    tab.js(
        "key => open(explorer.rows.find(row => row.key === key))",
        f"{row['step']}/{row['prompt']['id']}/{row['sample']}",
    )
    y, z = row["completion"]["text"], row["refinement"]["completion"]["text"]
    tab.page.click("[data-mode=diff]")
    stretches = tab.js(
        "[...document.querySelectorAll('#rollout > .text > span')].map(s => [s.className, s.textContent])"
    )
    assert "".join(text for kind, text in stretches if kind != "inserted") == y
    assert "".join(text for kind, text in stretches if kind != "deleted") == z
    tab.page.click("[data-mode=side]")
    assert tab.js("[...document.querySelectorAll('.two .text')].map(t => t.textContent)") == [y, z]
    assert row["prompt"]["text"] in tab.text("#rollout .question")
    assert tab.text("#rollout .failure") == row["reward"]["failure"]
    told = tab.texts("#rollout .rewards .reward")
    assert told[0].startswith(f"{row['reward']['value']:+.4g}".replace("-", "−"))
    assert told[1] == "+1 passed, 100% of the tests"


def test_a_group_at_a_glance(run: Path, page: Path, show: Open) -> None:
    tab = show(page)
    row = read(run, 7)[0]
    group = [other for other in read(run, 7) if other["prompt"]["id"] == row["prompt"]["id"]]
    tab.js("key => open(explorer.rows.find(row => row.key === key))", f"7/{row['prompt']['id']}/0")
    told = tab.texts(".sibling")
    assert len(told) == len(group) == 4
    for text, other in zip(told, group, strict=True):
        value, advantage = (
            f"{x:+.2f}".rstrip("0").rstrip(".").replace("-", "−")
            for x in (other["reward"]["value"], other["advantage"])
        )
        assert text.split("\n")[-2:] == [value, f"A {advantage}"]
    tab.page.click(".sibling >> nth=2")
    assert "sample 2" in tab.text("#rollout h3")


def test_keys(page: Path, show: Open) -> None:
    tab = show(page)
    press = tab.page.keyboard.press
    places = [tab.js("explorer.at")]
    for key in ("j", "j", "k"):
        press(key)
        places.append(tab.js("explorer.at"))
    assert places == [0, 1, 2, 1]
    for key, mode in (("d", "diff"), ("s", "side"), ("h", "heat")):
        tab.js("open(rolloutsOf(0).find(row => row.refined?.tokens))")
        press(key)
        assert tab.page.get_attribute("[aria-pressed=true][data-mode]", "data-mode") == mode
    press("l")
    assert tab.page.locator(".heat").count() == 2
    press("/")
    tab.page.keyboard.type("jjj")
    assert tab.page.input_value("#search") == "jjj"
    assert tab.text("#count").startswith("0 of ")
    press("Escape")
    assert tab.page.input_value("#search") == ""
    assert not tab.text("#count").startswith("0 of ")
    tab.page.focus("#list")
    press("End")
    assert tab.js("explorer.at === explorer.rows.length - 1")
    assert tab.js(
        "document.querySelector('.row[aria-selected=true]').id === field('list').getAttribute('aria-activedescendant')"
    )
    press("ArrowUp")
    assert tab.js("explorer.at === explorer.rows.length - 2")
    press("?")
    assert tab.page.locator("dialog[open]").count() == 1
    press("Escape")
    assert tab.page.locator("dialog[open]").count() == 0
    press("t")
    assert tab.page.get_attribute("html", "data-theme") == "dark"


def test_a_link_leads_to_its_rollout(run: Path, page: Path, show: Open) -> None:
    row = read(run, 9)[3]
    tab = show(page)
    tab.js("key => open(explorer.rows.find(row => row.key === key))", f"9/{row['prompt']['id']}/{row['sample']}")
    link = tab.page.get_attribute("#rollout a.link", "href")
    assert link == tab.js("location.hash")
    again = show(page, link=link)
    assert f"step 9 · {row['prompt']['id']} · sample {row['sample']}" in again.text("#rollout h3")
    lost = show(page, link="#rollout/paper/99/x/0")
    assert "This page does not hold step 99" in lost.text("#rollout")


@pytest.mark.parametrize("cut", ["#rollout/paper/9/x%2", "#rollout/paper/9/x%2/0", "#rollout/paper/9", "#rollout/%"])
def test_a_link_that_was_cut_leaves_the_page_whole(page: Path, show: Open, cut: str) -> None:
    """It was an error before the curves, the theme and the keys were set up."""
    tab = show(page, link=cut)
    assert tab.text("#rollout h3").startswith("step ")
    tab.page.keyboard.press("t")
    assert tab.page.get_attribute("html", "data-theme") == "dark"


HOSTILE = (
    "</script><script>alert(1)</script><!-- \x00\x07\x1b[31m \u202eevil\u202c \u2066x\u2069 \udc80 &amp; "
    "<img src=x onerror=alert(2)>"
)


def test_hostile_texts_are_texts(tmp_path: Path, show: Open) -> None:
    run = write_run(tmp_path / "run", steps=2)
    lines = read(run, 1)
    for place in (lines[0]["prompt"], lines[0]["completion"], lines[0]["refinement"]["completion"]):
        place["text"] = HOSTILE
        place.pop("pieces", None)
    lines[0]["prompt"]["id"] = "</title>/../%00#\u202e\udc80"
    lines[0]["reward"] |= {"outcome": "</option><b>", "failure": HOSTILE}
    lines[1]["completion"] = {"text": "long " * 200_000, "token_ids": [1], "finish_reason": "stop"}
    lines[1]["refinement"] = None
    (run / "rollouts" / "step-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "config.yaml").write_text(
        (run / "config.yaml").read_text().replace("made/model", "'</pre><script>alert(3)</script>'")
    )
    output = write_page(run)
    assert output.stat().st_size < 2_000_000
    tab = show(output)
    tab.page.on("dialog", lambda dialog: tab.wrong.append(dialog.message))
    tab.js("open(rolloutsOf(0).find(row => row.id.startsWith('</title>')))")
    seen = HOSTILE.replace("\x00", "␀").replace("\x07", "␇").replace("\x1b", "␛")
    for mark in "\u202e\u202c\u2066\u2069\udc80":
        seen = seen.replace(mark, f"⟨U+{ord(mark):04X}⟩")
    tab.page.click("[data-mode=side]")
    assert tab.js("[...document.querySelectorAll('.two .text')].map(t => t.textContent)") == [seen, seen]
    assert tab.js("document.querySelector('#rollout .question').textContent") == seen
    assert tab.js("document.querySelector('#rollout .failure').textContent") == seen
    assert (
        tab.js("document.querySelectorAll('script').length")
        == tab.js("document.querySelectorAll('script[id]').length") + 7
    )
    assert tab.js("document.querySelectorAll('img').length") == 0
    link = tab.page.get_attribute("#rollout a.link", "href")
    tab.js("open(rolloutsOf(0).find(row => row.sample === 1 && row.step === 1))")
    assert "980,000 more characters in rollouts/step-1.jsonl" in tab.text("#rollout")
    again = show(output, link=link)
    assert "⟨U+202E⟩" in again.text("#rollout h3")


def test_ten_thousand_rollouts_open_in_two_seconds(tmp_path: Path, show: Open) -> None:
    run = write_run(tmp_path / "run", steps=6, prompts=1, samples=4)
    for step in range(1, 7):
        lines = read(run, step)
        with (run / "rollouts" / f"step-{step}.jsonl").open("w") as file:
            for group in range(500):
                for line in lines:
                    line["prompt"]["id"] = f"{group}"
                    file.write(json.dumps(line) + "\n")
    output = write_page(run)
    assert output.stat().st_size < 20_000_000
    tab = show(output)
    assert tab.seconds_to_load() < 2
    assert tab.text("#count") == "10,000 rollouts (of 12,000 in the run)"
    assert "The page holds 10,000 of 12,000 rollouts" in tab.text(".notes")
    tab.page.fill("#search", "retrun")
    assert tab.js("explorer.rows.length") > 0


def test_what_a_run_lacks_is_said(tmp_path: Path, show: Open) -> None:
    one = show(write_page(write_run(tmp_path / "one", steps=1)))
    assert "Too few steps to tell a change: 1" in one.text(".headline")
    assert curve(one, "reward/mean")["x"] == [1]
    assert one.js("document.getElementById('outcomes').plot.data[0].length") == 1

    empty = write_run(tmp_path / "empty", steps=0, planned=5, ended=False)
    tab = show(write_page(empty))
    assert tab.text(".headline") == "No step is finished yet."
    assert "There are no rollouts" in tab.text(".notes")
    assert not tab.page.locator("#curves, #explorer").first.is_visible()

    going = write_run(tmp_path / "going", steps=3, planned=50, ended=False)
    tab = show(write_page(going))
    assert "3 steps of 50" in tab.text(".subject")
    assert "The run has no final/: it goes on, or was stopped after step 3 of 50." in tab.text(".notes")

    cut = write_run(tmp_path / "cut", steps=4)
    for file in ("metrics.jsonl", "rollouts/step-4.jsonl"):
        (cut / file).write_text((cut / file).read_text()[:-40])
    tab = show(write_page(cut))
    assert "The last line of metrics.jsonl is cut off and left out." in tab.text(".notes")
    assert "The last line of rollouts/step-4.jsonl is cut off and left out." in tab.text(".notes")
    assert curve(tab, "reward/mean")["x"] == [1, 2, 3]

    older = write_run(tmp_path / "older", steps=3, measured=0)
    for step in (1, 2, 3):
        lines = read(older, step)
        for line in lines:
            line["schema"] = 1
            del line["advantage"]
        (older / "rollouts" / f"step-{step}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tab = show(write_page([older, cut], tmp_path / "mixed.html"))
    assert "Rollouts have schema 1, of an earlier version of refinerl" in tab.text(".notes")
    tab.js("open(rolloutsOf(0).find(row => row.refined))")
    assert tab.page.locator("[data-mode=heat]").is_disabled()
    assert tab.page.locator("[data-mode=diff][aria-pressed=true]").count() == 1
    assert tab.page.locator("#rollout .inserted").count() > 0


THEMES = ({"paper": "rgb(253, 253, 251)", "line": "#1f5fa8"}, {"paper": "rgb(20, 21, 23)", "line": "#84b4ec"})
"""Colours of the page and of its first curve, light and dark."""
DRAWN = """() => {
    const canvas = document.querySelector('[data-metric="reward/mean"] canvas');
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const wanted = css("--line-1").match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16));
    for (let i = 0; i < data.length; i += 4) if (wanted.every((part, k) => data[i + k] === part)) return true;
    return false;
}"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colours_are_the_systems_until_the_switch_is_used(page: Path, show: Open, dark: bool) -> None:
    tab = show(page, dark=dark)
    background = "getComputedStyle(document.documentElement).backgroundColor"

    def check(theme: dict[str, str]) -> None:
        assert {"paper": tab.js(background), "line": tab.js("css('--line-1')")} == theme
        tab.page.wait_for_function(DRAWN)

    def system(dark: bool) -> None:
        tab.page.emulate_media(color_scheme="dark" if dark else "light")

    check(THEMES[dark])
    system(not dark)
    check(THEMES[not dark])
    system(dark)
    tab.page.keyboard.press("t")
    check(THEMES[not dark])
    system(not dark)
    check(THEMES[not dark])  # as the switch says
    tab.page.keyboard.press("t")
    check(THEMES[dark])


def test_a_colour_stands_once_in_the_sheet() -> None:
    sheet = (Path(building.__file__).parent / "page.css").read_text("utf-8")
    names = re.findall(r"(?m)(?:^|[;{])\s*(--[\w-]+):", sheet)
    assert len(names) > 30
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_a_desk_and_a_phone(both: Path, show: Open, width: int, dark: bool) -> None:
    tab = show(both, width=width, dark=dark)
    tab.js("open(rolloutsOf(0).find(row => row.refined?.tokens))")
    name = f"page-{width}-{'dark' if dark else 'light'}"
    whole = tab.shot(name, full_page=True)
    assert len(whole) > 20_000
    assert tab.js("document.documentElement.scrollWidth") <= width
    paper = tab.js("getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 200) == dark
    if width == 390:
        small = "[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.offsetHeight < 30).length"
        assert tab.js(small) == 0  # fingers find every button
        tab.js(
            """() => { const over = document.querySelector('[data-metric="reward/mean"] .u-over');
               const box = over.getBoundingClientRect();
               const touch = new Touch({identifier: 1, target: over, clientX: box.x + 1, clientY: box.y + 20});
               over.dispatchEvent(new TouchEvent('touchstart', {touches: [touch]})); }"""
        )
        wait_for_text(tab, '[data-metric="reward/mean"] .readout', "step 1:")
