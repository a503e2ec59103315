// What is looked at, and the small things that every part of the page needs.

const state = {
  a: 0, // the picked version
  b: null, // the one that it is compared with
  next: "a", // which of the two the next click picks
  focus: 0, // where the keyboard is in the graph
  region: null, // by name, so that it stays when another version is picked
  colour: "age",
};
const listeners = [];

function change(what) {
  Object.assign(state, what);
  for (const listener of listeners) listener(what);
}

const $ = (id) => document.getElementById(id);

// An element; text is only ever text.
function make(tag, attributes = {}, ...content) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "data") Object.assign(element.dataset, value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...content.filter((c) => c !== null && c !== undefined));
  return element;
}

function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB"]) {
    if (Math.abs(value) < 1024 || unit === "TiB") {
      return unit === "B" ? `${bytes} B` : `${count(value, 1)} ${unit}`;
    }
    value /= 1024;
  }
  return "";
}

const whole = new Intl.NumberFormat("en");
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const count = (number, digits = 0) => (digits ? tenths : whole).format(number);
const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

const two = (number) => String(number).padStart(2, "0");
function day(time) {
  const t = new Date(time);
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`;
}
function clock(time, seconds = true) {
  const t = new Date(time);
  return `${two(t.getHours())}:${two(t.getMinutes())}${seconds ? `:${two(t.getSeconds())}` : ""}`;
}
const when = (time) => `${day(time)} ${clock(time)}`;

const namesOf = (v) => [...V.branches[v], ...V.snapshots[v]];
function title(v) {
  const [first, ...rest] = namesOf(v);
  const more = rest.length ? ` +${rest.length}` : "";
  return first === undefined ? `#${V.id[v]}` : `${first}${more}`;
}
const label = (v) => (namesOf(v).length ? `${title(v)} #${V.id[v]}` : title(v));
const described = (v) => `version ${V.id[v]}${namesOf(v).map((n) => `, ${n}`).join("")}, ${when(V.time[v])}`;

function pages(start, stop) {
  return stop - start === 1 ? `page ${count(start)}` : `pages ${count(start)}–${count(stop - 1)}`;
}

// ------------------------------------------------------------------------------------- drawing

// The colours of page.css, as they are in this scheme.
const colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ink", "quiet", "card", "line", "dot", "focus", "a", "b", "alone", "zero", "age", "share"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
}
readColours();

function rgb(hex) {
  const n = parseInt(hex.slice(1), 16);
  return [n >> 16, (n >> 8) & 255, n & 255];
}

// A colour of a scale of several, at 0 to 1.
function along(stops, at) {
  const place = Math.min(Math.max(at, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  return stops[low].map((c, i) => Math.round(c + (stops[low + 1][i] - c) * (place - low)));
}
const scale = (name) => colours[name].split(" ").map(rgb);

// A canvas as sharp as the screen, in CSS pixels.
function surface(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// Drawn once a frame, however often it is asked for; or at once, if that was not yet.
function drawn(draw) {
  let waiting = false;
  const now = () => {
    if (waiting) draw();
    waiting = false;
  };
  const soon = () => {
    if (!waiting) requestAnimationFrame(now);
    waiting = true;
  };
  return Object.assign(soon, { now });
}

function showTip(tip, x, y, ...lines) {
  tip.replaceChildren(...lines.filter(Boolean).map((line, i) => make("div", { class: i ? "" : "first" }, line)));
  tip.hidden = false;
  const room = tip.parentElement.clientWidth - tip.offsetWidth - 4;
  tip.style.left = `${Math.max(4, Math.min(x + 14, room))}px`;
  tip.style.top = `${y + 18}px`;
}

function pressed(id, on) {
  $(id).setAttribute("aria-pressed", String(on));
}
