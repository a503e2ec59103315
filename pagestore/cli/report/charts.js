// Growth over time: what the kept versions brought, added up, and what those of main show.

const SVG = "http://www.w3.org/2000/svg";

function draw(tag, attributes, ...content) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}

// A round number of bytes (of a power of 1024) that takes at most `parts` steps to reach `most`.
function step(most, parts) {
  let unit = 1;
  while (unit * 1024 <= most) unit *= 1024;
  for (const factor of [1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]) {
    if (unit * factor >= 1 && most / (unit * factor) <= parts) return unit * factor;
  }
  return unit * 1024;
}

function growth() {
  const byTime = Array.from({ length: COUNT }, (_, v) => v).sort((x, y) => V.time[x] - V.time[y] || x - y);
  let sum = 0;
  const total = byTime.map((v) => [V.time[v], (sum += V.new[v] * PAGE), v]);
  const head = V.branches.findIndex((names) => names.includes("main"));
  const main = [];
  for (let v = head; v >= 0; v = V.parent[v]) main.push([V.time[v], V.referred[v] * PAGE, v]);
  return { total, main: main.reverse() };
}

// Not more points than pixels: of those on one pixel the last.
function thinned(points, x) {
  const kept = [];
  for (const point of points) {
    if (kept.length && Math.round(x(kept.at(-1)[0])) === Math.round(x(point[0]))) kept[kept.length - 1] = point;
    else kept.push(point);
  }
  return kept;
}

const grown = growth();

function showGrowth() {
  const box = $("growth");
  const [width, height] = [Math.max(260, box.clientWidth), 230];
  const [left, right, top, bottom] = [64, 12, 12, 26];
  if (!COUNT) return;
  const [from, to] = [grown.total[0][0], grown.total.at(-1)[0]];
  const most = grown.main.reduce((x, [, bytes]) => Math.max(x, bytes), grown.total.at(-1)[1] || 1);
  const unit = step(most, 5);
  const high = Math.ceil(most / unit) * unit;
  const x = (time) => left + ((time - from) / Math.max(1, to - from)) * (width - left - right);
  const y = (bytes) => height - bottom - (bytes / high) * (height - top - bottom);
  const path = (points) => {
    let text = "";
    let before = null;
    for (const [time, bytes] of thinned(points, x)) {
      const [px, py] = [x(time).toFixed(1), y(bytes).toFixed(1)];
      text += before === null ? `M${px} ${py}` : `H${px}V${py}`;
      before = py;
    }
    return text;
  };
  const said = `From ${when(from)} to ${when(to)}: ${size(grown.total.at(-1)[1])} in ${counted(COUNT, "version")}`;
  const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": said });
  for (let bytes = 0; bytes <= high; bytes += unit) {
    picture.append(draw("line", { x1: left, x2: width - right, y1: y(bytes), y2: y(bytes), class: "grid" }));
    picture.append(draw("text", { x: left - 8, y: y(bytes) + 4, class: "tick end" }, size(bytes).replace(".0 ", " ")));
  }
  const oneDay = day(from) === day(to);
  const ticks = width > 460 ? 4 : 2;
  for (let i = 0; i < ticks; i++) {
    const time = from + ((to - from) * i) / (ticks - 1);
    const place = i === 0 ? "start" : i === ticks - 1 ? "end" : "middle";
    picture.append(draw("text", { x: x(time), y: height - 6, class: `tick ${place}` }, oneDay ? clock(time) : day(time)));
  }
  const all = path(grown.total) + `H${width - right}`;
  picture.append(draw("path", { d: `${all}V${y(0)}H${left}Z`, class: "area" }));
  picture.append(draw("path", { d: all, class: "all" }));
  if (grown.main.length) picture.append(draw("path", { d: path(grown.main), class: "main" }));
  for (const [v, name] of [[state.b, "b"], [state.a, "a"]]) {
    if (v === null) continue;
    picture.append(draw("line", { x1: x(V.time[v]), x2: x(V.time[v]), y1: top, y2: height - bottom, class: `at-${name}` }));
  }
  const key = make("p", { class: "key small" },
    make("span", { class: "key-all" }), `all kept versions: ${size(grown.total.at(-1)[1])}`,
    make("span", { class: "key-main" }), "what main shows");
  box.replaceChildren(picture, key);
}
