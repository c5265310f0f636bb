"use strict";
// The page's data, and how elements are made: text is always set as text.
const model = JSON.parse(document.getElementById("data").textContent);
const samples = model.samples;
const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a child that is no element is text. */
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";
/** An element of a drawing. */
function draw(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const thousands = (n) => String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, ",");
/** A share of which no part reads as none, and only all of it as all. */
function percent(part, of) {
  const text = (of ? (100 * part) / of : 0).toFixed(1);
  return text === "100.0" && part < of ? ">99.9%" : text === "0.0" && part > 0 ? "<0.1%" : text + "%";
}
/** A number in three digits, or in as many as it takes to lie on its own side of the cut, of 0 and of 1. */
function short(x, cut) {
  if (x === null || x === undefined) return "";
  const value = Number(x), marks = [cut === undefined ? model.gate.least : cut, 0, 1].filter((mark) => mark !== null);
  for (let digits = 3; digits < 17; digits++) {
    const shown = Number(value.toPrecision(digits));
    if (marks.every((mark) => Math.sign(shown - mark) === Math.sign(value - mark))) return String(shown);
  }
  return String(value);
}
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const stateOf = (sample) => sample.reason && sample.outcome === "dropped" ? sample.reason : sample.outcome;
/** What became of a sample, in words. */
const outcomes = { gate: "dropped: gate", quota: "dropped: quota", thin: "dropped: thin", "near-duplicate": "dropped: near-duplicate" };
const outcomeOf = (name) => outcomes[name] || name;
const valueOf = (sample) => (model.gate.by === "alignment" ? sample.alignment : sample.score);

/** Round numbers from `from` to `to`, about so many: their step is 1, 2 or 5 times a power of ten. */
function ticks(from, to, count) {
  const least = (to - from) / count, power = Math.pow(10, Math.floor(Math.log10(least)));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= least * (1 - 1e-9));
  const first = Math.ceil(from / step - 1e-9), last = Math.floor(to / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** The same of a logarithmic axis: 1, 2, 5, 10, 20, ...; of a short one, steps of one size. */
function logTicks(from, to) {
  const found = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power++)
    for (const times of [1, 2, 5]) found.push(times * Math.pow(10, power));
  const within = found.filter((x) => x >= from * (1 - 1e-9) && x <= to * (1 + 1e-9));
  const powers = within.filter((x) => Number.isInteger(Math.round(Math.log10(x) * 1e9) / 1e9));
  if (within.length < 3) return ticks(from, to, 4);
  return within.length > 7 && powers.length > 2 ? powers : within;
}

/** Draws into `holder` at its own width, and anew where that changes, so that letters keep their size. Returns what redraws. */
function fitted(holder, render) {
  let drawn = 0;
  const redraw = () => holder.replaceChildren(render(drawn));
  const fit = () => {
    const width = Math.round(Math.min(860, Math.max(260, holder.clientWidth || 720)));
    if (width !== drawn) { drawn = width; redraw(); }
  };
  new ResizeObserver(fit).observe(holder);
  fit();
  return redraw;
}
