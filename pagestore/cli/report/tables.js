// The picked version, the difference, and the space of every version, as tables.

const AT_ONCE = 100; // rows; more on request

function row(...cells) {
  return make("tr", {}, ...cells);
}

function cell(text, options = {}) {
  return make("td", options, text);
}

// -------------------------------------------------------------------------------- the version

function versionButton(v, text = title(v)) {
  const button = make("button", { type: "button", class: "link" }, text);
  button.addEventListener("click", () => pick(v));
  return button;
}

const pinsOf = (version) => data.store.pins
  .filter(([of]) => of === version)
  .map(([, process, command]) => (process === null ? "some process" : `process ${process}${command ? ` (${command.slice(0, 60)})` : ""}`))
  .join(", ");

function showVersion() {
  const v = state.a;
  $("version-title").textContent = title(v);
  const facts = [
    ["Version", `#${V.id[v]}`, "id"],
    ["Branches", V.branches[v].join(", ")],
    ["Snapshots", V.snapshots[v].join(", ")],
    ["Committed", when(V.time[v])],
    ["Message", V.message[v]],
    ["Note", V.notes[v].join("; ")],
    ["Looked at by", pinsOf(v)],
    ["Parent", V.parent[v] < 0 ? "none" : versionButton(V.parent[v])],
    ["Children", children[v].length ? children[v].slice(0, 8).map((c) => versionButton(c)) : "none"],
    ["Refers to", size(V.referred[v] * PAGE), "referred", V.referred[v]],
    ["Exclusive", size(V.exclusive[v] * PAGE), "exclusive", V.exclusive[v]],
    ["New", size(V.new[v] * PAGE), "new", V.new[v]],
  ];
  const list = make("dl", { class: "details" });
  for (const [name, value, what, number] of facts) {
    if (value === "") continue;
    const shown = make("dd", { data: what ? { what, value: number === undefined ? "" : number * PAGE } : {} });
    shown.append(...(Array.isArray(value) ? value.flatMap((x, i) => (i ? [" ", x] : [x])) : [value]));
    list.append(make("dt", {}, name), shown);
  }
  const regions = make("ul", { class: "regions" });
  for (const region of regionsOf(v).slice(0, AT_ONCE)) {
    const button = make("button", { type: "button", class: "link" }, region.name);
    button.addEventListener("click", () => change({ region: region.name }));
    const what = ` ${region.dtype} (${region.shape.join(" × ")}), ${counted(region.pages, "page")}`;
    regions.append(make("li", {}, button, make("span", { class: "quiet" }, what)));
  }
  $("version").replaceChildren(list, make("h3", {}, counted(regionsOf(v).length, "region")), regions);
}

function showRegions() {
  const select = $("region");
  const now = currentRegion();
  select.replaceChildren(
    ...regionsOf(state.a).map((r) => make("option", { value: r.name, selected: r === now }, r.name)),
  );
  select.disabled = select.options.length < 2;
}

// ----------------------------------------------------------------------------- the difference

let differenceRows = AT_ONCE;

function showDifference() {
  const section = $("difference");
  section.hidden = state.b === null;
  if (section.hidden) return;
  const found = differenceNow();
  const total = found.reduce((sum, f) => sum + f.stop - f.start, 0);
  const rough = found.some((f) => f.kind === "written" && data.regions[f.place].shift);
  $("difference-title").textContent = `Difference: ${title(state.b)} → ${title(state.a)}`;
  $("difference-sum").textContent = found.length
    ? `${rough ? "At most " : ""}${counted(total, "page")}, ${size(total * PAGE)}, in ${counted(found.length, "range")}` +
      `${rough ? "; this history is too large for single pages" : ""}.`
    : "The two versions do not differ.";
  $("difference-sum").dataset.pages = total;
  const byRegion = new Map();
  for (const f of found) byRegion.set(f.region, (byRegion.get(f.region) ?? 0) + f.stop - f.start);
  $("difference-regions").replaceChildren(...[...byRegion].slice(0, AT_ONCE).map(([region, number]) =>
    make("li", { data: { region, pages: number } }, make("b", {}, region), ` ${counted(number, "page")}, ${size(number * PAGE)}`)));
  const table = $("difference-table");
  table.tHead.replaceChildren(row(...["Region", "Change", "Pages", "Size", "First byte"].map((h, i) => make("th", { scope: "col", class: i > 1 ? "number" : "" }, h))));
  table.tBodies[0].replaceChildren(
    ...found.slice(0, differenceRows).map((f) => {
      const length = f.stop - f.start;
      return row(
        cell(f.region), cell(f.kind, { class: `kind ${f.kind}` }),
        cell(length ? (length === 1 ? count(f.start) : `${count(f.start)}–${count(f.stop - 1)}`) : "", { class: "number" }),
        cell(length ? size(length * PAGE) : "", { class: "number" }),
        cell(length ? count(f.start * PAGE) : "", { class: "number" }),
      );
    }),
  );
  moreButton($("difference-more"), found.length - differenceRows, () => {
    differenceRows += 10 * AT_ONCE;
    showDifference();
  });
  table.hidden = !found.length;
}

function moreButton(button, left, more) {
  button.hidden = left <= 0;
  button.textContent = `More (${count(Math.max(left, 0))} left)`;
  button.onclick = more;
}

// ---------------------------------------------------------------------------------- the space

