// Builds the page of each study from its data, and opens runs.

const report = (() => {
  const { el, format, parsed } = Page;
  const { studies } = JSON.parse(document.getElementById("data").textContent);
  document.body.append(Page.tip, Page.dialog);
  document.getElementById("theme").addEventListener("click", Page.theme);
  for (const button of document.querySelectorAll(".enlarge")) {
    button.addEventListener("click", () => {
      const { src, alt } = button.firstElementChild;
      Page.open(alt, el("img", { src, alt }));
    });
  }
  return { studies: studies.map((study, number) => build(study, number)) };

  function build(study, number) {
    const at = (name) => document.getElementById(`${name}-${number}`);
    const explorer = study.explorer ? Models.build(at("explore"), study) : null;
    const parts = explorer ? {
      plane: Plane.build(at("explore"), explorer),
      sliders: Sliders.build(at("explore"), explorer),
      drawing: Drawing.build(at("explore"), explorer),
      line: Line.build(at("explore"), explorer),
    } : {};

    // What is known of a run, and its model if the page has it.
    function openRun(row) {
      const { cells, setting } = study.rows[row], run = parsed(cells[0]);
      const lines = study.columns.map(({ key, help }, i) => (cells[i] === null ? null : el("tr", {}, el("th", { scope: "row", "data-help": help || null }, key), el("td", { class: "num" }, format(parsed(cells[i]), 6)))));
      const model = explorer?.models.findIndex((each) => each.run === run) ?? -1;
      const other = explorer && model < 0 ? study.explorer.models.findIndex((each) => each.setting === setting) : -1;
      const found = model >= 0 ? model : other;
      const explore = found < 0 ? null : el("button", {
        type: "button",
        onclick: () => {
          Page.close();
          explorer.show(found);
          at("explore").scrollIntoView();
        },
      }, model >= 0 ? "Explore this model" : `Explore run ${explorer.models[found].run}, of the same setting`);
      Page.open(`Run ${run}${study.settings[setting] ? `: ${study.settings[setting].label}` : ""}`, el("p", {}, explore), el("table", { class: "plain" }, el("tbody", {}, lines)));
    }
    Table.build(at("results"), study, openRun);
    Plots.build(at("curves"), study, openRun);
    return { study, explorer, openRun, ...parts };
  }
})();
