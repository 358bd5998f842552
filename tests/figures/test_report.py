"""The page of a study, in a real Chromium: what it computes is what JAX computes, and it asks no network for anything."""

import json
import re

import numpy as np
import pytest
from support import LINEAR, tiny

import vae_jax.api.trained
from vae_jax.api import pages
from vae_jax.figures import draw
from vae_jax.figures.report import packing
from vae_jax.study import study

pytestmark = pytest.mark.usefixtures("one_run_at_a_time")
HOSTILE = "<script>alert('name')</script><img src=x onerror=alert(1)>"


def weights(name: str, noise_scale: float, beta: float, seed: int = 0) -> dict:
    return {"name": name, "seed": seed, "objective.noise_scale": noise_scale, "objective.beta": beta}


def balance(add):
    """An autoencoder, and beta from 0 on."""
    add(weights("free", 0.0, 0.0))
    add(weights("no pull", 1.0, 0.0))
    for seed in (0, 1):
        add(weights(HOSTILE, 1.0, 1.0, seed))
    add(weights("more", 1.0, 4.0))


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Small studies with their pages: two latents, more latents with convolutions, one network told beta, and linear ones
    of vectors under other priors. The first one has a figure too."""
    folder = tmp_path_factory.mktemp("studies")
    vectors = {"data__name": "npz", "data__path": "tests/data/vectors.npz", "train__batch_size": 16}
    conv = {"model__encoder": "conv", "model__decoder": "conv", "model__hidden": (4, 16), "train__epochs": 2}
    few = {"eval__calibration_samples": 0, "eval__decoded": 0}  # the page shows neither
    gaussian = {"model__likelihood": "gaussian", **few}
    plans = {
        "plane": (tiny(**few), balance, ()),
        "conv": (tiny(model__latents=6, **gaussian, **conv), balance, ()),
        "told": (tiny(model__conditioning="beta", eval__betas=(0.1, 0.5, 4.0), **few), None, ()),
        "vectors": (tiny(model__latents=3, **gaussian, **vectors, **LINEAR), None, [("model.prior", ["normal", "flow"])]),
    }
    for name, (config, sweep, sweeps) in plans.items():
        study.run(config, folder / name, sweep, sweeps)
        if name == "plane":
            draw.draw(folder / name, only=("trade_off",))
        pages.report(folder / name)
    return folder


@pytest.fixture
def page(browser, studies):
    """Opens the page of a study, with the log of the browser empty before."""

    def open_page(name: str):
        browser.get_log("browser")
        browser.get_log("performance")
        browser.get((studies / name / "report.html").as_uri())
        return browser

    return open_page


def model(studies, name: str, run: int):
    return vae_jax.api.trained.load(studies / name, run=run)


@pytest.mark.parametrize("name", ["plane", "conv", "told", "vectors"])
def test_a_page_opens_without_errors_and_without_a_network(page, studies, name):
    browser = page(name)
    assert browser.execute_script("return report.studies.length") == 1
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert (studies / name / "report.html").as_uri() in asked
    assert all(url.startswith(("file:///", "data:")) for url in asked)
    html = (studies / name / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", html)


def test_a_script_that_is_not_the_pages_own_does_not_run(page):
    browser = page("plane")
    browser.execute_script(
        "const node = document.createElement('script'); node.textContent = 'window.intruded = 1'; document.body.append(node)"
    )
    assert browser.execute_script("return window.intruded") is None
    assert "Content Security Policy" in browser.get_log("browser")[0]["message"]


def test_a_name_that_is_markup_is_shown_as_text(page, studies):
    browser = page("plane")
    assert HOSTILE in browser.find_element("css selector", "#results-0").text
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert "<script>alert" not in (studies / "plane" / "report.html").read_text()


def test_the_slider_goes_through_the_models_and_the_plane_shows_what_jax_decodes(page, studies):
    browser = page("plane")
    slider = browser.find_element("css selector", ".models input[type=range]")
    seen = []
    slider.send_keys(*["\ue012"] * 8)  # to the left end
    for _ in range(4):
        run, z, image = browser.execute_script(
            """const {explorer, plane} = report.studies[0];
            plane.render();
            const view = plane.panes[explorer.both().length - 1];
            return [explorer.right().run, view.z, Array.from(view.decoded)];"""
        )
        theirs = model(studies, "plane", run)
        seen.append((theirs.card["noise_scale"], theirs.config["objective.beta"]))
        np.testing.assert_allclose(image, theirs.decode([z]).ravel(), atol=1e-4)
        slider.send_keys("\ue014")
    assert seen == [(0, 0), (1, 0), (1, 1), (1, 4)]


def test_a_network_that_is_told_beta_moves_without_steps(page, studies):
    browser = page("told")
    (members, betas) = browser.find_elements("css selector", ".models input[type=range]")
    assert betas.is_displayed() and not members.is_displayed()
    found = """const {explorer, plane} = report.studies[0], right = explorer.state.right;
        plane.render();
        return {beta: explorer.right().beta, z: plane.panes.at(-1).z, image: Array.from(plane.panes.at(-1).decoded),
                mean: explorer.code(right, 5).mean, label: explorer.right().label, x: Array.from(explorer.images.pixels(5)),
                measured: document.querySelector('.measured').textContent, color: explorer.right().color};"""
    network, seen = model(studies, "told", 0), []
    assert browser.execute_script(found)["label"] == "beta 1"  # of `objective.beta`
    for key, count in (("\ue012", 3), ("\ue012", 20), ("\ue014", 60)):  # to the left, and past 1 to the right
        betas.send_keys(*[key] * count)
        here = browser.execute_script(found)
        seen.append(here["beta"])
        theirs = network.at(beta=here["beta"])
        np.testing.assert_allclose(here["image"], theirs.decode([here["z"]]).ravel(), atol=1e-4)
        image = np.array(here["x"], np.float32).reshape(1, 8, 8, 1)
        np.testing.assert_allclose(here["mean"], theirs.encode(image).mean[0], atol=1e-4)
        assert float(here["label"].removeprefix("beta ")) == pytest.approx(here["beta"], rel=0.01)
        assert "the nearest is" in here["measured"]
    assert seen[1] < seen[0] < 1 < seen[2] and not set(seen) & {0.1, 0.5, 4.0}
    low, high = (network.config[f"objective.beta_{end}"] for end in ("low", "high"))
    betas.send_keys("\ue011")  # home
    assert browser.execute_script(found)["beta"] == pytest.approx(low)
    betas.send_keys("\ue010")  # end
    assert browser.execute_script(found)["beta"] == pytest.approx(high)
    assert browser.get_log("browser") == []


def test_codes_follow_the_beta_that_a_network_is_told(page, studies):
    browser = page("told")
    codes = browser.execute_async_script(
        """const done = arguments[0], {explorer} = report.studies[0], right = explorer.state.right;
        explorer.choose({beta: 0.7});
        const wait = () => (explorer.right().fresh < explorer.images.count ? requestAnimationFrame(wait)
            : done([explorer.codes(right).mean, Array.from(explorer.images.pixels(explorer.images.count - 1))]));
        wait();"""
    )
    image = np.array(codes[1], np.float32).reshape(1, 8, 8, 1)
    np.testing.assert_allclose(codes[0][-1], model(studies, "told", 0).at(beta=0.7).encode(image).mean[0], atol=1e-4)


def test_the_weights_of_one_network_are_stored_once(studies):
    page = (studies / "told" / "report.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["studies"][0]["explorer"]
    kernels = {json.dumps(layer["kernel"]) for each in data["models"] for layer in each["encoder"] + each["decoder"]}
    assert len(data["models"]) == 4 and len(kernels) == len(data["models"][0]["encoder"] + data["models"][0]["decoder"])


def test_the_pointer_and_the_arrow_keys_move_the_point(page, studies):
    from selenium.webdriver import ActionChains

    browser = page("plane")
    canvas = browser.find_elements("css selector", ".plane canvas[tabindex]")[1]
    where = "report.studies[0].plane.render(); return report.studies[0].plane.panes.map((view) => view.z)"
    first = browser.execute_script(where)
    ActionChains(browser).move_to_element_with_offset(canvas, 60, -40).perform()
    second = browser.execute_script(where)
    assert all(after[0] > before[0] and after[1] > before[1] for before, after in zip(first, second, strict=True))  # both
    canvas.send_keys("\ue012")  # left
    third = browser.execute_script(where)
    assert third[1][0] < second[1][0] and third[1][1] == pytest.approx(second[1][1])


@pytest.mark.parametrize("name", ["plane", "conv"])
def test_a_drawn_stroke_is_encoded_as_jax_does(page, studies, name):
    from selenium.webdriver import ActionChains

    browser = page(name)
    pad = browser.find_element("css selector", ".pad")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", pad)
    ActionChains(browser).move_to_element_with_offset(pad, -40, -60).click_and_hold().move_by_offset(
        70, 100
    ).release().perform()
    x, found = browser.execute_script(
        """const {drawing} = report.studies[0];
        drawing.render();
        return [Array.from(drawing.state.x), drawing.state.found];"""
    )
    image = np.array(x, np.float32).reshape(1, 8, 8, 1)
    assert 0 < image.mean() < 0.5 and np.all(image * 16 == np.round(image * 16))  # as grey as the data
    assert len(found) == 2
    for each in found:
        theirs = model(studies, name, each["run"])
        posterior = theirs.encode(image)
        np.testing.assert_allclose(each["posterior"]["mean"], posterior.mean[0], atol=1e-4)
        np.testing.assert_allclose(each["posterior"]["std"], posterior.std[0], atol=1e-4)
        drawn = np.array(each["posterior"]["mean"]) + np.array(each["posterior"]["std"]) * np.array(each["eps"])
        np.testing.assert_allclose(each["z"], drawn)
    # The last one has noise and N(0, I): the rate is in closed form.
    mean, std = posterior.mean[0], posterior.std[0]
    assert found[-1]["rate"] == pytest.approx(np.sum(0.5 * (mean**2 + std**2 - 1) - np.log(std)), abs=1e-4)


def test_the_distortion_of_a_test_image_is_that_of_jax(page, studies):
    browser = page("conv")
    found = browser.execute_script(
        """const {drawing} = report.studies[0];
        drawing.choose(3);
        drawing.render();
        return [Array.from(drawing.state.x), drawing.state.found.at(-1)];"""
    )
    image, each = np.array(found[0], np.float32).reshape(1, 8, 8, 1), found[1]
    theirs = model(studies, "conv", each["run"])
    mean, sigma = theirs.decode([each["z"]]), theirs.card["sigma"]
    density = 0.5 * np.square((image - mean) / sigma) + np.log(sigma) + 0.5 * np.log(2 * np.pi)
    assert each["distortion"] == pytest.approx(density.sum(dtype=float), rel=1e-4)


def test_a_latent_is_moved_by_its_slider(page, studies):
    browser = page("conv")
    rows = browser.find_elements("css selector", ".latent")
    rates = [float(row.text.split("nats")[0].split()[-1].replace("−", "-")) for row in rows]
    assert len(rows) == 6 and rates == sorted(rates, reverse=True)
    rows[0].find_element("css selector", "input").send_keys(*["\ue014"] * 5)
    run, z, image = browser.execute_script(
        """const {explorer, sliders} = report.studies[0];
        sliders.fill();
        return [explorer.right().run, sliders.state.z, Array.from(sliders.state.decoded)];"""
    )
    np.testing.assert_allclose(image, model(studies, "conv", run).decode([z]).ravel(), atol=1e-4)


def test_the_line_between_two_images_is_the_one_of_the_library(page, studies):
    browser = page("plane")
    ends, rows, images = browser.execute_script(
        """const {explorer, line} = report.studies[0];
        return [line.state.ends.map((i) => Array.from(explorer.images.pixels(i))),
                line.state.rows.map((row) => row.map((image) => Array.from(image))),
                explorer.both().map((i) => explorer.models[i].run)];"""
    )
    a, b = (np.array(end, np.float32).reshape(8, 8, 1) for end in ends)
    assert len(rows) == 2
    for run, row in zip(images, rows, strict=True):
        np.testing.assert_allclose(np.array(row), model(studies, "plane", run).interpolate(a, b).reshape(9, -1), atol=1e-4)


def test_a_header_sorts_and_a_line_opens_its_run(page):
    browser = page("plane")
    header = browser.find_element("css selector", "[data-column=mse]")
    column = "return [...document.querySelectorAll('.sortable th')].findIndex((th) => th.textContent === 'mse')"
    at = browser.execute_script(column)

    def shown() -> list[float]:
        cells = browser.find_elements("css selector", f".sortable tbody td:nth-child({at + 1})")
        return [float(cell.text.split()[0]) for cell in cells if cell.text]

    header.click()
    up = shown()
    assert len(up) == 4 and up == sorted(up)
    browser.find_element("css selector", "[data-column=mse]").click()
    assert shown() == up[::-1]
    browser.find_element("css selector", ".sortable tbody tr").click()
    assert "distortion" in browser.find_element("css selector", "dialog[open]").text


def test_columns_and_lines_fold_out(page):
    browser = page("plane")
    count = (
        "return [document.querySelectorAll('.sortable th').length, document.querySelectorAll('.sortable tbody tr').length]"
    )
    columns, lines = browser.execute_script(count)
    for button in browser.find_elements("css selector", "#results-0 .bar button"):
        button.click()
    every, runs = browser.execute_script(count)
    assert every > columns and (lines, runs) == (4, 5)


def test_the_planes_name_runs_and_open_them(page):
    from selenium.webdriver import ActionChains

    browser = page("plane")
    for plot in browser.find_elements("css selector", ".plot svg"):
        browser.execute_script("arguments[0].focus()", plot)
        ActionChains(browser).send_keys("\ue014").perform()  # right
        assert "run" in browser.find_element("css selector", ".tip").text
        ActionChains(browser).send_keys("\ue007").perform()  # enter
        assert browser.find_element("css selector", "dialog[open] h3").text.startswith("Run ")
        browser.find_element("css selector", "dialog[open] .close").click()


def test_the_lines_of_another_prior_are_where_its_density_is(page):
    """Of a mixture of two, by its formula in NumPy."""
    browser = page("plane")
    ends = browser.execute_script(
        """const arrays = [[Math.log(0.3), Math.log(0.7)], [-1, 0, 1, 0.5], [0, 0, -1, -0.5]];
        const [log_weights, mean, log_var] = [{array: 0}, {array: 1}, {array: 2}];
        const rest = {latents: 2, shape: [1], encoder: [], decoder: [], statistics: {}, likelihood: {kind: "gaussian"}};
        const prior = {kind: "mixture", log_weights, mean, log_var};
        const model = new Networks.Model({prior, ...rest}, (number) => arrays[number]);
        return [1, 2, 3].map((radius) => Plane.levelLines(model, {center: [0.2, 0], half: 4}, radius));"""
    )
    mean, log_var = np.array([[-1, 0], [1, 0.5]]), np.array([[0, 0], [-1, -0.5]])

    def density(z):
        each = -0.5 * (np.square(z[..., None, :] - mean) * np.exp(-log_var) + log_var).sum(-1)
        return np.log(np.exp(each) @ [0.3, 0.7])

    axis = np.linspace(-4, 4, 401)
    most = density(np.stack(np.meshgrid(axis, axis), -1)).max()
    for radius, segments in zip((1, 2, 3), ends, strict=True):
        points = np.array(segments).reshape(-1, 2)
        assert len(points) > 50
        np.testing.assert_allclose(density(points), most - radius**2 / 2, atol=0.05)


@pytest.mark.parametrize("name", ["plane", "conv", "told", "vectors"])
def test_nothing_is_wider_than_a_phone(page, name):
    browser = page(name)
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") == 400
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_plot_has_no_room_for_what_is_out_of_its_view(page):
    """A run whose loss is 0 beside many of 20 to 27: the axis ends at 20, and not somewhere in between."""
    values = [0.0, 0.0, *np.linspace(20, 27, 40)]
    low, high = page("plane").execute_script("return Chart.range(arguments[0])", values)
    assert 19 < low < 20 and 27 < high < 28


def test_on_a_phone_words_are_whole_all_links_are_seen_and_nothing_touches(page):
    browser = page("plane")
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        needed, there = browser.execute_script(
            "const n = document.querySelector('nav'); return [n.scrollWidth, n.clientWidth]"
        )
        assert needed <= there
        broken = browser.execute_script(
            """return [...document.querySelectorAll('.thumb')].flatMap((thumb) => [...thumb.childNodes].flatMap((node) => {
              const texts = node.nodeType === 3 ? [node] : [...node.childNodes].filter((child) => child.nodeType === 3);
              return texts.flatMap((text) => [...text.data.matchAll(/\\S+/g)].filter((word) => {
                const range = document.createRange();
                range.setStart(text, word.index);
                range.setEnd(text, word.index + word[0].length);
                return range.getClientRects().length > 1;
              }).map((word) => word[0]));
            }));"""
        )
        assert broken == []
        for element in browser.execute_script("return document.querySelectorAll('.sheet')"):
            below = browser.execute_script(
                """const sheet = arguments[0], next = sheet.nextElementSibling;
                const lowest = Math.max(...[...sheet.querySelectorAll('*')].map((n) => n.getBoundingClientRect().bottom));
                return next.getBoundingClientRect().top - lowest;""",
                element,
            )
            assert below >= 8
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_theme_follows_the_system_and_its_button(page):
    browser = page("plane")
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(paper)
    browser.find_element("css selector", "#theme").click()
    dark = browser.execute_script(paper)
    browser.find_element("css selector", "#theme").click()
    assert browser.execute_script(paper) == light != dark
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    try:
        browser.refresh()
        assert browser.execute_script(paper) == dark
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_several_studies_stand_on_one_page(browser, studies, tmp_path):
    path = pages.report(studies / "vectors", studies / "plane")
    try:
        browser.get_log("browser")
        browser.get(path.as_uri())
        assert browser.execute_script("return report.studies.map(({study}) => study.title)") == ["vectors", "plane"]
        assert browser.get_log("browser") == []
    finally:
        pages.report(studies / "vectors")


def test_arrays_are_stored_once_and_16_bits_are_as_wrong_as_they_say():
    store = packing.Store(precise=False)
    array = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32) * np.arange(7, dtype=np.float32)
    assert store.put(array) == store.put(array.copy()) == {"array": 0}
    stored = store.arrays[0]
    whole, scale = (
        np.frombuffer(packing.base64.b64decode(stored[key]), kind) for key, kind in (("data", "<i2"), ("scale", "<f4"))
    )
    error = np.abs(whole.reshape(50, 7) * scale - array).max(axis=0)
    assert np.all(error <= np.abs(array).max(axis=0) / 65534 * 1.001)
