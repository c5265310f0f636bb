// Tiles: a picture, its caption, what became of it, and where it is.
const ticked = new Set();
const nodes = new Map();
/** A space that no line breaks at. */
const FIXED = "\u00a0";

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
  // Its number stays with the reason.
  return make("span", { class: `state is-${name}` }, outcomeOf(name), value === undefined || value === null ? "" : `${FIXED}·${FIXED}${short(value, sample.least)}`);
}

const rescued = (sample) => (sample.rescued ? make("span", { class: "state is-rescued" }, " rescued") : null);

/** The picture of a sample as a button that opens its facts. */
const frame = (i) => make("button", { type: "button", class: "frame", title: "Open " + where(samples[i]), "aria-haspopup": "dialog", onclick: (event) => open(i, listOf(event.currentTarget)) }, picture(samples[i]));
/** The samples of the list that an element is in. */
const listOf = (element) => [...element.closest(".tiles,.strip,.pair,ul,#caption-rows").querySelectorAll("[data-sample]")].map((own) => Number(own.dataset.sample));

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
  told();
  counted();
}

/** A caption, and where the page cuts it. */
const whole = (text) => (text && text.endsWith("…") && [...text].length === model.caption_chars + 1 ? [text, make("span", { class: "soft" }, ` cut at ${model.caption_chars} characters`)] : [text || ""]);

/** Of a near-duplicate, the place of the sample that it fell to, where that is on the page. */
function otherOf(i) {
  const group = model.near.groups.find((group) => group.members.some((member) => member.sample === i));
  return group ? group.keeper : samples[i].near === undefined ? -1 : samples.findIndex((other) => other.id === samples[i].near);
}

const titled = (i, text) => make("figure", {}, picture(samples[i]), text && make("figcaption", {}, text));

/** The facts of one sample, in a dialog; `list` is what it is one of. */
let around = [], current = 0;
function open(i, list) {
  around = list; current = i;
  const sample = samples[i], other = otherOf(i), trained = model.captions.changes ? "trained on in epoch 0" : "trained on";
  const facts = [["caption", whole(sample.caption)], ["generated", sample.generated && whole(sample.generated)], ["judge's score", sample.judged], ["rescued", sample.rescued ? "yes: the gate dropped it, and its generated caption brought it back" : null], [trained, sample.trained_on && (sample.trained_on === sample.caption && !sample.cut ? "the caption above" : whole(sample.trained_on))], ["cut off by the tokenizer", sample.cut], ...(sample.others || []).map(([name, text]) => [`${name} caption`, whole(text)]),
    ["cluster", sample.cluster], ["alignment", sample.alignment], ["score", sample.score], ["pi, the chance of being kept", sample.pi && short(sample.pi)], ["size", sample.size && sample.size.join(" × ") + " pixels"],
    ["source", sample.source], ["shard", sample.shard], ["key", sample.key], ["id", sample.id], ["no picture", sample.why]];
  byId("one-content").replaceChildren(make("h3", { id: "one-title", tabindex: -1 }, sample.key || "id " + sample.id), make("div", { class: "large" }, titled(i, other < 0 ? null : "this one"), other < 0 ? null : titled(other, "near to " + (samples[other].key || "id " + samples[other].id))), make("p", {}, sample.sentence),
    make("dl", {}, facts.filter(([, value]) => value !== null && value !== undefined && String(value) !== "").flatMap(([name, value]) => [make("dt", {}, name), make("dd", { dir: "auto" }, Array.isArray(value) ? value : String(value))])));
  const at = around.indexOf(i);
  byId("one-place").textContent = `${at + 1} of ${around.length}`;
  byId("one-before").disabled = at <= 0; byId("one-after").disabled = at + 1 >= around.length;
  if (!byId("one").open) byId("one").showModal();
  byId("one").scrollTop = 0;
  // It reads from its top.
  byId("one-title").focus();
}

/** Opens the one before or after it. */
function step(by) {
  const next = around[around.indexOf(current) + by];
  if (next !== undefined) open(next, around);
}

const strip = (list, options) => make("div", { class: "strip" }, list.map((i) => tile(i, options)));
