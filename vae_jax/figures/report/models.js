// The models of a study and which two are looked at: a slider over beta, and one to compare with. A network that is told
// beta has a model for each beta that was evaluated, and one whose beta the slider moves without steps.

const Models = (() => {
  const { el, format, parsed, select } = Page;
  const SLICE = 7; // milliseconds of a frame in which codes are computed

  function build(section, study) {
    const { explorer } = study;
    const store = [];
    const arrays = (number) => (store[number] ??= Networks.unpack(explorer.arrays[number]));
    const fixed = explorer.models.map((described) => {
      const model = new Networks.Model(described, arrays);
      const setting = study.settings[described.setting];
      return Object.assign(model, { label: setting.label, color: setting.color, role: setting.role, row: study.rows.find((row) => row.cells[0] === described.run) });
    });
    const networks = [...new Set(fixed.map(({ network }) => network).filter((network) => network !== undefined))];
    const models = [...fixed, ...networks.map(moving)];
    const images = Pictures.read(explorer);
    const state = { group: 0, left: null, right: 0, listeners: [] };
    // What the slider goes through: of a network that is told beta the model that moves.
    const members = () => models.map((_, i) => i).filter((i) => models[i].group === state.group && (models[i].points || models[i].network === undefined));

    // The model of a network that is told beta whose beta moves; `points` are those that were evaluated, by beta.
    function moving(network) {
      const points = fixed.map((_, i) => i).filter((i) => fixed[i].network === network).sort((a, b) => fixed[a].beta - fixed[b].beta);
      const first = fixed[points[0]];
      return Object.assign(new Networks.Model(explorer.models[points[0]], arrays), { points, run: null, role: first.role, label: `${first.called || "one network"}, any beta` });
    }

    // Tells a moving model another beta, within those it was trained for.
    function tell(i, beta) {
      const model = models[i], { points } = model;
      model.beta = Math.max(model.betas[0], Math.min(model.betas[1], beta));
      model.tell(Math.log(model.beta));
      const far = (at) => Math.abs(Math.log(fixed[at].beta / model.beta));
      model.nearest = points.reduce((a, b) => (far(b) < far(a) ? b : a));
      const near = fixed[model.nearest], isPoint = far(model.nearest) < 1e-6;
      model.likelihood = near.likelihood;
      model.row = isPoint ? near.row : null;
      model.label = [model.called, `beta ${format(model.beta, 3)}`].filter(Boolean).join(", ");
      model.color = between(points, model.beta);
      model.box ??= widest(points);
      const { mean, std, importance } = isPoint || !model.read ? codes(model.nearest) : model.read;
      model.read = { mean: [...mean], std: [...std], importance };
      model.fresh = isPoint ? images.count : 0;
      renew(i);
    }

    // Codes of the test images at the beta of a moving model, as many in a frame as there is time for.
    function renew(i) {
      const model = models[i], until = performance.now() + SLICE;
      if (model.isAsked || model.fresh >= images.count) return;
      for (; model.fresh < images.count && performance.now() < until; model.fresh++) {
        const { mean, std } = model.encode(images.pixels(model.fresh));
        [model.read.mean[model.fresh], model.read.std[model.fresh]] = [mean, std];
      }
      if (model.fresh < images.count) {
        model.isAsked = true;
        requestAnimationFrame(() => {
          model.isAsked = false;
          renew(i);
          if (model.fresh >= images.count) changed();
        });
      }
    }

    // The box that holds the planes of all evaluated betas, so that codes move and the plane does not.
    function widest(points) {
      if (fixed[points[0]].latents !== 2) return null;
      const boxes = points.map((at) => Plane.boxOf(fixed[at], codes(at)));
      const center = [0, 1].map((d) => boxes.reduce((total, box) => total + box.center[d], 0) / boxes.length);
      return { center, half: Math.max(...boxes.map((box) => box.half + Math.max(...center.map((value, d) => Math.abs(value - box.center[d]))))) };
    }

    // The colour at a beta, between those of the evaluated ones beside it.
    function between(points, beta) {
      const above = points.find((at) => fixed[at].beta >= beta) ?? points[points.length - 1];
      const below = [...points].reverse().find((at) => fixed[at].beta <= beta) ?? points[0];
      const span = Math.log(fixed[above].beta / fixed[below].beta), share = span > 0 ? Math.log(beta / fixed[below].beta) / span : 0;
      const channels = (color) => [1, 3, 5].map((from) => parseInt(color.slice(from, from + 2), 16));
      const ends = [below, above].map((at) => channels(fixed[at].color));
      return `#${ends[0].map((value, c) => Math.round(value + share * (ends[1][c] - value)).toString(16).padStart(2, "0")).join("")}`;
    }

    // q(z | x) of one test image.
    function code(i, image) {
      const model = models[i];
      if (model.points && image >= model.fresh) return model.encode(images.pixels(image));
      const { mean, std } = codes(i);
      return { mean: mean[image], std: std[image] };
    }

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

    // The one to compare with: a deterministic code, else one without KL; of the same group where that has several. Beside
    // a network that is told beta, else the same one at its least beta.
    function partner() {
      const free = (members().length > 1 ? members() : models.map((_, i) => i)).filter((i) => i !== state.right && !models[i].points);
      return free.find((i) => models[i].role === "deterministic") ?? free.find((i) => models[i].role === "no_kl") ?? models[state.right].points?.[0] ?? free[0] ?? null;
    }
    // Where the slider starts: reconstruction and KL with beta nearest to 1.
    const far = (i) => Math.abs(Math.log((models[i].beta ?? 1) || 1e-9));
    function start() {
      const both = members().filter((i) => models[i].role === "both");
      return both.length ? both.reduce((a, b) => (far(b) < far(a) ? b : a)) : members()[members().length - 1];
    }

    const changed = () => { display(); state.listeners.forEach((listener) => listener()); };
    function choose({ group, left, right, beta }) {
      if (group !== undefined && group !== state.group) {
        state.group = group;
        state.right = start();
        state.left = partner();
        fill();
      }
      if (right !== undefined) state.right = right;
      if (left !== undefined) state.left = left;
      if (beta !== undefined) tell(state.right, beta);
      changed();
    }
    // Brings a model that was evaluated under the slider.
    function show(i) {
      const { group, network, beta } = models[i];
      choose({ group });
      choose(network === undefined ? { right: i } : { right: members().find((at) => models[at].network === network), beta });
    }

    const slider = el("input", { type: "range", min: 0, step: 1, "aria-label": "Model, from the autoencoder over beta to the rate alone", oninput: () => choose({ right: members()[slider.value] }) });
    const marks = el("datalist", { id: `betas-${Math.random().toString(36).slice(2)}` });
    const betas = el("input", { type: "range", class: "beta", step: "any", list: marks.id, "aria-label": "Beta, on a logarithmic scale", oninput: () => choose({ beta: Math.exp(betas.value) }) });
    const output = el("output", {}), measured = el("span", { class: "measured" });
    const compare = select("Compare with", [], 0, (at) => choose({ left: at ? at - 1 : null }));
    const group = select("Setting", explorer.groups.map((text) => text || "all"), 0, (at) => choose({ group: at }));
    group.label.className = "group";

    function fill() {
      slider.max = members().length - 1;
      slider.hidden = members().length < 2;
      compare.list.replaceChildren(el("option", {}, "nothing"), ...fixed.map(({ label }) => el("option", {}, label)));
    }
    function display() {
      const model = models[state.right], at = members().indexOf(state.right);
      slider.value = at;
      slider.setAttribute("aria-valuetext", model.label);
      betas.hidden = !model.points;
      if (model.points) {
        [betas.min, betas.max] = model.betas.map(Math.log);
        betas.value = Math.log(model.beta);
        betas.setAttribute("aria-valuetext", model.label);
        if (marks.children.length !== model.points.length) marks.replaceChildren(...model.points.map((i) => el("option", { value: Math.log(fixed[i].beta) })));
      }
      compare.list.selectedIndex = state.left === null ? 0 : state.left + 1;
      group.list.selectedIndex = state.group;
      output.replaceChildren(Page.chip(model.color), model.label);
      const cell = (key) => parsed(model.row?.cells[study.columns.findIndex((column) => column.key === key)] ?? null);
      measured.textContent = [["rate", "rate"], ["distortion", "distortion"], ["elbo", "elbo"]].map(([key, name]) => (cell(key) === null ? "" : `${name} ${format(cell(key))}`)).filter(Boolean).join(" · ");
      if (model.points && !model.row) measured.textContent = `no beta of the study; the nearest is ${format(fixed[model.nearest].beta)}`;
    }

    models.forEach(({ points }, i) => { if (points) tell(i, fixed[points.reduce((a, b) => (far(b) < far(a) ? b : a))].beta); });
    state.right = start();
    state.left = partner();
    fill();
    const one = fixed.length === 1;
    section.append(el("div", { class: "models" },
      explorer.groups.length > 1 ? group.label : null,
      one ? null : compare.label,
      el("label", {}, el("span", { class: "said" }, output, measured), one ? null : slider, betas, marks)));
    const notes = [];
    const seeds = [...new Set(fixed.map((model) => model.row?.cells[study.columns.findIndex((column) => column.key === "seed")]))];
    if (seeds.length === 1 && seeds[0] !== undefined) notes.push(`Models of seed ${seeds[0]}.`);
    if (explorer.left_out > 0) notes.push(`${explorer.left_out} of ${study.settings.filter(({ role }) => role !== "closed_form").length} settings are left out, for the size of this page.`);
    if (!explorer.precise) notes.push("Weights are stored in 16 bits here, so that numbers differ a little from those of the study.");
    if (networks.length) notes.push(`A network that is told beta moves over all that it was trained for; ticks are those that were evaluated.`);
    if (notes.length) section.append(el("p", { class: "hint" }, notes.join(" ")));
    display();
    return {
      models, images, state, choose, code, codes, members, show,
      left: () => (state.left === null ? null : models[state.left]),
      right: () => models[state.right],
      // The two that are looked at, the compared one first.
      both: () => [...(state.left === null || state.left === state.right ? [] : [state.left]), state.right],
      listen: (listener) => state.listeners.push(listener),
    };
  }

  return { build };
})();
