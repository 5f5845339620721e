
// Charts and films: a cursor that reads values off a chart's table; a slider that moves frames, and the line "now".
const SVG = "http://www.w3.org/2000/svg";
const shape = (tag, attributes) => {
  const made = document.createElementNS(SVG, tag);
  for (const [name, one] of Object.entries(attributes)) made.setAttribute(name, one);
  return made;
};

function cursor(figure) {
  const drawing = figure.querySelector("svg.plot");
  const table = figure.querySelector("details.values table");
  const line = drawing.querySelector(".cursor");
  const readout = figure.querySelector(".readout");
  const names = all("thead th", table).map((head) => head.textContent);
  const rows = Array.from(table.tBodies[0].rows, (row) => Array.from(row.cells, (cell) => cell.textContent));
  const spots = figure.querySelector("details.values").dataset.spots.split(" ").map(Number);
  const known = spots.map((_, k) => k).filter((k) => !Number.isNaN(spots[k]));
  if (!known.length) return;
  const last = readout.textContent;
  let at = known.length - 1;
  const say = (k) => rows[k].map((text, n) => `${names[n]}${n ? ": " : " = "}${text}`).join(" \u00b7 ");
  const show = (place) => {
    at = place;
    const k = known[at];
    line.setAttribute("x1", spots[k]);
    line.setAttribute("x2", spots[k]);
    line.removeAttribute("hidden");
    readout.textContent = say(k);
    drawing.setAttribute("aria-valuenow", at);
    drawing.setAttribute("aria-valuetext", say(k));
  };
  const hide = () => {
    if (document.activeElement === drawing) return;
    line.setAttribute("hidden", "");
    readout.textContent = last;
  };
  const nearest = (event) => {
    const box = drawing.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * drawing.viewBox.baseVal.width;
    let best = 0;
    known.forEach((k, n) => { if (Math.abs(spots[k] - x) < Math.abs(spots[known[best]] - x)) best = n; });
    return best;
  };
  const named = { role: "slider", tabindex: 0, "aria-valuemin": 0, "aria-valuemax": known.length - 1, "aria-valuenow": at,
    "aria-valuetext": say(known[at]) };
  for (const [name, one] of Object.entries(named)) drawing.setAttribute(name, one);
  drawing.addEventListener("pointermove", (event) => show(nearest(event)));
  drawing.addEventListener("pointerdown", (event) => show(nearest(event)));
  drawing.addEventListener("pointerleave", hide);
  drawing.addEventListener("focus", () => show(at));
  drawing.addEventListener("blur", hide);
  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9 };
  drawing.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    show(Math.min(known.length - 1, Math.max(0, at + steps[event.key])));
    event.preventDefault();
  });
}

function now(article, time) {
  for (const drawing of all("figure.charted > svg", article)) {
    const [kind, ...rest] = drawing.dataset.scale.split(" ");
    const [low, high, left, right] = rest.map(Number);
    const share = kind === "log" ? Math.log(time / low) / Math.log(high / low) : (time - low) / (high - low);
    const line = drawing.querySelector(".now");
    const seen = share >= 0 && share <= 1;
    line.toggleAttribute("hidden", !seen);
    if (!seen) continue;
    const x = (left + share * (right - left)).toFixed(1);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }
}

