// The sections that show pictures.

function edge() {
  const rows = [["best", "Best: the highest in the corpus"], ["above", "Just above the cut: these pass"], ["below", "Just below the cut: these are dropped"], ["worst", "Worst: the lowest in the corpus"], ["random", "Random"]];
  for (const [name, title] of rows) {
    const list = model.edge[name];
    if (list.length) byId("edge").append(make("div", { class: "edge-row", "data-edge": name }, make("h4", {}, title, ` (${list.length})`), make("div", { class: "tiles" }, list.map((i) => tile(i)))));
  }
}

function clusters() {
  const rows = model.clusters, usable = sum(rows.map((row) => row.funnel.usable)), kept = sum(rows.map((row) => row.funnel.kept));
  const shown = rows.filter((row) => row.nearest.length || row.random.length);
  const empty = rows.filter((row) => row.funnel.kept === 0).length;
  byId("clusters-lead").textContent = rows.length ? `${thousands(usable)} encoded samples lie in ${thousands(rows.length)} clusters. The largest holds ${percent(rows[0].funnel.usable, usable)} of them before, and ${percent(rows[0].funnel.kept, kept)} of what is kept; ${empty ? thousands(empty) + " keep nothing" : "every one keeps something"}. ` +
    `${shown.length < rows.length ? shown.length + " are shown: the largest, and those with the lowest pass rate. " : ""}Nearest by ${model.cluster_distance}.` : "No sample has signals.";
  for (const row of shown) {
    const f = row.funnel, passed = f.usable - f.gate - f.thin;
    const before = percent(f.usable, usable), after = percent(f.kept, kept);
    byId("cluster-cards").append(make("div", { class: "card", "data-cluster": row.cluster },
      make("h4", {}, `Cluster ${row.cluster}: ${thousands(f.usable)} samples, ${thousands(f.kept)} kept`),
      make("div", { class: "soft" }, `share ${before} before, ${after} after · pass rate ${percent(passed, f.usable)} · near-duplicates ${thousands(f.dedup)} · quota ${thousands(f.quota)}`),
      row.words.length ? make("div", { class: "words" }, "words: ", make("b", {}, row.words.join(", ")), make("span", { class: "soft" }, ` (of ${row.captions} captions, against the corpus)`)) : null,
      make("div", { class: "halves" }, make("div", {}, make("div", { class: "soft" }, "nearest to the middle"), strip(row.nearest, { small: true })), make("div", {}, make("div", { class: "soft" }, "random"), strip(row.random, { small: true })))));
  }
}

function near() {
  const titles = { sources: "across sources", shards: "across shards", shard: "within a shard" };
  for (const group of model.near.groups) {
    const verb = model.near.is_on ? "dropped" : "would be dropped";
    const note = (member) => [member.cosine !== null ? `cosine ${member.cosine.toFixed(3)}` : null, member.bits !== null ? `${member.bits} of 256 bits` : null].filter(Boolean).join(", ");
    byId("groups").append(make("div", { class: "card", "data-group": group.across }, make("div", { class: "soft" }, `${titles[group.across]}: 1 stays, ${thousands(group.size)} ${verb}${group.size > group.members.length ? `, ${group.members.length} shown` : ""}`),
      make("div", { class: "pair" }, tile(group.keeper, { note: samples[group.keeper].outcome === "dropped" ? "the others fell to it, then its quota dropped it" : "stays" }), group.members.map((member) => tile(member.sample, { note: note(member) })))));
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
    else if (j < b.length && (i === a.length || table[i][j + 1] >= table[i + 1][j])) { out.push(make("ins", {}, b[j]), " "); j++; }
    else { out.push(make("del", {}, a[i]), " "); i++; }
  }
  return out;
}

function captions() {
  const out = byId("caption-rows"), { generated, shown, fuse, untold } = model.captions;
  const several = samples.map((sample, i) => [sample, i]).filter(([sample]) => (sample.others || []).length).slice(0, 24).map(([, i]) => i);
  out.append(make("p", { class: "lead" }, generated ? `The ledger has generated captions of ${thousands(generated)} samples; ${shown.length} of them, drawn at random. Words that were added are green, words that are gone struck out.` : "The ledger has no generated captions."));
  if (generated || fuse !== "original") out.append(make("p", { class: "note" }, `Trained on: fuse=${fuse}` + (untold ? `, which cannot be shown here: ${untold}.` : ". Shown of kept samples, before the tokenizer cuts them.")));
  for (const i of generated ? shown : several) {
    const sample = samples[i];
    out.append(make("div", { class: "caption-row" }, make("button", { type: "button", class: "frame", title: where(sample), onclick: () => open(i) }, picture(sample)), make("div", {}, state(sample),
      make("p", { dir: "auto" }, make("span", { class: "soft" }, "original: "), sample.caption || ""),
      (sample.others || []).map(([name, text]) => make("p", { dir: "auto" }, make("span", { class: "soft" }, `${name}: `), text)),
      sample.generated ? make("p", { dir: "auto" }, make("span", { class: "soft" }, "generated: "), sample.generated) : null,
      sample.generated && sample.caption ? make("p", { dir: "auto" }, make("span", { class: "soft" }, "changed: "), wordDiff(sample.caption, sample.generated)) : null,
      sample.trained_on ? make("p", { dir: "auto" }, make("span", { class: "soft" }, "trained on: "), make("strong", {}, sample.trained_on)) : null,
      make("p", { class: "soft" }, where(sample)))));
  }
}

function failures() {
  const out = byId("failure-rows"), rows = model.failures;
  if (!rows.length) { out.append(make("p", {}, "No sample failed.")); return; }
  for (const row of rows) out.append(make("div", { class: "card", "data-reason": row.reason }, make("h4", {}, `${row.reason}: ${thousands(row.count)}${row.shown.length < row.count ? ", of which " + row.shown.length + " are shown" : ""}`),
    make("ul", {}, row.shown.map((i) => make("li", {}, samples[i].sentence))), strip(row.shown.filter((i) => samples[i].tile), { small: true })));
}
