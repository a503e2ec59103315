// The map of pages: one region of the picked version, a cell for some neighbouring pages.

const mapCanvas = $("map");
const CELLS = [16, 13, 11, 9, 7, 6, 5, 4, 3, 2];
const map = { cursor: 0, per: 1, across: 1, edge: 16, squares: 0, region: null };

function currentRegion() {
  const regions = regionsOf(state.a);
  return regions.find((r) => r.name === state.region) ?? regions.reduce((x, y) => (x && x.pages >= y.pages ? x : y), null);
}

// How large a square is, and how many cells of the region stand in one.
function layMap(cells) {
  const width = mapCanvas.clientWidth;
  const height = Math.min(420, Math.max(240, width * 0.42));
  for (const edge of CELLS) {
    const across = Math.max(1, Math.floor(width / edge));
    if (Math.ceil(cells / across) * edge <= height) return { edge, across, per: 1 };
  }
  const edge = 2;
  const across = Math.floor(width / edge);
  const per = Math.ceil(cells / (across * Math.floor(height / edge)));
  return { edge, across, per };
}

// Of each square: the newest writer, and whether anything in it is stored; fewest holders; changed.
function squaresOf(region) {
  const { writer, origin } = shown(state.a, region.place);
  const holders = state.colour === "sharing" ? sharing(state.a, region.place) : null;
  const other = state.b === null ? null : changedCells(region);
  const squares = Math.ceil(region.cells / map.per);
  const newest = new Int32Array(squares).fill(NEVER);
  const fewest = new Int32Array(squares);
  const changed = new Int32Array(squares);
  for (let cell = 0; cell < region.cells; cell++) {
    const at = Math.floor(cell / map.per);
    if (other && other[cell]) changed[at]++;
    if (origin[cell] === NEVER) continue;
    if (writer[cell] > newest[at]) newest[at] = writer[cell];
    if (holders && (!fewest[at] || holders[cell] < fewest[at])) fewest[at] = holders[cell];
  }
  return { newest, fewest, changed, squares };
}

function changedCells(region) {
  const changed = new Uint8Array(region.cells);
  for (const found of differenceNow()) {
    if (found.place !== region.place || found.kind === "resized") continue;
    changed.fill(1, found.start >> region.shift, Math.ceil(found.stop / 2 ** region.shift));
  }
  return changed;
}

let differenceKnown = { key: "", found: [] };
function differenceNow() {
  const key = `${state.b} ${state.a}`;
  if (differenceKnown.key !== key) differenceKnown = { key, found: difference(state.b, state.a) };
  return differenceKnown.found;
}

const drawMap = drawn(() => {
  const region = currentRegion();
  map.region = region;
  if (!region || !region.cells) {
    surface(mapCanvas, mapCanvas.clientWidth, 60);
    map.squares = 0;
    $("legend").replaceChildren(region ? "This region has no pages." : "This version has no regions.");
    return;
  }
  Object.assign(map, layMap(region.cells));
  const found = squaresOf(region);
  map.found = found;
  map.squares = found.squares;
  map.cursor = Math.min(map.cursor, found.squares - 1);
  const height = Math.ceil(found.squares / map.across) * map.edge;
  const c = surface(mapCanvas, mapCanvas.clientWidth, height);
  const paint = state.colour === "age" ? ageColours(found) : sharingColours(found);
  const [card, zero, differs] = ["card", "zero", "b"].map((name) => rgb(colours[name]));
  const faint = (colour) => colour.map((part, i) => part * 0.3 + card[i] * 0.7);
  paintSquares(c, (at) => {
    if (found.changed[at]) return differs;
    const colour = found.newest[at] === NEVER ? zero : paint(at);
    return state.b === null ? colour : faint(colour);
  });
  if (document.activeElement === mapCanvas) drawCursor(c);
});

// Pixel by pixel: ten times faster than as many rectangles.
function paintSquares(c, colourOf) {
  const { width, height } = mapCanvas;
  const ratio = width / mapCanvas.clientWidth;
  const image = c.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const inside = map.edge - (map.edge >= 5 ? 1 : 0);
  for (let at = 0; at < map.squares; at++) {
    const [r, g, b] = colourOf(at);
    const colour = (255 << 24) | (b << 16) | (g << 8) | r;
    const [x, y] = [(at % map.across) * map.edge, Math.floor(at / map.across) * map.edge];
    const [left, right] = [Math.round(x * ratio), Math.round((x + inside) * ratio)];
    const bottom = Math.min(height, Math.round((y + inside) * ratio));
    for (let row = Math.round(y * ratio); row < bottom; row++) {
      pixels.fill(colour, row * width + left, row * width + right);
    }
  }
  c.putImageData(image, 0, 0);
}

