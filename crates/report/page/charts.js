// Charts, in SVG.

/** Adds up histograms of several sources. */
function added(which, sources) {
  const all = sources.map((name) => model.histograms[name][which]).filter((h) => sum(h.kept) + sum(h.dropped) > 0);
  if (!all.length) return null;
  if (all.every((h) => h.from === all[0].from && h.step === all[0].step && h.kept.length === all[0].kept.length)) {
    const bins = (side) => all[0][side].map((_, i) => sum(all.map((h) => h[side][i])));
    return { from: all[0].from, step: all[0].step, kept: bins("kept"), dropped: bins("dropped") };
  }
  // Steps are powers of two, so that coarse bins hold whole fine ones, but for their offsets.
  const step = Math.max(...all.map((h) => h.step));
  const from = Math.floor(Math.min(...all.map((h) => h.from)) / step) * step;
  const to = Math.max(...all.map((h) => h.from + h.step * h.kept.length));
  const out = { from, step, kept: [], dropped: [] };
  for (const side of ["kept", "dropped"]) {
    out[side] = new Array(Math.ceil((to - from) / step) + 1).fill(0);
    for (const h of all) h[side].forEach((n, i) => { out[side][Math.floor((h.from + (i + 0.5) * h.step - from) / step)] += n; });
  }
  return out;
}

/** The histogram with so many bins in one. */
function coarser(h, times) {
  const join = (bins) => Array.from({ length: Math.ceil(bins.length / times) }, (_, i) => sum(bins.slice(i * times, (i + 1) * times)));
  return { from: h.from, step: h.step * times, kept: join(h.kept), dropped: join(h.dropped) };
}

/** Bars of kept and dropped samples, stacked, with the cut. */
function histogram(title, h, options) {
  const { cut, tick = (x) => short(x), note = "", names = ["kept", "dropped"] } = options || {};
  const width = 380, height = 150, left = 6, bottom = 20, top = 8;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  const bins = h.kept.length, most = Math.max(1, ...h.kept.map((n, i) => n + h.dropped[i]));
  const across = (bin) => left + ((width - 2 * left) * bin) / bins;
  const up = (n) => ((height - bottom - top) * n) / most;
  const floor = height - bottom;
  for (let i = 0; i < bins; i++) {
    const w = Math.max(0.6, across(1) - across(0) - 0.4);
    const kept = up(h.kept[i]), dropped = up(h.dropped[i]);
    if (kept) svg.append(draw("rect", { x: across(i), y: floor - kept, width: w, height: kept, class: "fill-kept" }));
    if (dropped) svg.append(draw("rect", { x: across(i), y: floor - kept - dropped, width: w, height: dropped, class: "fill-drop" }));
  }
  svg.append(draw("line", { x1: left, x2: width - left, y1: floor, y2: floor, class: "axis" }));
  for (const part of [0, 0.25, 0.5, 0.75, 1]) {
    const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
    svg.append(draw("text", { x: across(bins * part), y: height - 6, "text-anchor": anchor }, tick(h.from + h.step * bins * part)));
  }
  if (cut !== undefined && cut !== null) {
    const x = across((cut - h.from) / h.step);
    svg.append(draw("line", { x1: x, x2: x, y1: 0, y2: floor, class: "cut" }), draw("text", { x: x + 4, y: 12 }, "cut " + short(cut)));
  }
  const n = sum(h.kept) + sum(h.dropped);
  return make("figure", {}, make("figcaption", {}, make("strong", {}, title), ` n = ${thousands(n)}. ${note}`), svg,
    make("div", { class: "legend" }, sum(h.kept) || !sum(h.dropped) ? make("span", { class: "is-kept" }, `${names[0]} ${thousands(sum(h.kept))}`) : null,
      sum(h.dropped) ? make("span", { class: "is-failed" }, `${names[1]} ${thousands(sum(h.dropped))}`) : null));
}

/** Values in so many bins. */
function binned(values, kept, from, to, bins) {
  const h = { from, step: (to - from) / bins, kept: new Array(bins).fill(0), dropped: new Array(bins).fill(0) };
  values.forEach((x, i) => {
    const bin = Math.min(bins - 1, Math.max(0, Math.floor((x - from) / h.step)));
    h[kept[i] ? "kept" : "dropped"][bin] += 1;
  });
  return h;
}

