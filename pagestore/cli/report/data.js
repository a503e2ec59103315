// What the page knows: versions, what each one brought, and what follows from that.
// Versions are numbered from 0 in the order of their ids; an ancestor has a smaller number.

const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = data.store.pageSize;
const V = data.versions;
const COUNT = V.id.length;
const NEVER = -1; // a page that no version wrote: zeros

const children = Array.from({ length: COUNT }, () => []);
for (let i = 0; i < COUNT; i++) if (V.parent[i] >= 0) children[V.parent[i]].push(i);

// The numbers in a text of seven bits a byte, as runs.py writes them.
function numbersOf(text) {
  const raw = atob(text);
  const numbers = [];
  let value = 0;
  let weight = 1;
  for (let i = 0; i < raw.length; i++) {
    const byte = raw.charCodeAt(i);
    value += (byte & 127) * weight;
    weight *= 128;
    if (byte < 128) {
      numbers.push(value);
      value = 0;
      weight = 1;
    }
  }
  return numbers;
}

// Runs of pages: calls each(start, stop, label).
function eachRun(text, labelled, each) {
  if (!text) return;
  const numbers = numbersOf(text);
  let end = 0;
  for (let i = 0; i < numbers.length; ) {
    const word = numbers[i++];
    const start = end + Math.floor(word / 2);
    end = start + (word % 2 ? numbers[i++] + 2 : 1);
    each(start, end, labelled ? numbers[i++] : 0);
  }
}

// Regions of a version, by place: {place, name, pages, cells, dtype, shape, shift}. A version has
// those of its parent, but for what is said of it.
const regionsKnown = new Map();
function regionMap(version) {
  const line = [];
  for (let v = version; v >= 0 && !regionsKnown.has(v); v = V.parent[v]) line.push(v);
  for (const v of line.reverse()) {
    const before = regionsKnown.get(V.parent[v]) ?? new Map();
    regionsKnown.set(v, V.regions[v] ? changedRegions(before, ...V.regions[v]) : before);
  }
  return regionsKnown.get(version);
}

function changedRegions(before, rows, gone) {
  const regions = new Map(before);
  for (const place of gone) regions.delete(place);
  for (const [place, pages, dtype, shape] of rows) {
    const { name, shift } = data.regions[place];
    regions.set(place, { place, name, pages, dtype, shape, shift, cells: Math.ceil(pages / 2 ** shift) });
  }
  return regions;
}

// In the order of their names.
const regionsOf = (version) => [...regionMap(version).values()].sort((x, y) => x.place - y.place);
const hasRegion = (version, place) => regionMap(version).has(place);

function broughtTo(version, place) {
  return data.brought[version].find((part) => part[0] === place);
}

// From the first of all to a version.
function lineOf(version) {
  const line = [];
  for (let v = version; v >= 0; v = V.parent[v]) line.push(v);
  return line.reverse();
}

// Most cells that a region ever had.
const mostCells = data.regions.map(() => 0);
for (const [rows] of V.regions.filter(Boolean)) {
  for (const [place, pages] of rows) {
    mostCells[place] = Math.max(mostCells[place], Math.ceil(pages / 2 ** data.regions[place].shift));
  }
}

// A function of a version and a region that keeps its last results.
function remembered(find) {
  const known = new Map();
  return (version, place) => {
    const key = `${version} ${place}`;
    if (!known.has(key)) {
      if (known.size >= 8) known.delete(known.keys().next().value);
      known.set(key, find(version, place));
    }
    return known.get(key);
  };
}

// What a version shows of a region: for each cell the version that wrote it last, and the first
// one that had these contents there (NEVER: zeros).
const shown = remembered((version, place) => {
  const writer = new Int32Array(mostCells[place]).fill(NEVER);
  const origin = new Int32Array(mostCells[place]).fill(NEVER);
  for (const v of lineOf(version)) {
    const part = broughtTo(v, place);
    if (!part) continue;
    eachRun(part[1], false, (a, b) => { writer.fill(v, a, b); origin.fill(v, a, b); });
    eachRun(part[2], false, (a, b) => { writer.fill(v, a, b); origin.fill(NEVER, a, b); });
    eachRun(part[3], true, (a, b, first) => origin.fill(first, a, b));
  }
  return { writer, origin };
});

