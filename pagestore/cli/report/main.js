// Putting it together: what a click and a key do, and what is drawn anew when.

function pick(v, which = "a") {
  if (which === "b" && v === state.a) return;
  differenceRows = AT_ONCE;
  if (which === "a") change({ a: v, b: state.b === v ? null : state.b, focus: v });
  else change({ b: v, focus: v, next: "a" });
}

function showPicks() {
  const button = (id, what, v, hint) => {
    $(id).replaceChildren(
      make("span", { class: "what" }, what),
      make("span", { class: "which" }, v === null ? hint : title(v)),
      make("span", { class: "quiet" }, v === null || !namesOf(v).length ? "" : `#${V.id[v]}`),
    );
    pressed(id, state.next === id.at(-1));
  };
  button("pick-a", "Version", state.a, "");
  button("pick-b", "Compared with", state.b, state.next === "b" ? "click one in the graph" : "none");
  $("swap").hidden = $("clear").hidden = state.b === null;
}

function redraw() {
  readColours();
  sizeGraph();
  drawMap();
  showGrowth();
}

listeners.push((what) => {
  const picked = "a" in what || "b" in what;
  showPicks();
  if (picked) {
    showVersion();
    showRegions();
    showSpace();
    showGrowth();
    showDifference();
    $("graph-said").textContent =
      `Picked ${described(state.a)}` + (state.b === null ? "" : `, compared with ${described(state.b)}`);
  } else if ("region" in what) showRegions();
  if ("focus" in what) revealInGraph(state.focus);
  drawGraph();
  if (picked || "region" in what || "colour" in what) drawMap();
});

// ----------------------------------------------------------------------------------- the graph

const ALONG = {
  ArrowLeft: (v) => (V.parent[v] >= 0 ? V.parent[v] : v),
  ArrowRight: (v) => children[v].find((c) => graph.lane[c] === graph.lane[v]) ?? children[v][0] ?? v,
  ArrowUp: (v) => beside(v, -1),
  ArrowDown: (v) => beside(v, 1),
  Home: () => 0,
  End: () => COUNT - 1,
  PageUp: (v) => Math.max(0, v - 50),
  PageDown: (v) => Math.min(COUNT - 1, v + 50),
};

// The version of the next lane that is nearest in the graph.
function beside(v, way) {
  for (let lane = graph.lane[v] + way; lane >= 0 && lane < graph.lanes; lane += way) {
    const members = membersOf[lane];
    if (members.length) return members.reduce((x, y) => (Math.abs(y - v) < Math.abs(x - v) ? y : x));
  }
  return v;
}

graphCanvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event;
  if (ALONG[key]) {
    change({ focus: ALONG[key](state.focus) });
    $("graph-said").textContent = described(state.focus);
  } else if (key === "Enter" || key === " ") pick(state.focus, event.shiftKey ? "b" : state.next);
  else if (key === "+" || key === "=") zoomGraph(1.5, graphX(state.focus));
  else if (key === "-") zoomGraph(1 / 1.5, graphX(state.focus));
  else if (key === "0") fitGraph();
  else if (key === "Escape") change({ b: null, next: "a" });
  else return;
  event.preventDefault();
});

const fingers = new Map();
let dragged = false;
graphCanvas.addEventListener("pointerdown", (event) => {
  fingers.set(event.pointerId, event);
  dragged = false;
});
graphCanvas.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  const [x, y] = [event.offsetX, event.offsetY];
  if (!before) {
    const v = versionAt(x, y);
    if (v !== graph.hover) {
      graph.hover = v;
      drawGraph();
    }
    graphCanvas.style.cursor = v === null ? "grab" : "pointer";
    if (v === null) $("graph-tip").hidden = true;
    else showTip($("graph-tip"), graphX(v), graphY(v), label(v), when(V.time[v]), V.message[v].slice(0, 80), `${size(V.new[v] * PAGE)} new`);
    return;
  }
  const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
  if (!dragged && Math.abs(dx) + Math.abs(dy) < 5) return;
  if (!dragged) graphCanvas.setPointerCapture(event.pointerId);
  dragged = true;
  $("graph-tip").hidden = true;
  if (fingers.size === 2) {
    const other = [...fingers.values()].find((f) => f.pointerId !== event.pointerId);
    const apart = (one) => Math.max(10, Math.abs(one.clientX - other.clientX));
    zoomGraph(apart(event) / apart(before), (x + other.offsetX) / 2);
  } else {
    graph.left -= dx / graph.scale;
    graph.top -= dy;
    clampGraph();
    drawGraph();
  }
  fingers.set(event.pointerId, event);
});
for (const end of ["pointerup", "pointercancel"]) {
  graphCanvas.addEventListener(end, (event) => {
    if (!fingers.delete(event.pointerId) || dragged || end === "pointercancel") return;
    const v = versionAt(event.offsetX, event.offsetY);
    if (v !== null) pick(v, event.shiftKey || event.ctrlKey || event.metaKey ? "b" : state.next);
  });
}
graphCanvas.addEventListener("pointerleave", () => {
  graph.hover = null;
  $("graph-tip").hidden = true;
  drawGraph();
});
graphCanvas.addEventListener("wheel", (event) => {
  const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
  if (event.ctrlKey || event.metaKey) zoomGraph(Math.exp(-event.deltaY / 200), event.offsetX);
  else if (sideways) {
    graph.left += (event.shiftKey ? event.deltaY || event.deltaX : event.deltaX) / graph.scale;
    clampGraph();
    drawGraph();
  } else return; // the page scrolls
  event.preventDefault();
}, { passive: false });
for (const event of ["focus", "blur"]) graphCanvas.addEventListener(event, drawGraph);

