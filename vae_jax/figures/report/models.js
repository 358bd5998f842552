// The models of a study and which two are looked at: a slider over beta, and one to compare with.

const Models = (() => {
  const { el, format, parsed, select } = Page;

  function build(section, study) {
    const { explorer } = study;
    const store = [];
    const arrays = (number) => (store[number] ??= Networks.unpack(explorer.arrays[number]));
    const models = explorer.models.map((described) => {
      const model = new Networks.Model(described, arrays);
      const setting = study.settings[described.setting];
      return Object.assign(model, { label: setting.label, color: setting.color, role: setting.role, row: study.rows.find((row) => row.cells[0] === described.run) });
    });
    const images = Pictures.read(explorer);
    const state = { group: 0, left: null, right: 0, listeners: [] };
    const members = () => models.map((_, i) => i).filter((i) => models[i].group === state.group);

    // Mean codes, stds and importance of the test images, as evaluation wrote them, or by the encoder.
    function codes(i) {
      const model = models[i];
      if (model.read) return model.read;
      const n = model.latents, described = explorer.models[i];
      const unflat = (array) => Array.from({ length: images.count }, (_, k) => Array.from(array.subarray(k * n, (k + 1) * n)));
      if (described.codes) {
        model.read = { mean: unflat(arrays(described.codes.array)), std: unflat(arrays(described.stds.array)), importance: Array.from(arrays(described.importance.array)) };
      } else {
        const each = Array.from({ length: images.count }, (_, k) => model.encode(images.pixels(k)));
        const rates = each.map((posterior) => model.ratePerLatent(posterior) ?? posterior.mean.map((value) => value * value));
        model.read = {
          mean: each.map(({ mean }) => mean), std: each.map(({ std }) => std),
          importance: Array.from({ length: n }, (_, d) => rates.reduce((total, rate) => total + rate[d], 0) / rates.length),
        };
      }
      return model.read;
    }

    // The one to compare with: a deterministic code, else one without KL; of the same group where that has several.
    function partner() {
      const free = (members().length > 1 ? members() : models.map((_, i) => i)).filter((i) => i !== state.right);
      return free.find((i) => models[i].role === "deterministic") ?? free.find((i) => models[i].role === "no_kl") ?? free[0] ?? null;
    }
    // Where the slider starts: reconstruction and KL with beta nearest to 1.
    function start() {
      const both = members().filter((i) => models[i].role === "both");
      const far = (i) => Math.abs(Math.log((models[i].beta ?? 1) || 1e-9));
      return both.length ? both.reduce((a, b) => (far(b) < far(a) ? b : a)) : members()[members().length - 1];
    }

    const changed = () => { show(); state.listeners.forEach((listener) => listener()); };
    function choose({ group, left, right }) {
      if (group !== undefined && group !== state.group) {
        state.group = group;
        state.right = start();
        state.left = partner();
        fill();
      }
      if (right !== undefined) state.right = right;
      if (left !== undefined) state.left = left;
      changed();
    }

    const slider = el("input", { type: "range", min: 0, step: 1, "aria-label": "Model, from the autoencoder over beta to the rate alone", oninput: () => choose({ right: members()[slider.value] }) });
    const output = el("output", {}), measured = el("span", { class: "measured" });
    const compare = select("Compare with", [], 0, (at) => choose({ left: at ? at - 1 : null }));
    const group = select("Setting", explorer.groups.map((text) => text || "all"), 0, (at) => choose({ group: at }));
    group.label.className = "group";

    function fill() {
      slider.max = members().length - 1;
      slider.hidden = members().length < 2;
      compare.list.replaceChildren(el("option", {}, "nothing"), ...models.map(({ label }) => el("option", {}, label)));
    }
    function show() {
      const model = models[state.right], at = members().indexOf(state.right);
      slider.value = at;
      slider.setAttribute("aria-valuetext", model.label);
      compare.list.selectedIndex = state.left === null ? 0 : state.left + 1;
      group.list.selectedIndex = state.group;
      output.replaceChildren(Page.chip(model.color), model.label);
      const cell = (key) => parsed(model.row?.cells[study.columns.findIndex((column) => column.key === key)] ?? null);
      measured.textContent = [["rate", "rate"], ["distortion", "distortion"], ["elbo", "elbo"]].map(([key, name]) => (cell(key) === null ? "" : `${name} ${format(cell(key))}`)).filter(Boolean).join(" · ");
    }

    state.right = start();
    state.left = partner();
    fill();
    const one = models.length === 1;
    section.append(el("div", { class: "models" },
      explorer.groups.length > 1 ? group.label : null,
      one ? null : compare.label,
      el("label", {}, el("span", { class: "said" }, output, measured), one ? null : slider)));
    const notes = [];
    const seeds = [...new Set(models.map((model) => model.row?.cells[study.columns.findIndex((column) => column.key === "seed")]))];
    if (seeds.length === 1 && seeds[0] !== undefined) notes.push(`Models of seed ${seeds[0]}.`);
    if (explorer.left_out > 0) notes.push(`${explorer.left_out} of ${explorer.left_out + models.length} settings are left out, for the size of this page.`);
    if (!explorer.precise) notes.push("Weights are stored in 16 bits here, so that numbers differ a little from those of the study.");
    if (notes.length) section.append(el("p", { class: "hint" }, notes.join(" ")));
    show();
    return {
      models, images, state, choose, codes, members,
      left: () => (state.left === null ? null : models[state.left]),
      right: () => models[state.right],
      // The two that are looked at, the compared one first.
      both: () => [...(state.left === null || state.left === state.right ? [] : [state.left]), state.right],
      listen: (listener) => state.listeners.push(listener),
    };
  }

  return { build };
})();
