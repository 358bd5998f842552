// An image of one's own (or a test image) through the encoders: posterior, reconstruction, rate and distortion, noise.

const Drawing = (() => {
  const { el, format, perFrame } = Page;
  const FINE = 8; // parts of a pixel along each side, in which strokes are drawn

  function build(section, explorer) {
    const { images, models, codes } = explorer;
    const [height, width, channels] = images.shape;
    const canDraw = Pictures.isImage(images.shape) && channels === 1;
    const state = { x: Float32Array.from(images.pixels(0)), image: 0, seed: 1, found: [] };
    const fine = canDraw ? new Float32Array(height * width * FINE * FINE) : null;
    const pad = el("canvas", { class: "pad", tabindex: "0", role: "img", "aria-label": canDraw ? "Draw here with the pointer" : "The image that is encoded" });
    const gallery = Pictures.gallery(images, (i) => choose(i), "Encode a test image");
    const clear = el("button", { type: "button", onclick: () => { fine.fill(0); take(); } }, "Clear");
    const noise = el("button", { type: "button", onclick: () => { state.seed += 1; redraw(); } }, "Redraw the noise");
    const sheets = [sheet(), sheet()];
    const card = el("div", { class: "card drawing" }, el("h3", {}, canDraw ? "Draw an image" : "Encode an image"),
      el("p", { class: "note" }, `${canDraw ? "Draw on the black square, or take a test image: t" : "Take a test image: t"}he encoders give a posterior, one draw of noise makes a code of it, and the decoders draw that code.`),
      el("div", { class: "sheet" }, el("div", {}, pad, el("div", { class: "bar" }, canDraw ? clear : null, noise)), sheets.map(({ node }) => node)),
      gallery.node);
    section.append(card);

    function sheet() {
      const plane = el("canvas", { role: "img", "aria-label": "Posterior in the latent plane" });
      const surface = el("div", { class: "thumb small-plane" }, el("div", { class: "surface" }, plane), "posterior and z");
      const title = el("h4"), numbers = el("table", { class: "noise" }), costs = el("div", { class: "costs" });
      const mean = Pictures.thumb("at the mean"), drawn = Pictures.thumb("at z");
      const node = el("div", { class: "pane" }, title, el("div", { class: "thumbs" }, mean.node, drawn.node, surface), costs, el("div", { class: "scroll" }, numbers));
      return { node, plane, surface, title, numbers, costs, mean, drawn };
    }

    function choose(i) {
      state.image = i;
      fine?.fill(0);
      state.x = Float32Array.from(images.pixels(i));
      redraw();
    }

    // The image of what was drawn: pixels are means of their parts, in the levels of the data.
    function take() {
      state.image = null;
      state.x = new Float32Array(height * width);
      for (let i = 0; i < fine.length; i++) {
        const row = Math.floor(i / (width * FINE * FINE)), column = Math.floor((i % (width * FINE)) / FINE);
        state.x[row * width + column] += fine[i] / FINE ** 2;
      }
      const { levels } = images;
      if (levels && levels < 255) state.x = state.x.map((value) => Math.round(value * levels) / levels);
      redraw();
    }

    // A stroke between two places in pixels, as wide as those of handwriting are in such images.
    function stroke([x0, y0], [x1, y1]) {
      const radius = Math.max(0.55, 0.042 * Math.max(width, height)) * FINE, steps = Math.ceil(Math.hypot(x1 - x0, y1 - y0) * FINE) + 1;
      for (let k = 0; k <= steps; k++) {
        const x = (x0 + (x1 - x0) * k / steps) * FINE, y = (y0 + (y1 - y0) * k / steps) * FINE;
        for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(height * FINE - 1, y + radius); row++) {
          for (let column = Math.max(0, Math.floor(x - radius)); column <= Math.min(width * FINE - 1, x + radius); column++) {
            if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= radius) fine[row * width * FINE + column] = 1;
          }
        }
      }
      take();
    }

    if (canDraw) {
      let last = null;
      const place = (event) => {
        const frame = pad.getBoundingClientRect();
        return [(event.clientX - frame.left) / frame.width * width, (event.clientY - frame.top) / frame.height * height];
      };
      pad.addEventListener("pointerdown", (event) => {
        if (state.image !== null) fine.fill(0);
        pad.setPointerCapture(event.pointerId);
        last = place(event);
        stroke(last, last);
      });
      pad.addEventListener("pointermove", (event) => {
        if (!last) return;
        for (const each of event.getCoalescedEvents?.() ?? [event]) {
          const next = place(each);
          stroke(last, next);
          last = next;
        }
      });
      const end = () => { last = null; };
      pad.addEventListener("pointerup", end);
      pad.addEventListener("pointercancel", end);
    }

    function update(view, i) {
      const model = models[i], posterior = model.encode(state.x), draw = Networks.normals(state.seed);
      const eps = posterior.mean.map(() => draw());
      const z = posterior.mean.map((mean, d) => mean + posterior.std[d] * eps[d]);
      const rate = model.rate(posterior, z), distortion = model.distortion(state.x, z);
      view.title.replaceChildren(Page.chip(model.color), model.label);
      Pictures.paint(view.mean.canvas, model.decode(posterior.mean), images.shape, images.range);
      Pictures.paint(view.drawn.canvas, model.decode(z), images.shape, images.range);
      const closed = model.ratePerLatent(posterior) !== null;
      view.costs.replaceChildren(...[["rate", rate], ["distortion", distortion], ["elbo", rate === null ? null : -(rate + distortion)]].map(([name, value]) =>
        el("span", { "data-help": name === "rate" && !closed ? "Of this draw: the prior has no closed form for it." : null }, `${name} `, el("b", {}, value === null ? "?" : format(value)), " nats")));
      const shown = codes(i).importance.map((value, d) => [value, d]).sort((a, b) => b[0] - a[0]).slice(0, 6).map(([, d]) => d);
      if (model.latents === 2) shown.sort();
      const line = (name, values) => el("tr", {}, el("th", { scope: "row" }, name), shown.map((d) => el("td", {}, format(values[d], 3))));
      view.numbers.replaceChildren(el("tr", {}, el("th", {}, "latent"), shown.map((d) => el("td", {}, String(d + 1)))),
        line("mean", posterior.mean), line("+ std", posterior.std), line("· eps", eps), line("= z", z));
      view.surface.hidden = model.latents !== 2;
      if (model.latents === 2) {
        Plane.draw(view.plane, model, codes(i), images, (model.box ??= Plane.boxOf(model, codes(i))), {
          point: z, faint: true, ellipses: [{ mean: posterior.mean, std: posterior.std, color: model.color }],
        });
      }
      return { run: model.run, posterior, eps, z, rate, distortion };
    }

    function render() {
      Pictures.paint(pad, state.x, images.shape, images.range);
      gallery.mark(state.image);
      const both = explorer.both();
      sheets.forEach((view, place) => { view.node.hidden = place >= both.length; });
      state.found = both.map((i, place) => update(sheets[place], i));
    }
    const redraw = perFrame(card, render);
    explorer.listen(redraw);
    addEventListener("themechange", redraw);
    addEventListener("resize", redraw);
    render();
    return { state, choose, render };
  }

  return { build };
})();