function histograms() {
  const names = Object.keys(model.histograms), select = byId("histogram-source");
  select.append(make("option", { value: "" }, "all"), ...names.map((name) => make("option", { value: name }, name)));
  const show = () => {
    const own = select.value ? [select.value] : names, out = byId("histogram-charts"), charts = [];
    const cut = model.gate.is_on && model.gate.least !== null ? model.gate.least : null;
    const alignment = added("alignment", own), score = added("score", own), chars = added("caption_chars", own), pi = added("pi", own);
    if (score) charts.push(histogram(model.gate.by, score.kept.length > 80 ? coarser(score, 4) : score, { cut: model.gate.by === "alignment" ? null : cut }));
    if (alignment) charts.push(histogram("alignment", coarser(alignment, 4), { cut: model.gate.by === "alignment" ? cut : null }));
    if (chars) charts.push(histogram("caption length in characters", chars, { tick: (x) => thousands(Math.pow(2, x / 4)), note: "Logarithmic." }));
    if (pi) charts.push(histogram("pi of kept samples", pi));
    const drawn = model.browse.map((i) => samples[i]).filter((s) => s.size && (!select.value || s.source === select.value));
    const kept = drawn.map((s) => s.outcome === "kept" || s.outcome === "usable");
    if (drawn.length) {
      const longer = drawn.map((s) => Math.log2(Math.max(...s.size))), aspect = drawn.map((s) => Math.log2(s.size[0] / s.size[1]));
      const low = Math.floor(Math.min(...longer)), high = Math.ceil(Math.max(...longer) + 0.01);
      charts.push(histogram("longer side in pixels", binned(longer, kept, low, high, 24), { tick: (x) => thousands(Math.pow(2, x)), note: "Sampled, logarithmic." }));
      const far = Math.max(1, ...aspect.map(Math.abs)) + 0.01;
      charts.push(histogram("width over height", binned(aspect, kept, -far, far, 25), { tick: (x) => short(Math.pow(2, x)), note: "Sampled, logarithmic." }));
    }
    out.replaceChildren(...charts);
  };
  select.addEventListener("change", show);
  show();
}

/** What passes a gate of the whole corpus at every cut, and what a keep_ratio keeps of it. */
function curve() {
  const which = model.gate.by === "alignment" ? "alignment" : "score";
  const h = added(which, Object.keys(model.histograms)), out = byId("curve");
  if (!h) { byId("curve-title").hidden = true; return; }
  const bins = h.kept.length, counts = h.kept.map((n, i) => n + h.dropped[i]), passing = new Array(bins + 1).fill(0);
  for (let i = bins - 1; i >= 0; i--) passing[i] = passing[i + 1] + counts[i];
  const usable = model.funnel.usable, width = 720, height = 170, left = 40, bottom = 22, top = 8;
  const across = (i) => left + ((width - left - 10) * i) / bins, up = (n) => height - bottom - ((height - bottom - top) * n) / Math.max(1, usable);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "How much passes the gate at each cut" });
  for (const part of [0, 0.5, 1]) svg.append(draw("line", { x1: left, x2: width - 10, y1: up(part * usable), y2: up(part * usable), class: "axis" }),
    draw("text", { x: left - 6, y: up(part * usable) + 4, "text-anchor": "end" }, part * 100 + "%"));
  for (const part of [0, 0.25, 0.5, 0.75, 1]) svg.append(draw("text", { x: across(bins * part), y: height - 6, "text-anchor": "middle" }, short(h.from + h.step * bins * part)));
  svg.append(draw("text", { x: width - 12, y: 14, "text-anchor": "end" }, `usable samples with ${model.gate.by} of at least …`));
  svg.append(draw("path", { class: "curve", d: "M" + passing.map((n, i) => `${across(i).toFixed(1)} ${up(n).toFixed(1)}`).join("L") }));
  const line = draw("line", { y1: 0, y2: height - bottom, class: "cut" }), ceiling = draw("line", { x1: left, x2: width - 10, class: "cut" });
  svg.append(line, ceiling);
  const own = model.gate.is_on && model.gate.least !== null ? Math.round((model.gate.least - h.from) / h.step) : 0;
  const gate = make("input", { type: "range", min: 0, max: bins, value: Math.min(bins, Math.max(0, own)), id: "curve-gate" });
  const ratio = make("input", { type: "range", min: 1, max: 100, value: Math.round(100 * (model.head.keep_ratio || 1)), id: "curve-ratio" });
  const said = make("p", { id: "curve-said", role: "status" });
  const show = () => {
    const at = Number(gate.value), keep = Number(ratio.value) / 100, wanted = Math.round(keep * usable), kept = Math.min(wanted, passing[at]);
    for (const side of ["x1", "x2"]) line.setAttribute(side, across(at));
    for (const side of ["y1", "y2"]) ceiling.setAttribute(side, up(wanted));
    const cut = short(h.from + h.step * at);
    said.textContent = `${model.gate.by} of ${cut} or more: ${thousands(passing[at])} of ${thousands(usable)} usable samples pass (${percent(passing[at], usable)}). ` +
      (kept < wanted ? `keep_ratio ${keep.toFixed(2)} asks for ${thousands(wanted)}, more than pass: lower it, or widen the gate.`
        : `keep_ratio ${keep.toFixed(2)} keeps ${thousands(kept)}, ${percent(kept, passing[at])} of what passes, before near-duplicates are dropped.`);
  };
  gate.addEventListener("input", show); ratio.addEventListener("input", show);
  out.append(svg, make("div", { class: "sliders" }, make("label", {}, "cut", gate), make("label", {}, "keep_ratio", ratio)), said);
  if (model.gate.is_by_cluster) out.append(make("p", { class: "note" }, "The curve is of one cut for the whole corpus; the gate in force has one for each cluster."));
  show();
}