function sphere(drawing, box) {
  const frames = drawing.dataset.frames.split(";").map((frame) => frame.split(" ").map((dot) => dot.split(",").map(Number)));
  const signs = drawing.dataset.signs;
  const names = JSON.parse(drawing.dataset.axes);
  const solid = names.length === 3;
  const half = "half" in drawing.dataset;
  const middle = drawing.viewBox.baseVal.width / 2;
  const radius = 128;
  const view = { turn: box.querySelector(".turn"), tilt: box.querySelector(".tilt") };
  let current = 0;
  const place = (x, y, z) => {
    if (!solid) return [x, y, 0];
    const [a, b] = [view.turn.value, view.tilt.value].map((degrees) => degrees * Math.PI / 180);
    const right = Math.cos(a) * x + Math.sin(a) * y;
    const deep = Math.cos(a) * y - Math.sin(a) * x;
    return [right, Math.cos(b) * z + Math.sin(b) * deep, Math.sin(b) * z - Math.cos(b) * deep];
  };
  const spot = ([right, up]) => [(middle + radius * right).toFixed(1), (middle - radius * up).toFixed(1)];
  const arc = (point, from, to) => Array.from({ length: 49 }, (_, k) => point(from + (to - from) * k / 48));
  const path = (points, look) => shape("path", { class: look, d: `M${points.map((p) => spot(p).join(" ")).join("L")}` });
  const ring = (first, second, front) => {  // the part of a great circle before or behind the middle
    const pieces = [[]];
    for (const p of arc((a) => place(...[0, 1, 2].map((k) => Math.cos(a) * first[k] + Math.sin(a) * second[k])), 0, 2 * Math.PI)) {
      if ((p[2] >= -1e-9) === front) pieces[pieces.length - 1].push(p);
      else if (pieces[pieces.length - 1].length) pieces.push([]);
    }
    return pieces.filter((piece) => piece.length > 1).map((piece) => path(piece, front ? "rim" : "rim back"));
  };
  const word = (text, at) => {
    const [x, y] = spot(at.map((c) => 1.14 * c));
    const made = shape("text", { x, y: Number(y) + 4 });
    made.textContent = text;
    return made;
  };
  const frame = () => {
    const out = [];
    const texts = [];
    if (solid) out.push(...ring([1, 0, 0], [0, 1, 0], false));
    out.push(half && !solid ? path(arc((a) => [Math.cos(a), Math.sin(a), 0], 0, Math.PI), "rim")
      : shape("circle", { class: "rim", cx: middle, cy: middle, r: radius }));
    const ends = solid ? [[1, 0, 0], [0, 1, 0], [0, 0, 1]] : [[1, 0, 0], [0, 1, 0]];
    if (!solid) out.push(path([[-1, 0], [1, 0]], "rim back"), path([[0, half ? 0 : -1], [0, 1]], "rim back"));
    ends.forEach((end, k) => {
      const at = place(...end);
      if (solid) out.push(path([[0, 0, 0], at], "rim back"));
      texts.push(word(names[k], at));
    });
    return [out, texts];
  };
  const draw = () => {
    const dots = frames[current].map((dot, n) => {
      const r = dot[dot.length - 1];
      const at = place(dot[0] / 1000, dot[1] / 1000, solid ? dot[2] / 1000 : 0);
      const [cx, cy] = spot(at);
      const look = `neuron ${signs[n] === "+" ? "plus" : "minus"}${at[2] < -1e-9 ? " far" : ""}`;
      return [at[2], shape("circle", { class: look, cx, cy, r })];
    });
    dots.sort((a, b) => a[0] - b[0]);
    const front = solid ? ring([1, 0, 0], [0, 1, 0], true) : [];
    const [lines, texts] = frame();
    drawing.replaceChildren(...lines, ...dots.map((dot) => dot[1]), ...front, ...texts);
  };
  if (solid) {
    for (const range of Object.values(view)) range.addEventListener("input", draw);
    let held = null;
    drawing.addEventListener("pointerdown", (event) => {
      held = [event.clientX, event.clientY, Number(view.turn.value), Number(view.tilt.value)];
      drawing.setPointerCapture(event.pointerId);
      drawing.classList.add("held");
    });
    drawing.addEventListener("pointermove", (event) => {
      if (!held) return;
      const wrapped = held[2] - 0.6 * (event.clientX - held[0]);
      view.turn.value = ((wrapped + 180) % 360 + 360) % 360 - 180;
      view.tilt.value = held[3] + 0.6 * (event.clientY - held[1]);
      draw();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      drawing.addEventListener(end, () => { held = null; drawing.classList.remove("held"); });
    }
  }
  return (k) => { current = k; draw(); };
}

function film(box) {
  const times = JSON.parse(box.dataset.times);
  const words = JSON.parse(box.dataset.words);
  const slider = box.querySelector("input.time");
  const button = box.querySelector("button.play");
  const moment = box.querySelector(".moment");
  const frames = all("g.frame", box);
  const round = box.querySelector("svg.sphere");
  const draw = round ? sphere(round, box) : (k) => frames.forEach((one, n) => one.toggleAttribute("hidden", n !== k));
  const article = box.closest("article") || document;
  let timer = null;
  const show = (k, moved) => {
    slider.value = k;
    slider.setAttribute("aria-valuetext", words[k]);
    moment.textContent = words[k];
    draw(k);
    if (moved) now(article, times[k]);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const play = () => {
    if (Number(slider.value) === times.length - 1) show(0, true);
    button.textContent = "Pause";
    timer = setInterval(() => {  // one still picture a second for those who want less motion
      const next = Number(slider.value) + 1;
      if (next < times.length) show(next, true);
      if (next >= times.length - 1) stop();
    }, still.matches ? 1000 : 160);
  };
  button.addEventListener("click", () => (timer === null ? play() : stop()));
  slider.addEventListener("input", () => { stop(); show(Number(slider.value), true); });
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); });
  box.classList.add("on");
  show(0, false);
}

starts.push((from) => {
  all("figure.charted", from).forEach(cursor);
  all(".film", from).forEach(film);
});