const SPACE = [
  ["name", "Name", (v) => title(v).toLowerCase(), 1],
  ["id", "Version", (v) => v, -1],
  ["time", "Committed", (v) => V.time[v], -1],
  ["referred", "Refers to", (v) => V.referred[v], -1],
  ["shared", "Shared", (v) => V.referred[v] - V.exclusive[v], -1],
  ["exclusive", "Exclusive", (v) => V.exclusive[v], -1],
  ["new", "New", (v) => V.new[v], -1],
];
const order = { by: "exclusive", way: -1, rows: AT_ONCE };

function spaceRows() {
  const wanted = $("filter").value.trim().toLowerCase();
  const all = $("unnamed").checked;
  const found = [];
  for (let v = 0; v < COUNT; v++) {
    const names = namesOf(v);
    if (!names.length && !all) continue;
    if (wanted && ![...names, `#${V.id[v]}`, V.message[v]].some((n) => n.toLowerCase().includes(wanted))) continue;
    found.push(v);
  }
  const value = SPACE.find(([key]) => key === order.by)[2];
  const keys = new Map(found.map((v) => [v, value(v)]));
  const compare = (x, y) => (keys.get(x) < keys.get(y) ? -1 : keys.get(x) > keys.get(y) ? 1 : 0);
  return found.sort((x, y) => order.way * compare(x, y) || y - x);
}

function showSpace() {
  const table = $("space");
  table.tHead.replaceChildren(row(...SPACE.map(([key, text, , way]) => {
    const sorted = order.by === key ? (order.way > 0 ? "ascending" : "descending") : "none";
    const button = make("button", { type: "button", class: "sort" }, text);
    button.addEventListener("click", () => {
      order.way = order.by === key ? -order.way : way;
      order.by = key;
      showSpace();
      table.tHead.querySelector(`[data-key=${key}] button`).focus();
    });
    const kind = { name: "", time: "time" }[key] ?? "number";
    return make("th", { scope: "col", "aria-sort": sorted, data: { key }, class: kind }, button);
  }), make("th", { scope: "col", class: "bars" }, make("span", {}, "Shared and exclusive"))));
  const found = spaceRows();
  const most = V.referred.reduce((x, y) => Math.max(x, y), 1);
  const mostAlone = found.reduce((x, v) => Math.max(x, V.exclusive[v]), 1);
  table.tBodies[0].replaceChildren(...found.slice(0, order.rows).map((v) => spaceRow(v, most, mostAlone)));
  if (!found.length) table.tBodies[0].append(row(cell("No version matches.", { colspan: SPACE.length + 1, class: "quiet" })));
  moreButton($("space-more"), found.length - order.rows, () => {
    order.rows += 10 * AT_ONCE;
    showSpace();
  });
}

function spaceRow(v, most, mostAlone) {
  const shared = V.referred[v] - V.exclusive[v];
  const sized = (what, number) => cell(size(number * PAGE), { class: "number", data: { what, value: number * PAGE } });
  const bar = make("div", { class: "bar-of", "aria-hidden": "true" });
  for (const [name, number] of [["shared", shared], ["alone", V.exclusive[v]]]) {
    const piece = make("span", { class: name });
    piece.style.width = `${(100 * number) / most}%`;
    if (number) bar.append(piece);
  }
  const alone = make("span", { class: "piece alone", "aria-hidden": "true" });
  alone.style.width = `${(70 * V.exclusive[v]) / mostAlone}px`;
  const exclusive = sized("exclusive", V.exclusive[v]);
  if (V.exclusive[v]) exclusive.prepend(alone);
  const names = make("td", { class: "names" }, versionButton(v, namesOf(v)[0]));
  const more = namesOf(v).slice(1);
  if (more.length) names.append(make("span", { class: "quiet" }, ` ${more.join(", ")}`));
  else if (!namesOf(v).length && V.message[v]) names.append(make("span", { class: "quiet" }, ` ${V.message[v]}`));
  return make("tr", { data: { id: V.id[v] }, class: v === state.a ? "is-a" : v === state.b ? "is-b" : "" },
    names, cell(`#${V.id[v]}`, { class: "number quiet" }), cell(when(V.time[v]), { class: "quiet nowrap time" }),
    sized("referred", V.referred[v]), sized("shared", shared), exclusive,
    sized("new", V.new[v]), make("td", { class: "bars" }, bar));
}

// ------------------------------------------------------------------------------ fragmentation

function showRuns() {
  const table = $("runs");
  const heads = ["Branch", "Region", "Stored", "Runs", "Pages a run"];
  table.tHead.replaceChildren(row(...heads.map((h, i) => make("th", { scope: "col", class: i > 1 ? "number" : "" }, h))));
  const most = data.layout.reduce((m, l) => Math.max(m, l.runs), 1);
  table.tBodies[0].replaceChildren(...data.layout.slice(0, AT_ONCE).map(({ branch, region, stored, runs }) => {
    const bar = make("span", { class: "piece", "aria-hidden": "true" });
    bar.style.width = `${(60 * runs) / most}px`;
    return make("tr", { data: { branch, region } }, cell(branch), cell(region),
      cell(count(stored), { class: "number" }), make("td", { class: "number", data: { what: "runs", value: runs } }, bar, count(runs)),
      cell(runs ? count(stored / runs, 1) : "", { class: "number" }));
  }));
}
