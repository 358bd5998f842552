// The table of results: means over seeds or every run, sorted by a click, columns explained by a tip.

const Table = (() => {
  const { el, format, parsed, spread } = Page;

  // Lines of the table: [{cells: [{value, error}], runs: [row numbers]}], over seeds or one for each run.
  function lines(study, perRun) {
    const rows = study.rows.map((row, number) => ({ row, number }));
    if (perRun) {
      return rows.map(({ row, number }) => ({ cells: row.cells.map((cell) => ({ value: parsed(cell) })), runs: [number], setting: row.setting }));
    }
    const groups = new Map();
    for (const each of rows) {
      const key = each.row.setting ?? `alone ${each.number}`;
      groups.set(key, [...(groups.get(key) ?? []), each]);
    }
    return [...groups.values()].map((members) => ({
      runs: members.map(({ number }) => number),
      setting: members[0].row.setting,
      cells: study.columns.map(({ key }, at) => {
        const values = members.map(({ row }) => parsed(row.cells[at])).filter((value) => value !== null);
        if (!values.length) return { value: null };
        if (key === "seed") return { value: new Set(values).size };
        if (values.every((value) => value === values[0])) return { value: values[0], error: key.includes(".") ? NaN : spread(values)[1] };
        if (key === "run" || typeof values[0] !== "number") return { value: [...new Set(values)].join(", ") };
        const [value, error] = spread(values);
        return { value, error };
      }),
    }));
  }

  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  }

  // A cell's text: settings as they were written, means with as many digits as their errors allow.
  function shown(key, value, error) {
    if (key.includes(".")) return [value === null ? "" : String(value)];
    if (!(error > 0)) return [format(value)];
    const digits = Math.max(0, Math.min(4, 1 - Math.floor(Math.log10(error))));
    return [value.toFixed(digits).replace("-", "−"), el("span", { class: "error" }, ` ±${error.toFixed(digits)}`)];
  }

  // Builds the table in `section`; `openRun(number)` opens a row.
  function build(section, study, openRun) {
    const state = { perRun: false, every: false, sort: null, down: false };
    const body = el("tbody"), head = el("tr"), table = el("table", { class: "sortable" }, el("thead", {}, head), body);

    const toggle = (text, key) => el("button", {
      type: "button", "aria-pressed": "false",
      onclick: (event) => {
        state[key] = !state[key];
        event.currentTarget.setAttribute("aria-pressed", state[key]);
        draw();
      },
    }, text);

    function shownColumns() {
      const places = study.columns.map((_, at) => at);
      return places.filter((at) => {
        const { key, main } = study.columns[at];
        if (key === "name") return false;
        if (key === "run") return state.perRun;
        return state.every || main || key === "seed";
      });
    }

    function sortBy(at) {
      state.down = state.sort === at ? !state.down : false;
      state.sort = at;
      draw();
    }

    function header(text, at, help) {
      const sorted = state.sort === at ? (state.down ? "descending" : "ascending") : null;
      return el("th", { scope: "col", "aria-sort": sorted }, el("button", { type: "button", "data-help": help || null, "data-column": text, onclick: () => sortBy(at) }, text.replaceAll("_", "_\u200b")));
    }

    function draw() {
      const places = shownColumns();
      const last = study.settings.length;
      const sorted = lines(study, state.perRun).sort((a, b) => (a.setting ?? last) - (b.setting ?? last) || a.runs[0] - b.runs[0]);
      const labelOf = (line) => study.settings[line.setting]?.label ?? study.rows[line.runs[0]].cells[study.columns.findIndex(({ key }) => key === "name")];
      if (state.sort !== null) {
        const value = (line) => (state.sort === -1 ? labelOf(line) : line.cells[state.sort].value);
        sorted.sort((a, b) => {
          const order = compare(value(a), value(b));
          return value(a) === null || value(b) === null ? order : state.down ? -order : order;
        });
      }
      const shortest = (key) => (key === "seed" && !state.perRun ? "seeds" : key.replace(/^objective\./, ""));
      head.replaceChildren(header("setting", -1, "Runs that differ in their seed only."),
        ...places.map((at) => header(shortest(study.columns[at].key), at, study.columns[at].help)));
      const byKey = (line) => (event) => {
        if (event.key !== "Enter") return;
        event.preventDefault(); // else the same key would press the button that has the focus then
        openRun(line.runs[0]);
      };
      body.replaceChildren(...sorted.map((line) => el("tr", { tabindex: "0", onclick: () => openRun(line.runs[0]), onkeydown: byKey(line) },
        el("td", { title: labelOf(line) }, Page.chip(study.settings[line.setting]?.color ?? "transparent"), " ", labelOf(line)),
        ...places.map((at) => {
          const { value, error } = line.cells[at];
          return el("td", {}, ...shown(study.columns[at].key, value, error));
        }))));
    }

    section.append(
      el("div", { class: "bar" }, toggle("One line per run", "perRun"), toggle(`All ${study.columns.length} columns`, "every"),
        el("span", { class: "hint" }, "Means ± standard errors over seeds, test split. A header sorts; a line opens its run.")),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of results" }, table));
    draw();
  }

  return { build };
})();
