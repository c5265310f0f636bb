// The sections that show pictures.

function edge() {
  const rows = [["best", "Best: the highest in the corpus"], ["above", "Just above the cut: these pass"], ["below", "Just below the cut: these are dropped"], ["worst", "Worst: the lowest in the corpus"], ["random", "Random"]];
  for (const [name, title] of rows) {
    const list = model.edge[name];
    if (list.length) byId("edge").append(make("div", { class: "edge-row", "data-edge": name }, make("h4", {}, title, ` (${list.length})`), make("div", { class: "tiles" }, list.map((i) => tile(i)))));
  }
}

/** Orders of the clusters, each by a number of which the least comes first. */
const orders = {
  size: (f) => -f.usable,
  pass: (f) => (f.usable - f.gate - f.thin) / Math.max(1, f.usable),
  kept: (f) => f.kept / Math.max(1, f.usable),
};

function clusters() {
  const rows = model.clusters, usable = sum(rows.map((row) => row.funnel.usable)), kept = sum(rows.map((row) => row.funnel.kept));
  const shown = rows.filter((row) => row.nearest.length || row.random.length);
  const empty = rows.filter((row) => row.funnel.kept === 0).length;
  byId("clusters-lead").textContent = rows.length ? `${thousands(usable)} encoded samples lie in ${thousands(rows.length)} clusters. The largest holds ${percent(rows[0].funnel.usable, usable)} of them before, and ${percent(rows[0].funnel.kept, kept)} of what is kept; ${empty ? thousands(empty) + " keep nothing" : "every one keeps something"}. ` +
    `${shown.length < rows.length ? shown.length + " are shown: the largest, and those with the lowest pass rate. " : ""}${model.cluster_nearest}` : "No sample has signals.";
  byId("clusters-order").closest("p").hidden = !rows.length;
  if (!rows.length) return;
  const cards = new Map(shown.map((row) => [row, clusterCard(row, usable, kept)]));
  const holder = make("div", { class: "fitted" });
  byId("sizes").append(holder, make("div", { class: "legend" }, parts.filter(([, part]) => model.funnel[part]).map(([kind]) => make("span", { class: "is-" + kind }, outcomeOf(kind)))));
  let sorted = rows;
  const redraw = fitted(holder, (width) => sizes(sorted)(width));
  const order = () => {
    const by = orders[byId("clusters-order").value];
    sorted = rows.slice().sort((a, b) => by(a.funnel) - by(b.funnel) || b.funnel.usable - a.funnel.usable || a.cluster - b.cluster);
    redraw();
    byId("cluster-cards").replaceChildren(...sorted.filter((row) => cards.has(row)).map((row) => cards.get(row)));
  };
  byId("clusters-order").addEventListener("change", order);
  order();
}

function clusterCard(row, usable, kept) {
  const f = row.funnel, passed = f.usable - f.gate - f.thin;
  const before = percent(f.usable, usable), after = percent(f.kept, kept);
  return make("div", { class: "card", "data-cluster": row.cluster },
    make("h4", {}, `Cluster ${row.cluster}: ${thousands(f.usable)} samples, ${thousands(f.kept)} kept (${percent(f.kept, f.usable)})`),
    make("div", { class: "soft" }, `share ${before} before, ${after} after · pass rate ${percent(passed, f.usable)} · near-duplicates ${thousands(f.dedup)} · quota ${thousands(f.quota)}`),
    row.words.length ? make("div", { class: "words" }, "words: ", make("b", {}, row.words.join(", ")), make("span", { class: "soft" }, ` (of ${row.captions} captions, against the corpus)`)) : null,
    make("div", { class: "halves" }, make("div", {}, make("div", { class: "soft" }, model.cluster_label), strip(row.nearest, { small: true })), make("div", {}, make("div", { class: "soft" }, "random"), strip(row.random, { small: true }))));
}

function near() {
  const titles = { sources: "across sources", shards: "across shards", shard: "within a shard" };
  for (const group of model.near.groups) {
    const verb = model.near.is_on ? "dropped" : "would be dropped";
    const note = (member) => [member.cosine !== null ? `cosine ${member.cosine.toFixed(3)}` : null, member.bits !== null ? `${member.bits} of 256 bits` : null].filter(Boolean).join(", ");
    // What the others fell to is not always kept.
    const fell = samples[group.keeper].outcome === "dropped", copies = `${thousands(group.size)} near-duplicate${group.size > 1 ? "s" : ""}`;
    const text = fell ? `0 kept: ${copies}, then the quota` : `1 stays, ${thousands(group.size)} ${verb}`;
    byId("groups").append(make("div", { class: "card", "data-group": group.across }, make("div", { class: "soft" }, `${titles[group.across]}: ${text}${group.size > group.members.length ? `, ${group.members.length} shown` : ""}`),
      make("div", { class: "pair" }, tile(group.keeper, { note: fell ? `the other${group.size > 1 ? "s" : ""} fell to it, then the quota dropped it` : "stays" }), group.members.map((member) => tile(member.sample, { note: note(member) })))));
  }
}

