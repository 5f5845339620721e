"use strict";
// The page is complete without this script; it adds the theme button, sorting, filters, highlights and copying.
const root = document.documentElement;
const remember = (value) => { try { localStorage.setItem("fiberscope-theme", value); } catch (e) { /* private mode */ } };
try {
  const saved = localStorage.getItem("fiberscope-theme");
  if (saved === "light" || saved === "dark") root.dataset.theme = saved;
} catch (e) { /* no storage for files in some browsers */ }

const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
const make = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

function themeButton() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", dark() ? "Use light colours" : "Use dark colours");
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remember(root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch (e) {
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function copying(from) {
  for (const button of all("button.copy", from)) {
    button.hidden = false;
    const label = button.textContent;
    button.addEventListener("click", async () => {
      const text = button.dataset.copy || document.getElementById(button.dataset.from).textContent;
      button.textContent = (await copyText(text)) ? "copied" : "not copied";
      setTimeout(() => { button.textContent = label; }, 1600);
    });
  }
  for (const button of all("button.download", from)) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const text = document.getElementById(button.dataset.from).textContent;
      const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })) });
      link.download = button.dataset.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
}

const value = (cell) => {
  const text = cell.textContent.trim();
  const number = Number(text.replace(/,/g, "").replace(/\u2212/g, "-").replace("\u221e", "Infinity"));
  return text !== "" && !Number.isNaN(number) ? number : text;
};
const before = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b
  : String(a).localeCompare(String(b), undefined, { numeric: true }));

function sortable(table) {
  const heads = all("thead th", table);
  heads.forEach((head, column) => {
    const button = make("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = Array.from(table.tBodies[0].rows);
      rows.sort((a, b) => (down ? -1 : 1) * before(value(a.cells[column]), value(b.cells[column])));
      table.tBodies[0].append(...rows);
    });
  });
}

function filtered(table) {
  const rows = Array.from(table.tBodies[0].rows);
  if (rows.length < 6) return;
  const box = table.closest(".scroll");
  if (rows.length > 14) box.classList.add("tall");
  const input = make("input", { type: "search", placeholder: "words in a row" });
  const label = make("label", { textContent: "Filter " });
  const said = make("span");
  said.setAttribute("role", "status");
  label.append(input);
  const line = make("div", { className: "filter" });
  line.append(label, said);
  box.before(line);
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let kept = 0;
    for (const row of rows) {
      const text = Array.from(row.cells, (c) => c.textContent.toLowerCase()).join(" \u00b7 ");
      const fits = words.every((word) => text.includes(word));
      row.classList.toggle("filtered", !fits);
      kept += fits;
    }
    said.textContent = words.length ? `${kept} of ${rows.length} rows` : `${rows.length} rows`;
  };
  input.addEventListener("input", show);
  show();
}

function highlights(card) {
  const drawing = card.querySelector("svg.net");
  const marked = all("[data-class]", card);
  if (!drawing || !marked.length) return;
  const light = (key) => {
    drawing.classList.toggle("dim", key !== null);
    marked.forEach((item) => item.classList.toggle("lit", item.dataset.class === key));
  };
  for (const item of marked) {
    item.addEventListener("mouseenter", () => light(item.dataset.class));
    item.addEventListener("mouseleave", () => light(null));
  }
}

function lattice(box) {
  const kinds = all(".kind", box);
  const links = all(".link", box);
  const details = box.querySelector(".details");
  const place = (kind) => { const r = kind.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; };
  const reach = (id, from, to) => {
    const seen = new Set([id]);
    for (const one of seen) for (const link of links) if (link.dataset[from] === one) seen.add(link.dataset[to]);
    return seen;
  };
  const choose = (kind) => {
    const id = kind.dataset.id;
    const below = reach(id, "a", "b");
    const above = reach(id, "b", "a");
    for (const other of kinds) {
      other.classList.toggle("chosen", other === kind);
      other.setAttribute("aria-pressed", String(other === kind));
      other.setAttribute("tabindex", other === kind ? "0" : "-1");
    }
    for (const link of links) {
      const inside = (set) => set.has(link.dataset.a) && set.has(link.dataset.b);
      link.classList.toggle("on", inside(below) || inside(above));
    }
    details.textContent = kind.dataset.details;
  };
  const step = (kind, dx, dy) => {
    const [x, y] = place(kind);
    let best = null;
    let least = Infinity;
    for (const other of kinds) {
      const [u, v] = place(other);
      const along = (u - x) * dx + (v - y) * dy;
      const aside = Math.abs((u - x) * dy) + Math.abs((v - y) * dx);
      if (along > 4 && (dy || aside < 4) && along * 4 + aside < least) { best = other; least = along * 4 + aside; }
    }
    if (best) { choose(best); best.focus(); }
  };
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  kinds.forEach((kind, n) => {
    kind.setAttribute("role", "button");
    kind.setAttribute("aria-pressed", "false");
    kind.setAttribute("tabindex", n ? "-1" : "0");
    kind.addEventListener("click", () => choose(kind));
    kind.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") choose(kind);
      else if (moves[event.key]) step(kind, ...moves[event.key]);
      else return;
      event.preventDefault();
    });
  });
  const here = kinds.find((kind) => kind.classList.contains("here"));
  if (!here) return;
  choose(here);
  const scroll = box.querySelector(".scroll");
  scroll.scrollLeft += place(here)[0] - scroll.getBoundingClientRect().x - scroll.clientWidth / 2;
}

const boxes = new ResizeObserver((changed) => {  // Tab stops only at boxes that scroll
  for (const { target } of changed) {
    const scrolls = target.scrollWidth > target.clientWidth + 1 || target.scrollHeight > target.clientHeight + 1;
    if (scrolls || target === document.activeElement) target.setAttribute("tabindex", "0");
    else target.removeAttribute("tabindex");
  }
});

const starts = [  // what makes a part of the page interactive; a live page calls them again for what it replaces
  copying,
  (from) => all("table.tools", from).forEach((table) => { sortable(table); filtered(table); }),
  (from) => all(".card", from).forEach(highlights),
  (from) => all(".lattice-box", from).forEach(lattice),
  (from) => all(".scroll", from).forEach((box) => boxes.observe(box)),
];

document.addEventListener("DOMContentLoaded", () => {
  themeButton();
  starts.forEach((start) => start(document));
});
