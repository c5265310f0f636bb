// Tiles: a picture, its caption, what became of it, and where it is.
const ticked = new Set();
const nodes = new Map();

/** The picture of a sample, or why there is none. */
function picture(sample) {
  if (!sample.tile) return make("span", { class: "nothing", title: sample.why || "" }, sample.why ? "no picture: " + sample.why.slice(0, 40) : "no picture");
  const [number, width, height] = sample.tile, { side, columns, on_a_sheet: all } = model.tiles, at = number % all;
  const element = make("span", { class: `picture sheet-${Math.floor(number / all)}`, role: "img", "aria-label": sample.caption || sample.key || "picture" });
  element.style.width = width + "px"; element.style.height = height + "px";
  element.style.backgroundPosition = `-${(at % columns) * side}px -${Math.floor(at / columns) * side}px`;
  return element;
}

const where = (sample) => `${model.sources.length > 1 ? sample.source + "/" : ""}${sample.shard} ${sample.key || "id " + sample.id}`;
/** What became of a sample, in two or three words. */
function state(sample) {
  const name = stateOf(sample), value = valueOf(sample);
  const text = { gate: "dropped: gate", quota: "dropped: quota", thin: "dropped: thin", "near-duplicate": "dropped: near-duplicate" }[name] || name;
  return make("span", { class: `state is-${name}` }, text, value === undefined || value === null ? "" : ` · ${short(value)}`);
}

const rescued = (sample) => (sample.rescued ? make("span", { class: "state is-rescued" }, " rescued") : null);

/** The picture of a sample as a button that opens its facts. */
const frame = (i) => make("button", { type: "button", class: "frame", title: "Open " + where(samples[i]), "aria-haspopup": "dialog", onclick: () => open(i) }, picture(samples[i]));

/** A tile; `i` is the place of its sample. */
function tile(i, options) {
  const sample = samples[i], { note, tickable, small } = options || {};
  const element = make("article", { class: "tile" + (small ? " small" : ""), "data-sample": i },
    frame(i));
  if (tickable) {
    const box = make("input", { type: "checkbox", class: "tick", "aria-label": "Tick " + where(sample), onchange: (event) => tick(i, event.target.checked) });
    box.checked = ticked.has(i); element.classList.toggle("ticked", ticked.has(i)); element.append(box);
    nodes.set(i, element);
  }
  element.append(state(sample));
  if (sample.rescued) element.append(rescued(sample));
  if (note) element.append(make("span", {}, note));
  if (sample.caption) element.append(make("span", { class: "text", dir: "auto", title: sample.caption }, sample.caption));
  element.append(make("span", { class: "where" }, where(sample)));
  return element;
}

function tick(i, on) {
  if (on) ticked.add(i); else ticked.delete(i);
  const element = nodes.get(i);
  if (element) { element.classList.toggle("ticked", on); element.querySelector(".tick").checked = on; }
  counted();
}

/** The facts of one sample, in a dialog. */
function open(i) {
  const sample = samples[i], trained = model.captions.changes ? "trained on in epoch 0" : "trained on";
  const facts = [["caption", sample.caption], ["generated", sample.generated], ["judge's score", sample.judged], ["rescued", sample.rescued ? "yes: the gate dropped it, and its generated caption brought it back" : null], [trained, sample.trained_on], ["cut off", sample.cut], ...(sample.others || []).map(([name, text]) => [`${name} caption`, text]),
    ["cluster", sample.cluster], ["alignment", sample.alignment], ["score", sample.score], ["pi", sample.pi && short(sample.pi)], ["size", sample.size && sample.size.join(" × ") + " pixels"],
    ["source", sample.source], ["shard", sample.shard], ["key", sample.key], ["id", sample.id], ["no picture", sample.why]];
  byId("one-content").replaceChildren(make("h3", { id: "one-title" }, sample.key || "id " + sample.id), make("div", { class: "large" }, picture(sample)), make("p", {}, sample.sentence),
    make("dl", {}, facts.filter(([, value]) => value !== null && value !== undefined).flatMap(([name, value]) => [make("dt", {}, name), make("dd", { dir: "auto" }, String(value))])));
  byId("one").showModal();
}

const strip = (list, options) => make("div", { class: "strip" }, list.map((i) => tile(i, options)));
