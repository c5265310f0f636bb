// Filtering, ticking, copying, keys; then everything is drawn.
const PAGE = 120;
let found = [], limit = PAGE;

function counted() {
  byId("filter-count").textContent = `${thousands(found.length)} of the ${thousands(samples.length)} samples on this page match, ${thousands(ticked.size)} ticked`;
  byId("tick-all").textContent = found.length === 1 ? "Tick the one match" : `Tick all ${thousands(found.length)} matches`;
  byId("tick-all").disabled = !found.length;
}

/** Takes back what was said of a copy: it is of other ticks. */
function told() {
  byId("copy-status").textContent = ""; byId("copied").hidden = true;
}

function filtered() {
  const words = byId("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean), outcome = byId("filter-outcome").value;
  const cluster = byId("filter-cluster").value, source = byId("filter-source").value, only = byId("filter-ticked").checked;
  found = samples.map((_, i) => i).filter((i) => {
    const sample = samples[i], text = `${sample.caption || ""} ${sample.generated || ""} ${(sample.others || []).map(([, text]) => text).join(" ")} ${sample.key || ""} ${sample.shard} ${sample.id}`.toLowerCase();
    return words.every((word) => text.includes(word)) && (!outcome || stateOf(sample) === outcome) && (!cluster || String(sample.cluster) === cluster) && (!source || sample.source === source) && (!only || ticked.has(i));
  });
  nodes.clear();
  byId("filter-tiles").replaceChildren(...found.slice(0, limit).map((i) => tile(i, { tickable: true })));
  byId("more").hidden = found.length <= limit;
  byId("nothing").hidden = found.length > 0;
  counted();
}

/** Lines that a loader takes as a subset: exact by id, with the names for people. */
const lines = (list) => list.map((i) => JSON.stringify({ id: samples[i].id, source: samples[i].source, shard: samples[i].shard, key: samples[i].key })).join("\n") + "\n";

async function copy(kind) {
  const list = [...ticked].sort((a, b) => a - b), status = byId("copy-status"), area = byId("copied");
  told();
  if (!list.length) { status.textContent = "Tick samples first."; return; }
  area.value = lines(list); area.hidden = false;
  const rows = list.length === 1 ? "this 1" : `these ${thousands(list.length)}`;
  const use = kind === "subset" ? [`To keep ONLY ${rows}: save it as subset.jsonl, and give the source subset=subset.jsonl.`]
    : [`To leave ${rows} OUT: save it as exclude.jsonl, run `, make("code", {}, model.head.export), ", and give the source subset=subset.parquet."];
  let copied = true;
  try { await navigator.clipboard.writeText(area.value); } catch { area.focus(); area.select(); copied = false; }
  status.replaceChildren(copied ? "Copied. " : "Selected below: press Ctrl+C. ", ...use);
}

function options(id, values, name) {
  byId(id).append(make("option", { value: "" }, "all"), ...values.map((value) => make("option", { value }, name ? name(value) : value)));
  byId(id).addEventListener("change", () => { limit = PAGE; filtered(); });
}

function toggle(id, apply) {
  byId(id).addEventListener("click", () => {
    const on = byId(id).getAttribute("aria-pressed") !== "true";
    byId(id).setAttribute("aria-pressed", on); apply(on);
  });
}

function start() {
  const unique = (values) => [...new Set(values)].filter((value) => value !== undefined && value !== null);
  options("filter-outcome", unique(samples.map(stateOf)).sort(), outcomeOf);
  options("filter-cluster", unique(samples.map((sample) => sample.cluster)).sort((a, b) => a - b), (value) => "cluster " + value);
  options("filter-source", unique(samples.map((sample) => sample.source)).sort());
  byId("filter-text").addEventListener("input", () => { limit = PAGE; filtered(); });
  byId("filter-ticked").addEventListener("change", filtered);
  const kept = model.head.keep_ratio === null ? "usable" : "kept", here = samples.filter((sample) => sample.outcome === kept).length;
  if (here < model.funnel.kept) byId("filter-note").textContent = `${thousands(here)} of the ${thousands(model.funnel.kept)} ${kept} samples are on this page; the others cannot be ticked here.`;
  byId("clear").addEventListener("click", () => { byId("filter-form").reset(); limit = PAGE; filtered(); byId("filter-text").focus(); });
  byId("one-before").addEventListener("click", () => step(-1));
  byId("one-after").addEventListener("click", () => step(1));
  // The dialog's own area is its content: what is hit outside of that is the backdrop.
  byId("one").addEventListener("click", (event) => { if (event.target === byId("one")) byId("one").close(); });
  byId("one").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { event.preventDefault(); step(by); }
  });
  byId("more").addEventListener("click", () => { limit += PAGE; filtered(); });
  byId("tick-all").addEventListener("click", () => found.forEach((i) => tick(i, true)));
  byId("tick-none").addEventListener("click", () => [...ticked].forEach((i) => tick(i, false)));
  byId("copy-subset").addEventListener("click", () => copy("subset"));
  byId("copy-exclude").addEventListener("click", () => copy("exclude"));
  toggle("blur", (on) => document.body.classList.toggle("blurred", on));
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  byId("dark").setAttribute("aria-pressed", isDark);
  toggle("dark", (on) => { document.documentElement.dataset.theme = on ? "dark" : "light"; });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox") return;
    if (event.key === "/") { event.preventDefault(); byId("filter-text").focus(); }
    if (event.key === "b") byId("blur").click();
    if (event.key === "d") byId("dark").click();
    const frame = event.target.closest && event.target.closest("#filter-tiles .tile");
    if (event.key === "x" && frame) { const i = Number(frame.dataset.sample); tick(i, !ticked.has(i)); }
  });
  for (const section of [curve, auc, swapped, edge, clusters, near, histograms, captions, failures, excluded, filtered]) section();
}
start();