function drawCursor(c) {
  const [x, y] = [(map.cursor % map.across) * map.edge, Math.floor(map.cursor / map.across) * map.edge];
  c.strokeStyle = colours.card;
  c.lineWidth = 5;
  c.strokeRect(x - 1, y - 1, map.edge + 1, map.edge + 1);
  c.strokeStyle = colours.focus;
  c.lineWidth = 2.5;
  c.strokeRect(x - 1, y - 1, map.edge + 1, map.edge + 1);
}

const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

// Ages are ranks among the versions that are seen: so that the whole scale is used.
function ageColours(found) {
  const writers = [...new Set(found.newest)].filter((v) => v !== NEVER).sort((x, y) => x - y);
  const stops = scale("age");
  const of = new Map(writers.map((v, i) => [v, along(stops, writers.length < 2 ? 1 : i / (writers.length - 1))]));
  legend(stops, writers.length ? `oldest: ${titleAndDay(writers[0])}` : "", writers.length ? `newest: ${titleAndDay(writers.at(-1))}` : "");
  return (at) => of.get(found.newest[at]);
}

const titleAndDay = (v) => `${label(v)}, ${day(V.time[v])}`;

function sharingColours(found) {
  let most = 1;
  for (const holders of found.fewest) if (holders > most) most = holders;
  const stops = scale("share");
  legend(stops, "in 2 versions", most > 2 ? `in ${count(most)}` : "", "only in this one");
  const [of, alone] = [new Map(), rgb(colours.alone)];
  return (at) => {
    const holders = found.fewest[at];
    if (holders <= 1) return alone;
    if (!of.has(holders)) {
      of.set(holders, along(stops, most > 2 ? Math.log(holders / 2) / Math.log(most / 2) : 0));
    }
    return of.get(holders);
  };
}

function legend(stops, low, high, alone) {
  const swatch = (colour) => {
    const box = make("span", { class: "swatch" });
    box.style.background = colour;
    return box;
  };
  const ramp = make("span", { class: "ramp" });
  ramp.style.background = `linear-gradient(90deg, ${stops.map(css).join(", ")})`;
  $("legend").replaceChildren(
    ...(alone ? [make("span", {}, swatch(colours.alone), alone)] : []),
    make("span", {}, low, ramp, high),
    make("span", {}, swatch(colours.zero), "zeros"),
    ...(state.b === null ? [] : [make("span", {}, swatch(colours.b), "differs")]),
  );
  const { per, region } = map;
  const each = per * 2 ** region.shift;
  $("map-note").textContent =
    `${counted(region.pages, "page")} of ${size(PAGE)}` +
    (each > 1 ? `; a square is ${count(each)} pages and has the colour of the ${state.colour === "age" ? "newest" : "least shared"} of them` : "") +
    (region.shift ? `; this history is too large for single pages: which ones changed is known to ${count(2 ** region.shift)}` : "") +
    ".";
}

function squareSaid(at) {
  const { region, found, per } = map;
  const step = per * 2 ** region.shift;
  const [start, stop] = [at * step, Math.min((at + 1) * step, region.pages)];
  const lines = [`${pages(start, stop)} of ${region.name}`];
  const writer = found.newest[at];
  if (writer === NEVER) lines.push("zeros");
  else {
    lines.push(`${step > 1 ? "newest " : ""}since ${label(writer)}, ${when(V.time[writer])}`);
    if (state.colour === "sharing") lines.push(found.fewest[at] > 1 ? `in ${counted(found.fewest[at], "version")}` : "only in this version");
  }
  if (found.changed[at]) lines.push(`differs from ${title(state.b)}`);
  return lines;
}

function squareAt(x, y) {
  const [column, row] = [Math.floor(x / map.edge), Math.floor(y / map.edge)];
  const at = row * map.across + column;
  return column >= 0 && column < map.across && at >= 0 && at < map.squares ? at : null;
}
