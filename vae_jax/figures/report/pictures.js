// Images of the study on canvases: grey, RGB, or vectors as bars.

const Pictures = (() => {
  const { el } = Page;

  // Ten colours that are seen on white and on black.
  const CLASSES = ["#4e79a7", "#f28e2b", "#e15759", "#3fa7a0", "#59a14f", "#d4a72c", "#b07aa1", "#f77fa0", "#9c755f", "#8b929c"];
  const classColor = (label) => CLASSES[label % CLASSES.length];

  const isImage = (shape) => shape.length === 3 && (shape[2] === 1 || shape[2] === 3);

  // Draws flat pixels into a canvas of the image's own size.
  function paint(canvas, pixels, shape, range = [0, 1]) {
    if (!isImage(shape)) bars(canvas, pixels, range);
    else mosaic(canvas, [pixels], shape, 1);
  }

  // Draws images side by side, so many in a row.
  function mosaic(canvas, images, [height, width, channels], columns) {
    const wide = columns * width, high = Math.ceil(images.length / columns) * height;
    if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
    const context = canvas.getContext("2d"), image = context.createImageData(wide, high), { data } = image;
    images.forEach((pixels, place) => {
      const left = (place % columns) * width, top = Math.floor(place / columns) * height;
      for (let row = 0, from = 0; row < height; row++) {
        for (let column = 0, to = 4 * ((top + row) * wide + left); column < width; column++, to += 4, from += channels) {
          for (let c = 0; c < 3; c++) data[to + c] = 255 * pixels[from + (channels === 3 ? c : 0)]; // clamped by its type
          data[to + 3] = 255;
        }
      }
    });
    context.putImageData(image, 0, 0);
  }

  function bars(canvas, values, [low, high]) {
    [canvas.width, canvas.height] = [120, 120];
    const context = canvas.getContext("2d"), wide = 120 / values.length;
    context.fillStyle = "#111";
    context.fillRect(0, 0, 120, 120);
    context.fillStyle = "#7cc0ff";
    const y = (value) => 116 - 112 * (Math.max(low, Math.min(high, value)) - low) / (high - low || 1);
    values.forEach((value, i) => {
      const base = y(Math.max(low, Math.min(high, 0)));
      context.fillRect(i * wide, Math.min(base, y(value)), Math.max(wide - (wide > 4 ? 1 : 0), 1), Math.max(Math.abs(base - y(value)), 1));
    });
  }

  // A canvas of a small picture, with a text below.
  function thumb(text, large = false) {
    const canvas = el("canvas", { role: "img", "aria-label": text });
    const caption = el("div", {}, text);
    return { node: el("div", { class: large ? "thumb large" : "thumb" }, canvas, caption), canvas, caption };
  }

  // The test images of a study: `pixels(i)` flat, the class of each as text, and the range of their values.
  function read({ images, labels, classes, factors, factor_names: factorNames }) {
    const size = images.shape.reduce((a, b) => a * b, 1);
    const raw = Networks.bytes(images.data);
    const flat = images.levels ? Float32Array.from(raw, (value) => value / images.levels) : new Float32Array(raw.buffer);
    const each = Array.from({ length: images.count }, (_, i) => flat.subarray(i * size, (i + 1) * size));
    let low = Infinity, high = -Infinity;
    for (const value of flat) [low, high] = [Math.min(low, value), Math.max(high, value)];
    const spread = Array.from({ length: Math.min(each.length, 64) }, (_, k) => Math.floor(k * each.length / Math.min(each.length, 64)));
    return {
      count: images.count, shape: images.shape, levels: images.levels, range: isImage(images.shape) ? [0, 1] : [low, high], labels, classes, factors, factorNames,
      pixels: (i) => each[i],
      name: (i) => (labels ? classes[labels[i]] : `image ${i}`),
      // Some of them for a gallery: by class where there are any.
      some: labels ? [...spread].sort((a, b) => labels[a] - labels[b] || a - b) : spread,
    };
  }

  // A row of test images to choose from; `choose(i)` is told which.
  function gallery(images, choose, label) {
    const buttons = images.some.map((i) => {
      const canvas = el("canvas");
      paint(canvas, images.pixels(i), images.shape, images.range);
      return el("button", {
        type: "button", "aria-pressed": "false", "aria-label": `Test image ${i}, ${images.name(i)}`,
        onclick: () => choose(i),
      }, canvas);
    });
    const node = el("div", { class: "gallery", role: "group", "aria-label": label, tabindex: "-1" }, buttons);
    let marked = [];
    function mark(...chosen) {
      for (const i of marked) buttons[images.some.indexOf(i)]?.setAttribute("aria-pressed", "false");
      for (const i of chosen) buttons[images.some.indexOf(i)]?.setAttribute("aria-pressed", "true");
      marked = chosen;
    }
    return { node, mark };
  }

  return { classColor, gallery, isImage, mosaic, paint, read, thumb };
})();