/** The stored AUC on its scale, with its error. */
function auc() {
  const out = byId("auc"), { auc: value, auc_error: error, pairs } = model.gate;
  if (!out) return;
  const width = 420, x = (a) => 20 + ((width - 40) * (Math.min(1, Math.max(0.4, a)) - 0.4)) / 0.6;
  const svg = draw("svg", { viewBox: `0 0 ${width} 58`, role: "img", "aria-label": `AUC ${value.toFixed(3)}, with an error of ${error.toFixed(3)}` });
  svg.append(draw("line", { x1: x(0.4), x2: x(1), y1: 24, y2: 24, class: "axis" }));
  for (const [at, text] of [[0.5, "0.5 guessing"], [0.75, "0.75"], [1, "1 perfect"]]) svg.append(draw("line", { x1: x(at), x2: x(at), y1: 18, y2: 30, class: "axis" }), draw("text", { x: x(at), y: 46, "text-anchor": at === 1 ? "end" : "middle" }, text));
  const from = x(value - 2 * error), to = x(value + 2 * error);
  svg.append(draw("rect", { x: from, width: Math.max(2, to - from), y: 20, height: 8, class: model.gate.warning ? "fill-drop" : "fill-kept", opacity: 0.5 }),
    draw("circle", { cx: x(value), cy: 24, r: 6, class: model.gate.warning ? "fill-drop" : "fill-kept" }));
  out.append(make("figure", {}, make("figcaption", {}, `AUC ${value.toFixed(3)} ± ${error.toFixed(3)} on ${thousands(pairs)} pairs; the bar is two errors wide on either side.`), svg));
}

function swapped() {
  const found = model.gate.swapped, out = byId("swapped");
  if (!found) { out.append(make("p", { class: "note" }, "To see alignments of true and swapped captions beside each other, have the scorer score sampled pictures anew: --scorer.")); return; }
  const h = { from: 0, step: 1 / found.own.length, kept: found.own, dropped: found.swapped };
  const side = (bins) => ({ ...h, kept: bins, dropped: bins.map(() => 0) });
  out.append(make("p", {}, `Scored anew: of ${thousands(found.pairs)} sampled pictures, true captions against captions of other pictures. AUC ${found.auc.toFixed(3)} ± ${found.auc_error.toFixed(3)}: in ${Math.round(100 * found.auc)} of 100 cases the true caption aligns better, where guessing gets 50.`),
    make("div", { class: "charts" }, histogram("alignment of true captions", side(found.own), { names: ["true", ""] }),
      histogram("alignment of swapped captions", { ...h, kept: found.swapped.map(() => 0), dropped: found.swapped }, { names: ["", "swapped"] })));
}

/** Sizes of the clusters, sorted, before and after. */
function sizes() {
  const rows = model.clusters, out = byId("sizes");
  if (!rows.length) return;
  const width = 720, height = 150, left = 6, bottom = 6, most = Math.max(...rows.map((row) => row.funnel.usable));
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Sizes of the clusters, before and after" });
  const step = (width - 2 * left) / rows.length, up = (n) => ((height - bottom - 4) * n) / most, floor = height - bottom;
  rows.forEach((row, i) => {
    const add = (n, kind) => n && svg.append(draw("rect", { x: (left + i * step).toFixed(2), y: (floor - up(n)).toFixed(2), width: Math.max(0.5, step - 0.5).toFixed(2), height: up(n).toFixed(2), class: kind }));
    add(row.funnel.usable, "fill-drop"); add(row.funnel.usable - row.funnel.gate - row.funnel.thin, "fill-soft"); add(row.funnel.kept, "fill-kept");
  });
  out.append(svg, make("div", { class: "legend" }, make("span", { class: "is-kept" }, "kept"), make("span", { class: "is-quota" }, "passed the gate, dropped after it"), make("span", { class: "is-gate" }, "dropped by the gate")));
}
