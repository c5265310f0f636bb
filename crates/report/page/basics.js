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
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
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
const percent = (part, of) => (of ? (100 * part) / of : 0).toFixed(1) + "%";
const short = (x) => (x === null || x === undefined ? "" : String(Number(Number(x).toPrecision(3))));
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const stateOf = (sample) => sample.reason && sample.outcome === "dropped" ? sample.reason : sample.outcome;
const valueOf = (sample) => (model.gate.by === "alignment" ? sample.alignment : sample.score);