$("zoom-in").addEventListener("click", () => zoomGraph(1.6, graphX(state.focus)));
$("zoom-out").addEventListener("click", () => zoomGraph(1 / 1.6, graphX(state.focus)));
$("zoom-fit").addEventListener("click", fitGraph);
$("pick-a").addEventListener("click", () => change({ next: "a" }));
$("pick-b").addEventListener("click", () => change({ next: "b" }));
$("swap").addEventListener("click", () => change({ a: state.b, b: state.a, next: "a" }));
$("clear").addEventListener("click", () => change({ b: null, next: "a" }));
$("goto").addEventListener("submit", (event) => {
  event.preventDefault();
  const v = find($("goto-text").value);
  $("goto-text").setAttribute("aria-invalid", String(v === undefined));
  if (v !== undefined) pick(v, state.next);
});

// ------------------------------------------------------------------------------------- the map

mapCanvas.addEventListener("pointermove", (event) => {
  drawMap.now();
  const at = squareAt(event.offsetX, event.offsetY);
  if (at === null) $("map-tip").hidden = true;
  else showTip($("map-tip"), event.offsetX, event.offsetY, ...squareSaid(at));
});
mapCanvas.addEventListener("pointerleave", () => ($("map-tip").hidden = true));
mapCanvas.addEventListener("keydown", (event) => {
  drawMap.now();
  const to = {
    ArrowLeft: map.cursor - 1, ArrowRight: map.cursor + 1,
    ArrowUp: map.cursor - map.across, ArrowDown: map.cursor + map.across,
    Home: 0, End: map.squares - 1,
  }[event.key];
  if (to === undefined || event.ctrlKey || event.metaKey || event.altKey || !map.squares) return;
  event.preventDefault();
  if (to >= 0 && to < map.squares) map.cursor = to;
  drawMap();
  const said = squareSaid(map.cursor);
  $("map-said").textContent = said.join(", ");
  showTip($("map-tip"), (map.cursor % map.across) * map.edge, Math.floor(map.cursor / map.across) * map.edge, ...said);
});
mapCanvas.addEventListener("focus", drawMap);
mapCanvas.addEventListener("blur", () => {
  $("map-tip").hidden = true;
  drawMap();
});
$("region").addEventListener("change", (event) => change({ region: event.target.value }));
for (const colour of ["age", "sharing"]) {
  $(`by-${colour}`).addEventListener("click", () => {
    change({ colour });
    pressed("by-age", colour === "age");
    pressed("by-sharing", colour === "sharing");
  });
}

// ----------------------------------------------------------------------------------- the start

$("unnamed").addEventListener("change", showSpace);
$("filter").addEventListener("input", showSpace);

function showStore() {
  const { store } = data;
  $("name").textContent = store.name;
  $("path").textContent = store.path;
  const named = (names) => names.reduce((sum, of) => sum + of.length, 0);
  const facts = [
    ["versions", count(COUNT), COUNT], ["snapshots", count(named(V.snapshots)), named(V.snapshots)],
    ["branches", count(named(V.branches)), named(V.branches)], ["page", size(PAGE), PAGE],
    ...[["arena", "arena"], ["referred", "in use"], ["free", "free"], ["catalog", "catalog"]]
      .filter(([key]) => key in store).map(([key, text]) => [text, size(store[key]), store[key]]),
  ];
  for (const [name, value, number] of facts) {
    $("facts").append(make("div", {}, make("dt", {}, name), make("dd", { data: { what: name, value: number } }, value)));
  }
  $("damage").hidden = !data.damaged.length;
  $("damage-list").append(...data.damaged.map((text) => make("li", {}, text)));
  $("warnings").hidden = !store.warnings.length;
  $("warnings-list").append(...store.warnings.map((text) => make("li", {}, text)));
  const born = "id" in store ? `Store ${store.id}, created ${when(store.created)}, history ${store.history}. ` : "";
  $("footer").textContent = `${born}Made ${when(store.made)} by pagestore ${store.pagestore}. Times are those of your clock.`;
}

showStore();
showRuns();
const first = V.branches.findIndex((names) => names.includes("main"));
if (COUNT) {
  state.a = state.focus = first < 0 ? COUNT - 1 : first;
  sizeGraph();
  change({ a: state.a });
  new ResizeObserver(drawn(redraw)).observe(document.querySelector("main"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
// For the console, and the tests.
window.pagestoreReport = {
  data, state, map, find, difference, shown, sharing, regionsOf, pick, graphX, graphY,
};