// What `b` has differently from `a`, as Store.diff says it: by region, in runs of pages.
function difference(a, b) {
  const found = [];
  const [olds, news] = [regionMap(a), regionMap(b)];
  const places = [...new Set([...olds.keys(), ...news.keys()])].sort((x, y) => x - y);
  // places go by name; of two with one name the old one is said to be deleted first
  for (const place of places) {
    const [old, now] = [olds.get(place), news.get(place)];
    const { name, shift } = data.regions[place];
    if (!now) found.push({ place, region: name, kind: "deleted", start: 0, stop: old.pages, order: 0 });
    else if (!old) found.push({ place, region: name, kind: "created", start: 0, stop: now.pages, order: 1 });
    else {
      if (old.dtype !== now.dtype || String(old.shape) !== String(now.shape)) {
        found.push({ place, region: name, kind: "resized", start: 0, stop: 0, order: 2 });
      }
      const [from, to] = [shown(a, place), shown(b, place)];
      const which = shift ? "writer" : "origin";
      const most = Math.max(old.pages, now.pages);
      for (const [start, stop] of differingRuns(from[which], to[which])) {
        found.push({
          place, region: name, kind: "written", order: 2,
          start: start * 2 ** shift, stop: Math.min(stop * 2 ** shift, most),
        });
      }
    }
  }
  const rank = (x) => data.regions.findIndex((r) => r.name === x.region);
  return found
    .map((change, at) => ({ ...change, at, rank: rank(change) }))
    .sort((x, y) => x.rank - y.rank || x.order - y.order || x.at - y.at);
}

function differingRuns(one, other) {
  const runs = [];
  for (let i = 0; i < one.length; i++) {
    if (one[i] === other[i]) continue;
    const start = i;
    while (i < one.length && one[i] !== other[i]) i++;
    runs.push([start, i]);
  }
  return runs;
}

// For each cell that a version shows: how many kept versions have it of the same writer.
// Every version takes from the writer before it, for the pages that it brought, all of its own
// descendants: what is left is how many still show the writer's page.
const sharing = remembered((version, place) => {
  const { writer } = shown(version, place);
  const holders = new Int32Array(writer.length);
  const below = new Int32Array(COUNT); // versions from here on that have the region
  for (let v = COUNT - 1; v >= 0; v--) {
    if (!hasRegion(v, place)) continue;
    below[v] += 1;
    if (V.parent[v] >= 0) below[V.parent[v]] += below[v];
  }
  const now = new Int32Array(writer.length).fill(NEVER);
  const todo = [];
  for (let v = 0; v < COUNT; v++) {
    if (hasRegion(v, place) && !(V.parent[v] >= 0 && hasRegion(V.parent[v], place))) todo.push({ v });
  }
  while (todo.length) {
    const { v, undo } = todo.pop();
    if (undo) {
      for (let i = undo.length - 2; i >= 0; i -= 2) now[undo[i]] = undo[i + 1];
      continue;
    }
    const before = [];
    const part = broughtTo(v, place);
    const bring = (a, b) => {
      for (let cell = a; cell < b; cell++) {
        before.push(cell, now[cell]);
        if (writer[cell] === now[cell]) holders[cell] -= below[v];
        if (writer[cell] === v) holders[cell] += below[v];
        now[cell] = v;
      }
    };
    if (part) {
      eachRun(part[1], false, bring);
      eachRun(part[2], false, bring);
    }
    todo.push({ v, undo: before });
    for (const child of children[v]) if (hasRegion(child, place)) todo.push({ v: child });
  }
  return holders;
});

// A version by name or id; undefined if there is none.
function find(text) {
  const wanted = text.trim();
  for (let i = COUNT - 1; i >= 0; i--) if (V.branches[i].includes(wanted) || V.snapshots[i].includes(wanted)) return i;
  const id = Number(wanted.replace(/^#/, ""));
  const at = wanted ? V.id.indexOf(id) : -1;
  return at < 0 ? undefined : at;
}
