// The graph of versions: a lane for each line of work, older to the left, drawn on a canvas.

const LANE = 34;
const TOP = 30;
const AXIS = 26;
const PAD = 26;
const MOST_LANES = 9; // shown at once; the others are reached by dragging
const FONT = '12px ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif';

// Lines of work: from a head to the first version that an earlier line has. Short gaps are shared.
function lines() {
  const lane = new Int32Array(COUNT).fill(-1);
  const heads = [];
  const isHead = (v) => V.branches[v].length > 0;
  for (let v = COUNT - 1; v >= 0; v--) if (isHead(v) || !children[v].length) heads.push(v);
  const rank = (v) => (V.branches[v].includes("main") ? 2 : isHead(v) ? 1 : 0);
  heads.sort((x, y) => rank(y) - rank(x) || y - x);
  const found = [];
  const ends = []; // of each lane: [first, last] of the lines in it
  for (const head of heads) {
    if (lane[head] >= 0) continue;
    const members = [];
    let v = head;
    for (; v >= 0 && lane[v] < 0; v = V.parent[v]) {
      members.push(v);
      lane[v] = 0;
    }
    members.reverse();
    const from = v < 0 ? members[0] : v;
    const room = Math.max(3, COUNT * 0.04); // for the name at its end
    const free = (spans) => spans.every(([a, b]) => head + room < a || from > b);
    let number = found.length ? 1 : 0;
    while (ends[number] && !free(ends[number])) number++;
    (ends[number] ??= []).push([from, head + room]);
    for (const member of members) lane[member] = number;
    found.push({ lane: number, members, fork: v });
  }
  return { lane, lines: found, lanes: ends.length };
}

const graph = { ...lines(), scale: 1, left: 0, top: 0, width: 0, height: 0, room: 70, hover: null };
const graphCanvas = $("graph");
const short = (text, most = 28) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const membersOf = Array.from({ length: graph.lanes }, () => []);
for (const line of graph.lines) membersOf[line.lane].push(...line.members);
for (const members of membersOf) members.sort((x, y) => x - y);

const graphX = (v) => PAD + (v - graph.left) * graph.scale;
const graphY = (v) => TOP + graph.lane[v] * LANE - graph.top;
const fitScale = () => Math.min(80, (graph.width - 2 * PAD - graph.room) / Math.max(1, COUNT - 1));

function clampGraph() {
  graph.scale = Math.min(80, Math.max(graph.scale, fitScale()));
  const shown = (graph.width - 2 * PAD - graph.room) / graph.scale;
  graph.left = Math.min(Math.max(graph.left, 0), Math.max(0, COUNT - 1 - shown));
  const tall = graph.lanes * LANE + TOP + AXIS;
  graph.top = Math.min(Math.max(graph.top, 0), Math.max(0, tall - graph.height));
}

function zoomGraph(factor, x = graph.width / 2) {
  const at = graph.left + (x - PAD) / graph.scale;
  graph.scale *= factor;
  graph.scale = Math.min(80, Math.max(graph.scale, fitScale()));
  graph.left = at - (x - PAD) / graph.scale;
  clampGraph();
  drawGraph();
}

function fitGraph() {
  graph.scale = 0;
  graph.left = 0;
  clampGraph();
  drawGraph();
}

function revealInGraph(v) {
  const x = graphX(v);
  if (x < PAD || x > graph.width - PAD) graph.left = v - (graph.width / 2 - PAD) / graph.scale;
  const y = graphY(v);
  if (y < TOP || y > graph.height - AXIS - 8) graph.top = graph.lane[v] * LANE - graph.height / 2 + TOP;
  clampGraph();
}

function sizeGraph() {
  const before = graph.width;
  graph.width = graphCanvas.clientWidth;
  graph.room = nameRoom();
  graph.height = TOP + Math.min(graph.lanes, MOST_LANES) * LANE + AXIS;
  if (!before) graph.scale = 0;
  clampGraph();
  drawGraph();
}

// For the names of branches, to the right of the newest version.
function nameRoom() {
  const c = graphCanvas.getContext("2d");
  c.font = `600 ${FONT}`;
  const widest = V.branches.reduce((most, names) => (names.length ? Math.max(most, c.measureText(short(names.join(", "))).width) : most), 40);
  return Math.min(widest, graph.width / 3);
}

const drawGraph = drawn(() => {
  const c = surface(graphCanvas, graph.width, graph.height);
  c.font = FONT;
  c.textBaseline = "middle";
  const first = Math.max(0, Math.floor(graph.left - PAD / graph.scale) - 1);
  const last = Math.min(COUNT - 1, Math.ceil(graph.left + graph.width / graph.scale) + 1);
  c.save();
  c.beginPath();
  c.rect(0, 0, graph.width, graph.height - AXIS);
  c.clip();
  drawLines(c);
  drawVersions(c, first, last);
  drawNames(c, first, last);
  c.restore();
  drawAxis(c, first, last);
});

function drawLines(c) {
  c.lineWidth = 2;
  c.lineCap = "round";
  c.strokeStyle = colours.line;
  const faint = Math.min(1, Math.max(0.04, 12 / graph.lines.length)); // many would be one grey block
  for (const { members, fork } of graph.lines) {
    const y = graphY(members[0]);
    let x = graphX(members[0]);
    if (fork >= 0) {
      const [fx, fy] = [graphX(fork), graphY(fork)];
      const bend = Math.min(Math.max(x - fx, 4), 40);
      c.globalAlpha = faint;
      c.beginPath();
      c.moveTo(fx, fy);
      c.bezierCurveTo(fx + bend * 0.6, fy, fx + bend * 0.4, y, fx + bend, y);
      c.stroke();
      c.globalAlpha = 1;
      x = fx + bend;
    }
    c.beginPath();
    c.moveTo(x, y);
    c.lineTo(Math.max(x, graphX(members.at(-1))), y);
    c.stroke();
  }
}

