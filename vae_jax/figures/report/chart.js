// A plane with axes in SVG: lines and points, the nearest one named under the pointer, opened by a click or Enter.

const Chart = (() => {
  const { svg, format, showTip, hideTip } = Page;
  const WIDTH = 560, HEIGHT = 400, LEFT = 58, RIGHT = 14, TOP = 12, BOTTOM = 44;

  function ticks([low, high], count = 6) {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough || 1));
    const step = [1, 2, 5, 10].map((m) => m * power).find((size) => size >= rough) ?? power;
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + 1e-9 * step; at += step) found.push(Math.abs(at) < 1e-9 * step ? 0 : at);
    return found;
  }

  function logTicks([low, high]) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const m of high / low > 100 ? [1] : [1, 2, 5]) {
        const at = m * 10 ** power;
        if (at >= low && at <= high) found.push(at);
      }
    }
    return found;
  }

  // The range of numbers with a margin, without those that lie far out.
  function range(values, log = false) {
    const finite = values.filter((value) => Number.isFinite(value) && (!log || value > 0)).sort((a, b) => a - b);
    if (!finite.length) return log ? [0.1, 1] : [0, 1];
    let low = finite[0], high = finite[finite.length - 1];
    if (!log) {
      const at = (share) => finite[Math.round(share * (finite.length - 1))];
      const spread = at(0.9) - at(0.1);
      if (spread > 0) {
        const near = finite.filter((value) => value >= at(0.1) - 2.5 * spread && value <= at(0.9) + 2.5 * spread);
        low = near[0];
        high = near[near.length - 1];
      }
      const margin = 0.06 * (high - low) || Math.abs(high) * 0.1 || 1;
      return [low - margin, high + margin];
    }
    return low === high ? [low / 2, high * 2] : [low / 1.1, high * 1.1];
  }

  // options: x, y: {label, range, log}; background(scale): elements below; draw(scale): elements;
  // points: [{x, y, name, open}] that the pointer finds, `x` and `y` in data units; near(point | null): told which one.
  function build(host, options) {
    const box = { left: LEFT, top: TOP, right: WIDTH - RIGHT, bottom: HEIGHT - BOTTOM };
    const map = (axis, from, to) => {
      const [low, high] = axis.log ? axis.range.map(Math.log) : axis.range;
      return (value) => from + ((axis.log ? Math.log(value) : value) - low) / (high - low) * (to - from);
    };
    const scale = { box, x: map(options.x, box.left, box.right), y: map(options.y, box.bottom, box.top), xRange: options.x.range, yRange: options.y.range };
    const held = (value, low, high) => Math.max(low, Math.min(high, value));
    const place = (point) => [held(Number.isFinite(point.x) ? scale.x(point.x) : box.right, box.left, box.right), held(scale.y(point.y), box.top, box.bottom)];

    const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: "0", "aria-label": options.title });
    const clip = `clip-${Math.random().toString(36).slice(2)}`;
    root.append(svg("clipPath", { id: clip }, svg("rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top })));
    for (const at of (options.x.log ? logTicks : ticks)(options.x.range)) {
      root.append(svg("line", { class: "grid", x1: scale.x(at), x2: scale.x(at), y1: box.top, y2: box.bottom }),
        svg("text", { x: scale.x(at), y: box.bottom + 16, "text-anchor": "middle" }, format(at, 3)));
    }
    for (const at of (options.y.log ? logTicks : ticks)(options.y.range)) {
      root.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: scale.y(at), y2: scale.y(at) }),
        svg("text", { x: box.left - 7, y: scale.y(at) + 4, "text-anchor": "end" }, format(at, 3)));
    }
    root.append(svg("path", { class: "axis", d: `M${box.left},${box.top}V${box.bottom}H${box.right}`, fill: "none" }),
      svg("text", { x: (box.left + box.right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, options.x.label),
      svg("text", { x: 14, y: (box.top + box.bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(box.top + box.bottom) / 2})` }, options.y.label));
    const content = svg("g", { "clip-path": `url(#${clip})` }), above = svg("g");
    content.append(...(options.background?.(scale) ?? []), ...options.draw(scale, place));
    const cursor = svg("circle", { class: "cursor", r: 7, visibility: "hidden" });
    above.append(...(options.above?.(scale, place) ?? []), cursor);
    root.append(content, above);

    const places = options.points.map(place);
    let chosen = -1;
    function choose(index, x, y) {
      chosen = index;
      cursor.setAttribute("visibility", index < 0 ? "hidden" : "visible");
      options.near?.(index < 0 ? null : options.points[index]);
      if (index < 0) return hideTip();
      cursor.setAttribute("cx", places[index][0]);
      cursor.setAttribute("cy", places[index][1]);
      const frame = root.getBoundingClientRect();
      showTip(options.points[index].name, x ?? frame.left + places[index][0] * frame.width / WIDTH, y ?? frame.top + places[index][1] * frame.height / HEIGHT);
    }
    function nearest(event) {
      const frame = root.getBoundingClientRect();
      const x = (event.clientX - frame.left) * WIDTH / frame.width, y = (event.clientY - frame.top) * HEIGHT / frame.height;
      let best = -1, least = 40 ** 2;
      places.forEach(([a, b], i) => {
        const distance = (a - x) ** 2 + (b - y) ** 2;
        if (distance < least && !options.points[i].hidden?.()) [best, least] = [i, distance];
      });
      return best;
    }
    root.addEventListener("pointermove", (event) => choose(nearest(event), event.clientX, event.clientY));
    root.addEventListener("pointerleave", () => { if (document.activeElement !== root) choose(-1); });
    root.addEventListener("blur", () => choose(-1));
    root.addEventListener("click", (event) => {
      const index = nearest(event);
      if (index >= 0) options.points[index].open();
    });
    root.addEventListener("keydown", (event) => {
      const count = options.points.length, step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step && count) {
        event.preventDefault();
        choose((chosen + step + count) % count);
      } else if (event.key === "Enter" && chosen >= 0) {
        event.preventDefault(); // else the same key would press the button that has the focus then
        options.points[chosen].open();
      }
    });
    host.replaceChildren(root);
  }

  return { build, range };
})();
