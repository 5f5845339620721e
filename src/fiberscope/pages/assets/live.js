
// A live page: the server sends the new main part whenever the run has grown.
document.addEventListener("DOMContentLoaded", () => {
  const bar = document.getElementById("live");
  const said = bar.querySelector("span");
  const hold = bar.querySelector("button");
  let held = false;
  let waiting = null;
  let ended = false;
  const main = () => document.querySelector("main");
  let told = "";
  const typing = () => main().querySelector("input:focus, select:focus, textarea:focus");
  const busy = () => held || document.hidden || typing() || main().querySelector("svg.plot:hover");
  const places = (root) => all("a[href], button, summary, [tabindex]", root);
  const note = () => { said.textContent = waiting !== null && !held && busy() ? `${told}; shown when you are done here` : told; };
  const show = () => {
    if (waiting === null || busy()) return note();
    const fresh = new DOMParser().parseFromString(waiting, "text/html").querySelector("main");
    waiting = null;
    const before = all("details", main()).map((one) => one.open);
    const aside = all(".scroll", main()).map((one) => one.scrollLeft);
    const focused = places(main()).indexOf(document.activeElement);
    main().replaceWith(document.adoptNode(fresh));
    all("details", fresh).forEach((one, k) => { one.open = Boolean(before[k]); });
    all(".scroll", fresh).forEach((one, k) => { one.scrollLeft = aside[k] || 0; });
    starts.forEach((start) => start(fresh));
    if (focused >= 0 && places(fresh)[focused]) places(fresh)[focused].focus({ preventScroll: true });
    note();
  };
  const say = (text, look) => {
    said.textContent = told = text;
    bar.className = look;
  };
  const source = new EventSource("events");
  source.addEventListener("page", (event) => {
    const data = JSON.parse(event.data);
    waiting = data.main;
    document.title = data.title;
    ended = data.ended;
    say(ended ? `the run has ended: ${data.said}` : `live: ${data.said}`, ended ? "ended" : "on");
    show();
    if (ended) source.close();
  });
  source.addEventListener("trouble", (event) => say(JSON.parse(event.data), "lost"));
  source.addEventListener("error", () => { if (!ended) say("no connection to fiberscope watch; trying again", "lost"); });
  hold.hidden = false;
  hold.addEventListener("click", () => {
    held = !held;
    hold.textContent = held ? "Resume" : "Pause";
    show();
  });
  setInterval(show, 1000);  // what was held back while somebody was reading a chart
});
