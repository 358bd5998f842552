// The rate-distortion plane and the learning curves of a study.

const Plots = (() => {
  const { el, svg, format, parsed, spread, select } = Page;
  const SPLITS = [["", "test split"], ["train_", "training split"], ["valid_", "validation split"]];

  function build(section, study, openRun) {
    const column = Object.fromEntries(study.columns.map(({ key }, at) => [key, at]));
    const hidden = new Set();
    const redraw = [];
    const plots = el("div", { class: "plots" });
    section.append(plots);
    const named = (row) => {
      const seed = row.cells[column.seed];
      return `${study.settings[row.setting].label}${seed === null || seed === undefined ? "" : `, seed ${seed}`} (run ${row.cells[column.run]})`;
    };
    const parts = [plane(study, column, named, hidden, openRun), curves(study, column, named, hidden, openRun)].filter(Boolean);
    if (!parts.length) return section.remove();
    for (const { node, draw } of parts) {
      plots.append(node);
      redraw.push(draw);
      draw();
    }
    const every = study.settings.length;
    section.append(el("div", { class: "legend", role: "group", "aria-label": "Settings shown" }, study.settings.map(({ label, color }, at) =>
      el("button", {
        type: "button", "aria-pressed": "true",
        onclick: (event) => {
          // The first click shows that one alone; more are added or taken away; none left is all again.
          if (!hidden.size) {
            for (let i = 0; i < every; i++) if (i !== at) hidden.add(i);
          } else if (!hidden.delete(at)) hidden.add(at);
          if (hidden.size === every) hidden.clear();
          [...event.currentTarget.parentNode.children].forEach((button, i) => button.setAttribute("aria-pressed", !hidden.has(i)));
          redraw.forEach((draw) => draw());
        },
      }, Page.chip(color), label))));
  }

  function plane(study, column, named, hidden, openRun) {
    const splits = SPLITS.filter(([prefix]) => `${prefix}rate` in column && `${prefix}distortion` in column);
    if (!splits.length) return null;
    let prefix = splits[0][0];
    const host = el("div");
    function draw() {
      const rows = study.rows.map((row, number) => ({ row, number, x: parsed(row.cells[column[`${prefix}rate`]]), y: parsed(row.cells[column[`${prefix}distortion`]]) }))
        .filter(({ row, x, y }) => row.setting !== null && x !== null && Number.isFinite(y) && !hidden.has(row.setting));
      // In view is what has both terms, where there is some: without KL a rate is many times larger, and stands at the edge.
      const both = rows.filter(({ row }) => study.settings[row.setting].role === "both"), seen = both.length > 1 ? both : rows;
      const x = { label: "rate (nats per image)", range: Chart.range(seen.map((point) => point.x)) };
      const y = { label: "distortion (nats per image)", range: Chart.range([...seen, ...rows.filter((point) => !Number.isFinite(point.x))].map((point) => point.y)) };
      x.range[0] = Math.min(x.range[0], 0) < 0 ? -0.02 * x.range[1] : x.range[0];
      const color = (row) => study.settings[row.setting].color;
      const means = (at) => {
        const points = rows.filter(({ row }) => row.setting === at);
        return points.length ? [spread(points.map((point) => point.x))[0], spread(points.map((point) => point.y))[0]] : null;
      };
      Chart.build(host, {
        title: "Rate-distortion plane: every run. Arrow keys go from run to run, Enter opens one.", x, y,
        points: rows.map(({ row, number, x, y }) => ({ x, y, open: () => openRun(number), name: `${named(row)}\nrate ${format(x)}, distortion ${format(y)}\nelbo ${format(-(x + y))}` })),
        background: (scale) => equalElbo(scale),
        draw: (scale, place) => [
          ...study.families.map((family) => {
            const points = family.settings.map(means).filter((mean) => mean && Number.isFinite(mean[0]));
            const d = points.map(([a, b], i) => `${i ? "L" : "M"}${scale.x(a)},${scale.y(b)}`).join("");
            return svg("path", { class: "mean", d, stroke: study.settings[family.settings[family.settings.length >> 1]].color });
          }),
          ...rows.filter((point) => !Number.isFinite(point.x)).map(({ row, y }) =>
            svg("line", { x1: scale.box.left, x2: scale.box.right, y1: scale.y(y), y2: scale.y(y), stroke: color(row), "stroke-dasharray": "6 4", opacity: 0.55 })),
        ],
        above: (scale, place) => rows.map((point) => {
          const [cx, cy] = place(point);
          return svg("circle", { class: "point", cx, cy, r: Number.isFinite(point.x) ? 4.5 : 3.5, fill: color(point.row) });
        }),
      });
    }
    const chosen = select("Of the", splits.map(([, name]) => name), 0, (at) => { prefix = splits[at][0]; draw(); });
    const node = el("div", { class: "plot" }, el("div", { class: "bar" }, el("h3", {}, "Rate and distortion"), splits.length > 1 ? chosen.label : null), host,
      el("p", { class: "hint" }, "Dotted: equal elbo. Dashed: an infinite rate, of a deterministic code. What lies out of view stands at the edge."));
    return { node, draw };
  }

  // The lines rate + distortion = constant.
  function equalElbo(scale) {
    const [x0, x1] = scale.xRange, [y0, y1] = scale.yRange;
    const low = x0 + y0, high = x1 + y1, found = [];
    const step = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((size) => (high - low) / size < 9) ?? (high - low) / 8;
    for (let total = Math.ceil(low / step) * step; total < high; total += step) {
      const from = Math.max(x0, total - y1), to = Math.min(x1, total - y0);
      if (to <= from) continue;
      found.push(svg("line", { class: "equal", x1: scale.x(from), y1: scale.y(total - from), x2: scale.x(to), y2: scale.y(total - to) }));
      const at = from + 0.09 * (to - from);
      if (to - from > 0.12 * (x1 - x0) && scale.y(total - at) > scale.box.top + 14) found.push(svg("text", { class: "equal-label", x: scale.x(at) + 3, y: scale.y(total - at) - 3, "text-anchor": "start" }, format(-total)));
    }
    return found;
  }

  function curves(study, column, named, hidden, openRun) {
    const { columns, runs } = study.curves;
    if (columns.length < 2 || !runs.length) return null;
    const values = runs.map(({ data }) => new Float32Array(Networks.bytes(data).buffer));
    const numberOf = new Map(study.rows.map((row, number) => [row.cells[column.run], number]));
    const quantities = [...new Set(columns.slice(1).map((key) => key.replace(/^(train|valid)_/, "")))];
    const finite = (quantity) => columns.some((key, at) => key.endsWith(quantity) && values.some((array) => array.some((value, i) => i % columns.length === at && Number.isFinite(value))));
    const shown = quantities.filter(finite);
    const state = { quantity: shown[0], split: columns.includes(`valid_${shown[0]}`) ? "valid_" : "train_", log: false };
    const host = el("div");

    function draw() {
      const at = columns.indexOf(`${state.split}${state.quantity}`);
      const lines = runs.map(({ run }, i) => {
        const number = numberOf.get(run), points = [];
        if (at < 0 || number === undefined) return null;
        const setting = study.rows[number].setting;
        if (setting === null || hidden.has(setting)) return null;
        for (let j = 0; j < values[i].length; j += columns.length) {
          const x = values[i][j], y = values[i][j + at];
          if (Number.isFinite(y) && (!state.log || y > 0)) points.push({ x, y });
        }
        return points.length ? { points, number, setting, row: study.rows[number] } : null;
      }).filter(Boolean);
      const ends = (key) => Chart.range(lines.flatMap(({ points }) => points.map((point) => point[key])), key === "y" && state.log);
      const epochs = lines.flatMap(({ points }) => points.map(({ x }) => x));
      const x = { label: "epoch", range: epochs.length ? [Math.min(...epochs) * 0.98, Math.max(...epochs)] : [0, 1] };
      if (x.range[0] === x.range[1]) x.range = [x.range[0] - 1, x.range[1] + 1];
      const paths = lines.map(({ setting }) => svg("path", { class: "curve", stroke: study.settings[setting].color }));
      Chart.build(host, {
        title: `Learning curves: ${state.quantity}. Arrow keys go along the points, Enter opens a run.`,
        x, y: { label: quantityLabel(state.quantity), range: ends("y"), log: state.log },
        draw: (scale) => {
          lines.forEach(({ points }, i) => {
            paths[i].setAttribute("d", points.map(({ x, y }, j) => `${j ? "L" : "M"}${scale.x(x).toFixed(1)},${scale.y(y).toFixed(1)}`).join("") + (points.length < 2 ? "h.1" : ""));
          });
          return paths;
        },
        points: lines.flatMap(({ points, number, row }, line) => points.map(({ x, y }) => ({
          x, y, line, open: () => openRun(number), name: `${named(row)}\nepoch ${format(x)}: ${format(y)}`,
        }))),
        near: (point) => paths.forEach((path, i) => {
          path.classList.toggle("faded", point !== null && i !== point.line);
          path.classList.toggle("near", point !== null && i === point.line);
        }),
      });
    }
    const quantity = select("", shown.map((key) => key.replaceAll("_", " ")), 0, (at) => { state.quantity = shown[at]; draw(); });
    quantity.list.setAttribute("aria-label", "Quantity");
    const both = ["valid_", "train_"].filter((prefix) => columns.some((key) => key.startsWith(prefix)));
    const split = select("", both.map((prefix) => (prefix === "train_" ? "training" : "validation")), both.indexOf(state.split), (at) => { state.split = both[at]; draw(); });
    split.list.setAttribute("aria-label", "Split");
    const log = el("label", {}, el("input", { type: "checkbox", onchange: (event) => { state.log = event.target.checked; draw(); } }), "log");
    const node = el("div", { class: "plot" }, el("div", { class: "bar" }, el("h3", {}, "Learning curves"), quantity.label, both.length > 1 ? split.label : null, log), host,
      el("p", { class: "hint" }, "One line a run. The pointer names it, a click opens it."));
    return { node, draw };
  }

  const quantityLabel = (quantity) => quantity.replaceAll("_", " ") + (/^(loss|distortion|rate|elbo)$/.test(quantity) ? " (nats per image)" : "");

  return { build };
})();
