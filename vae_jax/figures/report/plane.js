// Two latents: the codes of the test images, and the image that the decoder gives at the pointer, for two models at once.

const Plane = (() => {
  const { el, format, perFrame, ink } = Page;
  const DENSITY = 81; // places along each side at which a prior's density is computed

  // The square that holds the codes of a model, and the prior where the objective pulls them to it.
  function boxOf(model, codes) {
    const across = [0, 1].map((d) => codes.mean.map((code) => code[d]).sort((a, b) => a - b));
    const ends = across.map((values) => [values[Math.floor(0.005 * values.length)], values[Math.ceil(0.995 * values.length) - 1]]);
    const isHeld = model.role === "both" || model.role === "kl_only";
    const center = ends.map(([low, high]) => (isHeld ? 0 : (low + high) / 2));
    const half = Math.max(...ends.map(([low, high], d) => Math.max(high - center[d], center[d] - low)), isHeld ? 2.6 : 1e-3) * 1.12;
    return { center, half };
  }

  // Draws codes and what else is asked for on a canvas; `box` says which part of the plane it shows.
  function draw(canvas, model, codes, images, box, { point, ellipses = [], tiles = null, faint = false }) {
    const size = canvas.clientWidth, ratio = devicePixelRatio || 1;
    if (!size) return;
    if (canvas.width !== Math.round(size * ratio)) canvas.width = canvas.height = Math.round(size * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size, size);
    const scale = size / (2 * box.half);
    const x = (z) => (z - box.center[0] + box.half) * scale, y = (z) => (box.center[1] + box.half - z) * scale;
    if (tiles) {
      context.imageSmoothingEnabled = false;
      context.fillStyle = "#000"; // as dark as the pictures are, so that codes stand out on either theme
      context.fillRect(0, 0, size, size);
      context.globalAlpha = 0.7;
      context.drawImage(tiles, 0, 0, size, size);
      context.globalAlpha = 1;
    }
    context.lineWidth = 1;
    context.strokeStyle = ink("soft");
    context.globalAlpha = 0.6;
    context.setLineDash(model.prior.kind === "normal" ? [3, 4] : []);
    prior(context, model, box, x, y, scale);
    context.setLineDash([]);
    context.globalAlpha = faint ? 0.3 : 0.9;
    const colors = images.labels ? images.classes.map((_, label) => Pictures.classColor(label)) : [ink("accent")];
    colors.forEach((color, label) => {
      context.fillStyle = color;
      context.beginPath();
      codes.mean.forEach((code, i) => {
        if (images.labels && images.labels[i] !== label) return;
        context.moveTo(x(code[0]) + 3, y(code[1]));
        context.arc(x(code[0]), y(code[1]), 3, 0, 2 * Math.PI);
      });
      context.fill();
    });
    context.globalAlpha = 1;
    if (images.labels && !faint) names(context, codes, images, x, y);
    for (const { mean, std, color } of ellipses) {
      context.strokeStyle = color;
      for (const [radius, width] of [[1, 2], [2, 1]]) {
        context.lineWidth = width;
        context.beginPath();
        context.ellipse(x(mean[0]), y(mean[1]), Math.max(radius * std[0] * scale, 2), Math.max(radius * std[1] * scale, 2), 0, 0, 2 * Math.PI);
        context.stroke();
      }
    }
    if (point) {
      for (const [color, width] of [[ink("card"), 5], [ink("ink"), 1.8]]) {
        context.strokeStyle = color;
        context.lineWidth = width;
        context.beginPath();
        context.moveTo(x(point[0]) - 9, y(point[1]));
        context.lineTo(x(point[0]) + 9, y(point[1]));
        context.moveTo(x(point[0]), y(point[1]) - 9);
        context.lineTo(x(point[0]), y(point[1]) + 9);
        context.stroke();
      }
    }
  }

  // p(z): circles at 1, 2 and 3 standard deviations of N(0, I), or lines where another p is as far below its peak.
  function prior(context, model, box, x, y, scale) {
    for (const radius of [1, 2, 3]) {
      context.beginPath();
      if (model.prior.kind === "normal") context.arc(x(0), y(0), radius * scale, 0, 2 * Math.PI);
      else for (const [a, b] of levelLines(model, box, radius)) {
        context.moveTo(x(a[0]), y(a[1]));
        context.lineTo(x(b[0]), y(b[1]));
      }
      context.stroke();
    }
  }

  // Line segments in the latents on which log p(z) is radius^2 / 2 below its largest value in the box; [] where p is unknown.
  function levelLines(model, box, radius) {
    const key = `${box.center} ${box.half}`;
    if (model.density?.key !== key) model.density = { key, ...densityOver(model, box) };
    const { at, values, most } = model.density, level = most - radius ** 2 / 2;
    model.density[radius] ??= segments(at, values, level);
    return model.density[radius];
  }

  function densityOver(model, box) {
    const at = [0, 1].map((d) => Array.from({ length: DENSITY }, (_, k) => box.center[d] + (2 * k / (DENSITY - 1) - 1) * box.half));
    if (model.logPrior([0, 0]) === null) return { at, values: [], most: 0 };
    const values = at[1].map((b) => at[0].map((a) => model.logPrior([a, b])));
    return { at, values, most: Math.max(...values.flat()) };
  }

  // Where values [rows, columns] over a grid pass a level: a straight line across each of the two triangles of a cell.
  function segments([across, up], values, level) {
    const found = [];
    const crossing = ([i, j], [k, l]) => {
      const share = (level - values[i][j]) / (values[k][l] - values[i][j]);
      return [across[j] + share * (across[l] - across[j]), up[i] + share * (up[k] - up[i])];
    };
    for (let i = 0; i + 1 < values.length; i++) {
      for (let j = 0; j + 1 < values[i].length; j++) {
        for (const corners of [[[i, j], [i, j + 1], [i + 1, j + 1]], [[i, j], [i + 1, j], [i + 1, j + 1]]]) {
          const ends = corners.map((corner, n) => [corner, corners[(n + 1) % 3]]).filter(([[a, b], [c, d]]) => values[a][b] > level !== values[c][d] > level);
          if (ends.length === 2) found.push(ends.map(([a, b]) => crossing(a, b)));
        }
      }
    }
    return found;
  }

  // The name of each class at the median of its codes.
  function names(context, codes, images, x, y) {
    if (images.classes.length > 12) return;
    context.font = "700 14px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    images.classes.forEach((name, label) => {
      const own = codes.mean.filter((_, i) => images.labels[i] === label);
      if (!own.length) return;
      const [a, b] = [0, 1].map((d) => own.map((code) => code[d]).sort((p, q) => p - q)[own.length >> 1]);
      context.lineWidth = 4;
      context.strokeStyle = ink("card");
      context.strokeText(name, x(a), y(b));
      context.fillStyle = ink("ink");
      context.fillText(name, x(a), y(b));
    });
  }

  // The decoder's images over the box, on a canvas of their own; fewer of a decoder that takes longer.
  function decodedOver(model, images, box) {
    const canvas = document.createElement("canvas");
    const weights = model.decoder.reduce((total, { kernel }) => total + kernel.length, 0), count = weights < 1e5 ? 15 : 9;
    const at = (place) => ((place + 0.5) / count * 2 - 1) * box.half;
    const decoded = Array.from({ length: count ** 2 }, (_, i) => model.decode([box.center[0] + at(i % count), box.center[1] - at(Math.floor(i / count))]));
    Pictures.mosaic(canvas, decoded, images.shape, count);
    return canvas;
  }

  function build(section, explorer) {
    const { images, models, code: codeOf, codes } = explorer;
    const card = el("div", { class: "card plane" }, el("h3", {}, "The latent plane"),
      el("p", { class: "note" }, "Dots are codes of test images, coloured by class; grey lines are the prior: 1, 2 and 3 standard deviations of N(0, I), or where another density is as far below its peak. Move over a plane, or use the arrow keys: the decoder draws what lies there."));
    const state = { at: [0.5, 0.5], shared: false, tiles: false };
    const check = (text, key, checked) => el("label", {}, el("input", { type: "checkbox", checked, onchange: (event) => { state[key] = event.target.checked; redraw(); } }), text);
    const panes = [pane(), pane()];
    const withImages = Pictures.isImage(images.shape);
    card.append(el("div", { class: "bar" }, check("one scale for both", "shared"), withImages ? check("decoded images behind the codes", "tiles") : null),
      el("div", { class: "pair" }, panes.map(({ node }) => node)));
    section.append(card);

    function pane() {
      const canvas = el("canvas", { tabindex: "0", role: "img", "aria-label": "Plane of the two latents; arrow keys move the point" });
      const title = el("h4"), said = el("p", { class: "said-here", "aria-live": "off" });
      const here = Pictures.thumb("decoded here", true), nearest = Pictures.thumb("nearest test image"), again = Pictures.thumb("decoded again");
      const move = (event) => {
        if (event.type === "pointermove" && event.pointerType !== "mouse" && !event.buttons) return;
        const frame = canvas.getBoundingClientRect();
        state.at = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height].map((value) => Math.max(0, Math.min(1, value)));
        redraw();
      };
      canvas.addEventListener("pointermove", move);
      canvas.addEventListener("pointerdown", move);
      canvas.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (!step) return;
        event.preventDefault();
        state.at = state.at.map((value, d) => Math.max(0, Math.min(1, value + step[d] * (event.shiftKey ? 0.1 : 0.02))));
        redraw();
      });
      const node = el("div", { class: "pane" }, title, el("div", { class: "surface" }, canvas), el("div", { class: "thumbs" }, here.node, nearest.node, again.node), said);
      return { node, canvas, title, said, here, nearest, again, tiles: null };
    }

    function boxes() {
      const own = explorer.both().map((i) => (models[i].box ??= boxOf(models[i], codes(i))));
      if (!state.shared || own.length < 2) return own;
      const half = Math.max(...own.map((box) => Math.max(...box.center.map((value) => Math.abs(value) + box.half))));
      return own.map(() => ({ center: [0, 0], half }));
    }

    function update(view, i, box) {
      const model = models[i], code = codes(i);
      view.z = [box.center[0] + (2 * state.at[0] - 1) * box.half, box.center[1] - (2 * state.at[1] - 1) * box.half];
      let near = 0, least = Infinity;
      code.mean.forEach((mean, k) => {
        const distance = (mean[0] - view.z[0]) ** 2 + (mean[1] - view.z[1]) ** 2;
        if (distance < least) [near, least] = [k, distance];
      });
      const key = `${i} ${model.log_beta ?? ""} ${box.center} ${box.half}`;
      if (state.tiles && view.tiles?.key !== key) view.tiles = { key, canvas: decodedOver(model, images, box) };
      const posterior = codeOf(i, near);
      view.title.replaceChildren(Page.chip(model.color), model.label);
      draw(view.canvas, model, code, images, box, {
        point: view.z, tiles: state.tiles ? view.tiles.canvas : null,
        ellipses: [{ ...posterior, color: model.color }],
      });
      view.decoded = model.decode(view.z);
      Pictures.paint(view.here.canvas, view.decoded, images.shape, images.range);
      if (view.shown !== `${i} ${model.log_beta ?? ""} ${near}`) {
        view.shown = `${i} ${model.log_beta ?? ""} ${near}`;
        Pictures.paint(view.nearest.canvas, images.pixels(near), images.shape, images.range);
        Pictures.paint(view.again.canvas, model.decode(posterior.mean), images.shape, images.range);
      }
      const pair = (values) => values.map((value) => format(value, 3)).join(", ");
      view.said.textContent = `z = (${pair(view.z)}). Nearest: ${images.name(near)}, posterior mean (${pair(posterior.mean)}), std ${model.noise_scale ? `(${pair(posterior.std)})` : "0"}`;
    }

    function render() {
      const both = explorer.both().filter((i) => models[i].latents === 2);
      card.hidden = !both.length;
      const own = boxes();
      panes.forEach((view, place) => {
        view.node.hidden = place >= both.length;
        if (place < both.length) update(view, both[place], own[place]);
      });
    }
    const redraw = perFrame(card, render);
    explorer.listen(redraw);
    addEventListener("themechange", redraw);
    addEventListener("resize", redraw);
    render();
    return { state, panes, render };
  }

  return { boxOf, build, draw, levelLines };
})();
