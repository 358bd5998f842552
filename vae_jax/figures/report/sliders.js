// Latents one by one: a slider for each, sorted by rate, with the image that is decoded and a traversal below.

const Sliders = (() => {
  const { el, format, perFrame } = Page;
  const SHOWN = 10, STEPS = 9;

  function build(section, explorer) {
    const { images, code, codes } = explorer;
    const card = el("div", { class: "card sliders" }, el("h3", {}, "Latents one by one"),
      el("p", { class: "note" }, "Sorted by rate, the nats that a latent carries on average. Begin from the prior's middle or a test image, move one latent, and see what changes."));
    const rows = el("div"), picture = Pictures.thumb("", true), strip = el("div", { class: "strip" }), said = el("p", { class: "hint" });
    const state = { z: [], latent: null, image: null, every: false, of: null, isMoved: false };
    const more = el("button", { type: "button", onclick: () => { state.every = !state.every; fill(); } });
    const origin = el("button", { type: "button", onclick: () => begin(null) }, "The middle");
    const random = el("button", { type: "button", onclick: () => {
      const draw = Networks.normals((Math.random() * 2 ** 32) >>> 0);
      state.image = null;
      state.z = model().noise_scale && model().role === "both" ? state.z.map(() => draw()) : [...code(explorer.state.right, Math.floor(Math.random() * images.count)).mean];
      fill();
    } }, "A random point");
    const gallery = Pictures.gallery(images, (i) => begin(i), "Begin from a test image");
    picture.canvas.setAttribute("aria-label", "Decoded image");
    picture.node.className = "result";
    card.append(el("div", { class: "bar" }, el("span", { class: "hint" }, "Begin from"), origin, random), gallery.node,
      el("div", { class: "latents" }, el("div", {}, rows, more), el("div", {}, picture.node)),
      el("div", { class: "hint" }, "Traversal of the latent moved last, the others held:"), strip, said);
    section.append(card);

    const model = () => explorer.right();
    const order = () => codes(explorer.state.right).importance.map((value, d) => [value, d]).sort((a, b) => b[0] - a[0]).map(([, d]) => d);
    // How far a slider goes: over the prior, or over the codes where they lie elsewhere.
    function reach(d) {
      const values = codes(explorer.state.right).mean.map((code) => code[d]).sort((a, b) => a - b);
      const low = values[Math.floor(0.01 * values.length)], high = values[Math.ceil(0.99 * values.length) - 1];
      const isHeld = model().role === "both" || model().role === "kl_only";
      return isHeld ? [Math.min(-3, low), Math.max(3, high)] : [low, high > low ? high : low + 1];
    }

    function begin(image) {
      state.image = image;
      const middle = model().role === "both" || model().role === "kl_only" ? Array(model().latents).fill(0) : order().map((_, d) => {
        const [low, high] = reach(d);
        return (low + high) / 2;
      });
      state.z = image === null ? middle : [...code(explorer.state.right, image).mean];
      state.of = explorer.state.right;
      state.isMoved = false;
      fill();
    }

    function fill() {
      const { importance, std } = codes(explorer.state.right), sorted = order();
      const shown = sorted.slice(0, state.every ? sorted.length : SHOWN);
      if (!shown.includes(state.latent)) state.latent = shown[0];
      more.hidden = sorted.length <= SHOWN;
      more.textContent = state.every ? `The first ${SHOWN} latents` : `All ${sorted.length} latents`;
      const unit = model().noise_scale ? "nats" : "variance";
      rows.replaceChildren(...shown.map((d) => {
        const [low, high] = reach(d), value = el("span", { class: "num" }, format(state.z[d], 3));
        const range = el("input", { type: "range", min: low, max: high, step: (high - low) / 200, "aria-label": `Latent ${d + 1}`, oninput: () => {
          state.z[d] = Number(range.value);
          value.textContent = format(state.z[d], 3);
          state.latent = d;
          state.isMoved = true;
          redraw();
        } });
        range.value = state.z[d];
        return el("label", { class: "latent" }, el("span", {}, el("b", {}, `latent ${d + 1}`), ` ${format(importance[d], 2)} ${unit}`), range, value);
      }));
      render();
    }

    function render() {
      const current = model();
      state.decoded = current.decode(state.z);
      Pictures.paint(picture.canvas, state.decoded, images.shape, images.range);
      picture.caption.textContent = read(state.decoded);
      const [low, high] = reach(state.latent);
      if (strip.children.length !== STEPS) strip.replaceChildren(...Array.from({ length: STEPS }, () => el("canvas")));
      [...strip.children].forEach((canvas, k) => {
        const at = low + (high - low) * k / (STEPS - 1);
        Pictures.paint(canvas, current.decode(state.z.map((value, d) => (d === state.latent ? at : value))), images.shape, images.range);
        canvas.className = Math.abs(at - state.z[state.latent]) <= (high - low) / (STEPS - 1) / 2 ? "frame" : "";
      });
      said.textContent = `latent ${state.latent + 1} from ${format(low, 3)} to ${format(high, 3)}, ${current.label}`;
      gallery.mark(state.image);
    }

    // Factors of the test image that is nearest in pixels, where the data have factors.
    function read(decoded) {
      if (!images.factors) return current();
      let near = 0, least = Infinity;
      for (let i = 0; i < images.count; i++) {
        const x = images.pixels(i);
        let distance = 0;
        for (let p = 0; p < x.length && distance < least; p++) distance += (x[p] - decoded[p]) ** 2;
        if (distance < least) [near, least] = [i, distance];
      }
      const told = images.factorNames.map((name, f) => `${name.replaceAll("_", " ")} ${format(images.factors[near][f], 2)}`).join(", ");
      return `Nearest test image (mse ${format(least / decoded.length, 2)}): ${told}`;
    }
    const current = () => model().label;

    const redraw = perFrame(card, render);
    // Another model begins anew; the same network at another beta keeps the point, unless that is the code of an image.
    const isKept = () => state.of === explorer.state.right && (state.isMoved || state.image === null);
    const follow = perFrame(card, () => (isKept() ? fill() : begin(state.image)));
    explorer.listen(() => {
      card.hidden = model().latents === 2;
      if (!card.hidden) follow();
    });
    card.hidden = model().latents === 2;
    if (!card.hidden) begin(0);
    return { state, begin, fill };
  }

  return { build };
})();