/** Which words of `to` are not in `from`, and which of `from` are gone: the longest common subsequence. */
function wordDiff(from, to) {
  const a = from.split(/\s+/).slice(0, 120), b = to.split(/\s+/).slice(0, 120), fold = (word) => word.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");
  const table = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) table[i][j] = fold(a[i]) === fold(b[j]) ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
  const out = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && fold(a[i]) === fold(b[j])) { out.push(b[j] + " "); i++; j++; }
    else if (i < a.length && (j === b.length || table[i + 1][j] >= table[i][j + 1])) { out.push(make("del", {}, a[i]), " "); i++; }
    else { out.push(make("ins", {}, b[j]), " "); j++; }
  }
  return out;
}

/** Captions of a sample, one below the other, with the words that changed. */
function captionRow(i) {
  const sample = samples[i], { changes, is_cut: known, context_length: length } = model.captions;
  const line = (name, ...text) => make("p", { dir: "auto" }, make("span", { class: "soft" }, name + ": "), text);
  const against = (text) => (sample.caption ? line("changed", wordDiff(sample.caption, text)) : null);
  const trained = "trained on" + (changes ? " in epoch 0" : "") + (known ? "" : `, before the tokenizer cuts it at ${length} tokens`);
  return make("div", { class: "caption-row", "data-sample": i }, frame(i), make("div", {}, state(sample), rescued(sample),
    line("original", whole(sample.caption)),
    (sample.others || []).map(([name, text]) => [line(name, whole(text)), against(text)]),
    sample.generated ? [line("generated", whole(sample.generated), judged(sample)), against(sample.generated)] : null,
    sample.trained_on === undefined ? null : line(trained, make("strong", {}, whole(sample.trained_on)), sample.cut ? [make("s", {}, sample.cut), make("span", { class: "soft" }, ` cut at ${length} tokens`)] : null),
    make("p", { class: "soft" }, where(sample))));
}

const judged = (sample) => make("span", { class: "soft" }, sample.judged === undefined ? "" : ` · the judge says ${short(sample.judged)}`);

function captions() {
  const out = byId("caption-rows"), { generated, shown, fuse, changes, judges, rescue, rescued: back, is_cut: known, context_length: length } = model.captions;
  const has = (sample) => (sample.others || []).length, told = (sample) => sample.trained_on !== undefined;
  const several = samples.map((_, i) => i).filter((i) => has(samples[i])).sort((a, b) => told(samples[b]) - told(samples[a]) || a - b).slice(0, 24);
  const list = generated ? shown : several;
  out.append(make("p", { class: "lead" }, (generated ? `The ledger has generated captions of ${thousands(generated)} samples; ${shown.length} of them are shown, drawn at random. ` : "The ledger has no generated captions. ") + (list.length ? "Words that were added are green, words that are gone struck out." : "")));
  // Where there are no generated captions, no judge has any.
  out.append(generated ? make("p", { class: "note" }, judges) : "", rescue ? make("p", { class: "note" }, rescue) : "",
    make("p", { class: "note" }, `A kept sample is trained on the caption that fuse=${fuse} takes` + (changes ? ", drawn anew in every epoch: that of epoch 0 is shown, " : ". It is shown ") + (known ? `as the tokenizer cuts it at ${length} tokens.` : `before the tokenizer cuts it at ${length} tokens.`)));
  if (back.length) out.append(make("h3", {}, `Rescued (${back.length})`), ...back.map((i) => captionRow(i)), make("h3", {}, "Random"));
  out.append(...list.map((i) => captionRow(i)));
}

/** What went wrong with samples, each openable, and the pictures that there are. */
function list(rows, id, title) {
  for (const row of rows) byId(id).append(make("div", { class: "card", "data-reason": row.reason || row.condition }, make("h4", {}, `${title(row)}: ${thousands(row.count)}${row.shown.length < row.count ? ", of which " + row.shown.length + " are shown" : ""}`),
    make("ul", {}, row.shown.map((i) => make("li", { "data-sample": i }, make("button", { type: "button", class: "link", "aria-haspopup": "dialog", onclick: (event) => open(i, listOf(event.currentTarget)) }, samples[i].sentence)))), strip(row.shown.filter((i) => samples[i].tile), { small: true })));
}

function failures() {
  if (!model.failures.length) byId("failure-rows").append(make("p", {}, "No sample failed."));
  list(model.failures, "failure-rows", (row) => row.reason);
}

function excluded() {
  if (model.excluded.length) list(model.excluded, "excluded-rows", (row) => `${model.sources.length > 1 ? row.source + ": " : ""}${row.condition}`);
}