const radius = (named) => Math.min(named ? 5.5 : 4, Math.max(named ? 2.6 : 1.1, graph.scale * 0.36));

function drawVersions(c, first, last) {
  const dense = graph.scale < 3;
  for (const named of [false, true]) {
    c.fillStyle = named ? colours.ink : colours.dot;
    c.beginPath();
    for (let v = first; v <= last; v++) {
      if (namesOf(v).length > 0 !== named) continue;
      const [x, y, r] = [graphX(v), graphY(v), radius(named)];
      if (dense && !named) c.rect(x - 0.5, y - 3, 1, 6);
      else {
        c.moveTo(x + r, y);
        c.arc(x, y, r, 0, 7);
      }
    }
    c.fill();
  }
  if (graph.hover !== null) ring(c, graph.hover, 8, colours.quiet, 1.5);
  if (document.activeElement === graphCanvas) ring(c, state.focus, 11, colours.focus, 2, [3, 3]);
  if (state.b !== null) mark(c, state.b, colours.b);
  mark(c, state.a, colours.a);
}

function ring(c, v, r, colour, width, dash = []) {
  c.beginPath();
  c.setLineDash(dash);
  c.arc(graphX(v), graphY(v), r, 0, 7);
  c.lineWidth = width;
  c.strokeStyle = colour;
  c.stroke();
  c.setLineDash([]);
}

function mark(c, v, colour) {
  c.beginPath();
  c.arc(graphX(v), graphY(v), 7.5, 0, 7);
  c.fillStyle = colours.card;
  c.fill();
  ring(c, v, 7.5, colour, 3);
  c.beginPath();
  c.arc(graphX(v), graphY(v), 3, 0, 7);
  c.fillStyle = colour;
  c.fill();
}

// Names, the more important first; one that would cover another is left out.
function drawNames(c, first, last) {
  const taken = Array.from({ length: graph.lanes }, () => []);
  const put = (v, text, colour, below, bold, at) => {
    c.font = bold ? `600 ${FONT}` : FONT;
    const shown = short(text);
    const width = c.measureText(shown).width;
    const x = at === "end" ? graphX(v) + 12 : Math.max(2, graphX(v) - width / 2);
    const y = graphY(v) + (at === "end" ? 0 : below ? 15 : -15);
    const box = [x - 7, x + width + 7, at === "end" ? 0 : below ? 1 : -1];
    const row = taken[graph.lane[v]];
    if (row.some(([a, b, level]) => level === box[2] && box[0] < b && a < box[1])) return;
    row.push(box);
    c.lineWidth = 4;
    c.lineJoin = "round";
    c.strokeStyle = colours.card;
    c.strokeText(shown, x, y);
    c.fillStyle = colour;
    c.fillText(shown, x, y);
  };
  const isEnd = (v) => !children[v].some((child) => graph.lane[child] === graph.lane[v]);
  const of = (v) => (v === state.a ? colours.a : v === state.b ? colours.b : colours.ink);
  for (const v of [state.a, state.b]) {
    if (v === null || v < first || v > last || (V.branches[v].length && isEnd(v))) continue;
    put(v, title(v), of(v), false, true);
  }
  for (let v = last; v >= first; v--) {
    if (V.branches[v].length) put(v, V.branches[v].join(", "), of(v), false, true, isEnd(v) ? "end" : "");
  }
  for (let v = last; v >= first; v--) {
    if (V.snapshots[v].length && v !== state.a && v !== state.b) put(v, V.snapshots[v].join(", "), colours.quiet, false, false);
  }
}

function drawAxis(c, first, last) {
  const y = graph.height - AXIS / 2 + 2;
  c.font = FONT.replace("12px", "11px");
  c.fillStyle = colours.quiet;
  c.fillRect(0, graph.height - AXIS, graph.width, 0.5);
  const oneDay = COUNT && day(V.time[0]) === day(V.time[COUNT - 1]);
  const step = Math.max(1, Math.ceil((oneDay ? 110 : 140) / graph.scale));
  let before = "";
  for (let v = Math.ceil(first / step) * step; v <= last; v += step) {
    const x = graphX(v);
    if (x < 0 || x > graph.width - 60) continue;
    const today = day(V.time[v]);
    const text = oneDay ? clock(V.time[v]) : today === before ? clock(V.time[v], false) : today;
    before = today;
    c.fillRect(x, graph.height - AXIS, 1, 5);
    c.fillText(text, x + 5, y);
  }
}

// The version nearest to a point, if it is near.
function versionAt(x, y) {
  const number = Math.round((y + graph.top - TOP) / LANE);
  const members = membersOf[number];
  if (!members) return null;
  const at = graph.left + (x - PAD) / graph.scale;
  const reach = Math.max(14, graph.scale / 2);
  let best = null;
  let low = 0;
  let high = members.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (members[middle] < at) low = middle + 1;
    else high = middle;
  }
  for (const v of [members[low - 1], members[low]]) {
    if (v === undefined || Math.abs(graphX(v) - x) > reach) continue;
    if (best === null || Math.abs(v - at) < Math.abs(best - at)) best = v;
  }
  // where many lie on one spot, one that has a name is meant
  if (graph.scale < 6) {
    const named = members.filter((v) => namesOf(v).length && Math.abs(graphX(v) - x) < 5);
    if (named.length) best = named.reduce((p, q) => (Math.abs(p - at) < Math.abs(q - at) ? p : q));
  }
  return best;
}
