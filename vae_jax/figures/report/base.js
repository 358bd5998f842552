// What every part of the page uses: elements, numbers as text, the tip, the dialog, the theme.

const Page = (() => {
  // An element with attributes (functions listen: {onclick: ...}) and children (texts are texts, never markup).
  function fill(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }
  const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  // "-inf" and "inf" of the data, as numbers.
  const parsed = (cell) => (cell === "inf" ? Infinity : cell === "-inf" ? -Infinity : cell);

  function format(value, digits = 4) {
    if (value === null || value === undefined || Number.isNaN(value)) return "";
    if (typeof value !== "number") return String(value);
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value).replace("-", "−");
    const size = Math.abs(value);
    const text = size !== 0 && (size < 1e-4 || size >= 1e6)
      ? value.toExponential(2)
      : value.toFixed(Math.min(Math.max(digits - 1 - Math.floor(Math.log10(size || 1)), 0), 4));
    return text.replace("-", "−");
  }

  // Mean and standard error of finite numbers.
  function spread(values) {
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    if (values.length < 2 || !Number.isFinite(mean)) return [mean, NaN];
    const squares = values.reduce((total, value) => total + (value - mean) ** 2, 0);
    return [mean, Math.sqrt(squares / (values.length - 1) / values.length)];
  }

  // The tip: what [data-help] says, under the pointer or the focus, and what plots say.
  const tip = el("div", { class: "tip", role: "status", hidden: true });
  function showTip(text, x, y) {
    tip.textContent = text;
    tip.hidden = !text;
    if (!text) return;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 18}px`;
  }
  const hideTip = () => { tip.hidden = true; };
  const helpOf = (event) => event.target.closest?.("[data-help]");
  addEventListener("pointerover", (event) => {
    const on = helpOf(event);
    if (on) showTip(on.dataset.help, event.clientX, event.clientY);
  });
  addEventListener("pointerout", (event) => { if (helpOf(event)) hideTip(); });
  addEventListener("focusin", (event) => {
    const on = helpOf(event), box = on?.getBoundingClientRect();
    if (on && on.matches(":focus-visible")) showTip(on.dataset.help, box.left, box.bottom);
  });
  addEventListener("focusout", hideTip);
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

  // One dialog for whatever is opened.
  const dialog = el("dialog");
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  function open(title, ...children) {
    hideTip();
    const close = el("button", { type: "button", class: "close", onclick: () => dialog.close() }, "Close");
    dialog.replaceChildren(close, el("h3", {}, title), ...children);
    dialog.setAttribute("aria-label", title);
    dialog.showModal();
  }
  const close = () => dialog.close();

  function theme() {
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    dispatchEvent(new Event("themechange"));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // `task` at most once for each picture that the screen shows, and not before `node` is on it.
  function perFrame(node, task) {
    let isAsked = false, isSeen = true;
    function ask() {
      if (!isAsked) requestAnimationFrame(run);
      isAsked = true;
    }
    function run() {
      if (!isSeen) return; // asked for still, and done when it is seen
      isAsked = false;
      task();
    }
    new IntersectionObserver(([{ isIntersecting }]) => {
      const comes = isIntersecting && !isSeen && isAsked;
      isSeen = isIntersecting || node.hidden;
      if (comes) requestAnimationFrame(run);
    }).observe(node);
    return ask;
  }

  const select = (label, options, chosen, onchange) => {
    const list = el("select", { onchange: () => onchange(list.selectedIndex) }, options.map((text, i) =>
      el("option", { value: i, selected: i === chosen }, text)));
    return { list, label: el("label", {}, label, list) };
  };
  const chip = (color) => {
    const node = el("span", { class: "chip", "aria-hidden": "true" });
    node.style.background = color;
    return node;
  };

  return { el, svg, parsed, format, spread, showTip, hideTip, open, close, theme, ink, perFrame, select, chip, tip, dialog };
})();
