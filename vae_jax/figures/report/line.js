// The straight line between the codes of two images, decoded by both models, beside the average of the two pictures.

const Line = (() => {
  const { el, perFrame } = Page;
  const STEPS = 9;

  // Two images to begin with: alike in all factors but the first, where there are factors; else of different classes.
  function different(images) {
    if (images.factors) return apart(images.factors);
    const [first] = images.some;
    const other = images.some.find((i) => images.labels && images.labels[i] !== images.labels[first]) ?? images.some[1] ?? first;
    return [first, other];
  }

  // The pair that differs most in the first factor and least in the others, each in units of its range.
  function apart(factors) {
    const ranges = factors[0].map((_, f) => Math.max(...factors.map((values) => values[f])) - Math.min(...factors.map((values) => values[f])) || 1);
    let best = [0, 0], most = -Infinity;
    factors.forEach((a, i) => factors.forEach((b, j) => {
      const score = a.reduce((total, value, f) => total + (f ? -Math.abs(b[f] - value) : b[f] - value) / ranges[f], 0);
      if (score > most) [best, most] = [[i, j], score];
    }));
    return best;
  }

  function build(section, explorer) {
    const { images, models, code } = explorer;
    const state = { ends: different(images), next: 0, rows: [] };
    const lines = el("div", { class: "lines" });
    const ends = ["Left end", "Right end"].map((text, side) => el("button", { type: "button", onclick: () => { state.next = side; render(); } }, text));
    const gallery = Pictures.gallery(images, (i) => {
      state.ends[state.next] = i;
      state.next = 1 - state.next;
      redraw();
    }, "Choose the two images");
    const card = el("div", { class: "card line" }, el("h3", {}, "Between two images"),
      el("p", { class: "note" }, "Is the middle of two codes an image in between? The straight line in the latents of each model, and the plain average of the pixels beside it."),
      el("div", { class: "bar" }, el("span", { class: "hint" }, "The next image chosen is the"), ends), gallery.node, lines);
    section.append(card);

    function row() {
      const name = el("div", { class: "name" }), canvases = Array.from({ length: STEPS }, () => el("canvas"));
      const strip = el("div", { class: "strip" }, canvases);
      lines.append(name, strip);
      return (text, color, each) => {
        name.replaceChildren(Page.chip(color), text);
        name.hidden = strip.hidden = !each;
        each?.forEach((pixels, k) => Pictures.paint(canvases[k], pixels, images.shape, images.range));
      };
    }
    const [first, second, average] = [row(), row(), row()];

    function render() {
      const [a, b] = state.ends;
      const mixed = (left, right, t) => Float32Array.from(left, (value, i) => value + t * (right[i] - value));
      const steps = Array.from({ length: STEPS }, (_, k) => k / (STEPS - 1));
      state.rows = explorer.both().map((i) => {
        const [from, to] = [a, b].map((image) => code(i, image).mean);
        return steps.map((t) => models[i].decode(from.map((value, d) => value + t * (to[d] - value))));
      });
      const pixels = steps.map((t) => mixed(images.pixels(a), images.pixels(b), t));
      [first, second].forEach((show, k) => {
        const model = models[explorer.both()[k]];
        show(model?.label ?? "", model?.color ?? "", state.rows[k]);
      });
      average("average of the pixels", "transparent", pixels);
      ends.forEach((button, side) => button.setAttribute("aria-pressed", state.next === side));
      gallery.mark(...state.ends);
    }
    const redraw = perFrame(card, render);
    explorer.listen(redraw);
    render();
    return { state, render };
  }

  return { build };
})();
