// Charts, in SVG.

/** Adds up histograms of several sources. */
function added(which, sources) {
  const all = sources.map((name) => model.histograms[name][which]).filter((h) => sum(h.kept) + sum(h.dropped) > 0);
  if (!all.length) return null;
  if (all.every((h) => h.from === all[0].from && h.step === all[0].step && h.kept.length === all[0].kept.length)) {
    const bins = (side) => all[0][side].map((_, i) => sum(all.map((h) => h[side][i])));
    return { from: all[0].from, step: all[0].step, kept: bins("kept"), dropped: bins("dropped"), top: sum(all.map((h) => h.top)) };
  }
  // Steps are powers of two, so that coarse bins hold whole fine ones, but for their offsets.
  const step = Math.max(...all.map((h) => h.step));
  const from = Math.floor(Math.min(...all.map((h) => h.from)) / step) * step;
  const to = Math.max(...all.map((h) => h.from + h.step * h.kept.length));
  const out = { from, step, kept: [], dropped: [], top: 0 };
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

/** The histogram without empty bins at either end. */
function trimmed(h) {
  const used = h.kept.map((n, i) => n + h.dropped[i] > 0), first = used.indexOf(true), last = used.lastIndexOf(true) + 1;
  if (first < 0) return h;
  return { from: h.from + h.step * first, step: h.step, kept: h.kept.slice(first, last), dropped: h.dropped.slice(first, last) };
}

/** Marks and numbers below an axis: `marks` are values and their texts, `across` says where a value is. */
function axis(svg, marks, across, from, to, floor) {
  svg.append(draw("line", { x1: from, x2: to, y1: floor, y2: floor, class: "axis" }));
  let end = -Infinity;
  for (const [value, text] of marks) {
    const x = across(value), half = 3.6 * text.length, left = Math.min(Math.max(x - half, from - 4), to + 4 - 2 * half);
    svg.append(draw("line", { x1: x, x2: x, y1: floor, y2: floor + 4, class: "axis" }));
    if (left < end + 6) continue;
    end = left + 2 * half;
    svg.append(draw("text", { x: left + half, y: floor + 16, "text-anchor": "middle", class: "tick" }, text));
  }
}

/** Bars of kept and dropped samples, stacked, with the cut; `marks` are those of the axis. */
function histogram(title, h, options) {
  const { cut, note = "", names = ["kept", "dropped"] } = options || {};
  const width = 380, height = 150, left = 6, bottom = 20, top = 14, bins = h.kept.length, to = h.from + h.step * bins;
  const marks = (options && options.marks) || ticks(h.from, to, 6).map((x) => [x, short(x)]);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  const most = Math.max(1, ...h.kept.map((n, i) => n + h.dropped[i]));
  const across = (value) => left + ((width - 2 * left) * (value - h.from)) / (to - h.from);
  const up = (n) => ((height - bottom - top) * n) / most, floor = height - bottom;
  for (let i = 0; i < bins; i++) {
    const x = across(h.from + i * h.step), w = Math.max(0.6, (width - 2 * left) / bins - 0.4);
    const kept = up(h.kept[i]), dropped = up(h.dropped[i]);
    if (kept) svg.append(draw("rect", { x, y: floor - kept, width: w, height: kept, class: "fill-kept" }));
    if (dropped) svg.append(draw("rect", { x, y: floor - kept - dropped, width: w, height: dropped, class: "fill-drop" }));
  }
  axis(svg, marks, across, left, width - left, floor);
  if (cut !== undefined && cut !== null) {
    const x = across(cut), far = x > width / 2;
    svg.append(draw("line", { x1: x, x2: x, y1: 0, y2: floor, class: "cut" }), draw("text", { x: x + (far ? -4 : 4), y: 10, "text-anchor": far ? "end" : "start" }, "cut " + short(cut)));
  }
  const n = sum(h.kept) + sum(h.dropped);
  return make("figure", {}, make("figcaption", {}, make("strong", {}, title), ` n = ${thousands(n)}. ${note}`), svg,
    make("div", { class: "legend" }, sum(h.kept) || !sum(h.dropped) ? make("span", { class: "is-kept" }, `${names[0]} ${thousands(sum(h.kept))}`) : null,
      sum(h.dropped) ? make("span", { class: "is-drop" }, `${names[1]} ${thousands(sum(h.dropped))}`) : null));
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
    if (chars) {
      const h = trimmed(chars), marks = logTicks(Math.pow(2, h.from / 4), Math.pow(2, (h.from + h.step * h.kept.length) / 4)).map((x) => [4 * Math.log2(x), thousands(x)]);
      charts.push(histogram("caption length in characters", h, { marks, note: "Logarithmic." }));
    }
    if (pi) charts.push(histogram("pi of kept samples", pi, { note: "pi is the chance with which such a sample is kept." }));
    const drawn = model.browse.map((i) => samples[i]).filter((s) => s.size && (!select.value || s.source === select.value));
    const kept = drawn.map((s) => s.outcome === "kept" || s.outcome === "usable");
    const note = `Of the ${thousands(drawn.length)} drawn at random. Logarithmic.`;
    if (drawn.length) {
      const longer = drawn.map((s) => Math.log2(Math.max(...s.size))), aspect = drawn.map((s) => Math.log2(s.size[0] / s.size[1]));
      const low = Math.floor(Math.min(...longer)), high = Math.ceil(Math.max(...longer) + 0.01);
      const pixels = logTicks(Math.pow(2, low), Math.pow(2, high)).map((x) => [Math.log2(x), thousands(x)]);
      charts.push(histogram("longer side in pixels", binned(longer, kept, low, high, 24), { marks: pixels, note }));
      const far = Math.max(1, ...aspect.map(Math.abs)) + 0.01;
      const ratios = [-3, -2, -1, 0, 1, 2, 3].filter((x) => Math.abs(x) <= far).map((x) => [x, x < 0 ? "1:" + Math.pow(2, -x) : Math.pow(2, x) + ":1"]);
      charts.push(histogram("width to height", binned(aspect, kept, -far, far, 25), { marks: ratios, note }));
    }
    out.replaceChildren(...charts);
  };
  select.addEventListener("change", show);
  show();
}

/** What passes a gate of the whole corpus at every cut, and what a keep_ratio keeps of it. */
function curve() {
  const { gate, funnel, head } = model, h = added(gate.by === "alignment" ? "alignment" : "score", Object.keys(model.histograms)), out = byId("curve");
  if (!h) { byId("curve-title").hidden = true; return; }
  const bins = h.kept.length, to = h.from + h.step * bins, usable = funnel.usable;
  // One stop for each bin, and one at the cut in force, with what passes it.
  const stops = Array.from({ length: bins + 1 }, (_, i) => ({ at: h.from + h.step * i, passing: i === bins ? h.top : 0 }));
  for (let i = bins - 1; i >= 0; i--) stops[i].passing = (i + 1 < bins ? stops[i + 1].passing : 0) + h.kept[i] + h.dropped[i];
  const path = stops.slice(), near = (a, b) => Math.abs(a - b) < 1e-6 * Math.max(1e-3, h.step * bins);
  const has = gate.is_on && gate.least !== null, exact = { at: gate.least, passing: gate.passing, own: true };
  if (has) {
    const same = stops.findIndex((stop) => near(stop.at, gate.least));
    if (same >= 0) stops[same] = exact; else stops.splice(stops.filter((stop) => stop.at < gate.least).length, 0, exact);
  }
  const asked = head.keep_ratio === null ? 1 : head.keep_ratio;
  const ratios = [...new Set([...Array.from({ length: 100 }, (_, i) => (i + 1) / 100), asked])].sort((a, b) => a - b);
  const initial = has ? stops.indexOf(exact) : 0;
  const cutSlider = make("input", { type: "range", min: 0, max: stops.length - 1, value: initial, id: "curve-gate" });
  const ratioSlider = make("input", { type: "range", min: 0, max: ratios.length - 1, value: ratios.indexOf(asked), id: "curve-ratio" });
  const reset = make("button", { type: "button", id: "curve-reset", onclick: () => { cutSlider.value = initial; ratioSlider.value = ratios.indexOf(asked); show(); } }, head.keep_ratio === null ? "Reset" : "Back to what was decided");
  const said = make("p", { id: "curve-said", role: "status" }), holder = make("div", { class: "fitted" });
  let place = () => {};
  const show = () => {
    const stop = stops[Number(cutSlider.value)], keep = ratios[Number(ratioSlider.value)];
    const wanted = Math.round(keep * usable), decided = Number(cutSlider.value) === initial && keep === asked && head.keep_ratio !== null;
    const ratio = Number(keep.toPrecision(6)), cut = stop.own ? short(stop.at) : String(Number(stop.at.toPrecision(6)));
    // A gate by alignment lets pass the share above its cut.
    const share = Number((1 - stop.at).toPrecision(6)), same = gate.by === "alignment" && share > 0 ? ` (= gate top(${share}))` : "";
    const [what, passing] = decided && gate.is_by_cluster ? ["The gate in force has a cut of its own for each cluster", gate.passing] : [`${gate.by} of ${cut} or more${same}`, stop.passing];
    // Near-duplicates are known at the cut that was decided; elsewhere there may be others.
    const known = Boolean(stop.own) && !head.refills, copies = known ? funnel.dedup : 0, most = Math.min(wanted, passing - copies);
    const out = copies ? `, without ${thousands(copies)} near-duplicates` : "";
    place(stop.at, wanted);
    cutSlider.setAttribute("aria-valuetext", cut); ratioSlider.setAttribute("aria-valuetext", ratio);
    said.textContent = `${what}: ${thousands(passing)} of ${thousands(usable)} usable samples pass (${percent(passing, usable)})` +
      (stop.own && model.captions.rescue ? ", those among them that their generated caption brings back. " : ". ") +
      (decided ? `keep_ratio ${ratio} keeps ${thousands(funnel.kept)}, ${percent(funnel.kept, usable)} of the usable samples: this is what was decided.`
        // As far above what passes as the loader lets it be.
        : wanted > passing * 1.01 ? `keep_ratio ${ratio} asks for ${thousands(wanted)}: at most ${thousands(most)} can be kept${out}; the loader refuses this policy: lower keep_ratio or widen the gate.`
          : `keep_ratio ${ratio} keeps at most ${thousands(most)}, ${percent(most, usable)} of the usable samples${out}${known || !model.near.is_on ? "" : ", and fewer where near-duplicates are dropped"}.`);
    reset.disabled = Number(cutSlider.value) === initial && keep === asked;
  };
  cutSlider.addEventListener("input", show); ratioSlider.addEventListener("input", show);
  out.append(make("p", { class: "note" }, `Usable samples with ${gate.by} of at least …${gate.by === "alignment" ? " Alignment is a percentile: 0.7 means better aligned, image with caption, than 70% of the corpus." : ""}${has ? " The faint lines are what was decided." : ""}`), holder, make("div", { class: "sliders" }, make("label", {}, "cut", cutSlider), make("label", {}, "keep_ratio", ratioSlider), reset), said);
  fitted(holder, (width) => {
    const height = 180, left = 44, right = width - 10, floor = height - 22, top = 8;
    const across = (value) => left + ((right - left) * (value - h.from)) / (to - h.from), up = (n) => floor - ((floor - top) * n) / Math.max(1, usable);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "How much passes the gate at each cut" });
    for (const part of [0, 25, 50, 75, 100]) svg.append(draw("line", { x1: left, x2: right, y1: up((part / 100) * usable), y2: up((part / 100) * usable), class: "axis" }),
      draw("text", { x: left - 6, y: up((part / 100) * usable) + 4, "text-anchor": "end", class: "tick" }, part + "%"));
    axis(svg, ticks(h.from, to, width < 500 ? 5 : 10).map((x) => [x, short(x)]), across, left, right, floor);
    svg.append(draw("path", { class: "curve", d: "M" + path.map((stop) => `${across(stop.at).toFixed(1)} ${up(stop.passing).toFixed(1)}`).join("L") }));
    if (has) svg.append(draw("line", { x1: across(gate.least), x2: across(gate.least), y1: 0, y2: floor, class: "decided" }));
    if (head.keep_ratio !== null) svg.append(draw("line", { x1: left, x2: right, y1: up(asked * usable), y2: up(asked * usable), class: "decided" }));
    const line = draw("line", { y1: 0, y2: floor, class: "cut" }), ceiling = draw("line", { x1: left, x2: right, class: "cut" });
    svg.append(line, ceiling);
    place = (at, wanted) => {
      for (const side of ["x1", "x2"]) line.setAttribute(side, across(at));
      for (const side of ["y1", "y2"]) ceiling.setAttribute(side, up(wanted));
    };
    show();
    return svg;
  });
  if (gate.is_by_cluster) out.append(make("p", { class: "note" }, "The curve is of one cut for the whole corpus; the gate in force has one for each cluster."));
}

/** The stored AUC on its scale, with its error. */
function auc() {
  const out = byId("auc"), { auc: value, auc_error: error, pairs } = model.gate;
  if (!out) return;
  const width = 340, from = 20, to = width - 20, x = (a) => from + ((to - from) * (Math.min(1, Math.max(0.4, a)) - 0.4)) / 0.6;
  const kind = model.gate.warning ? "fill-failed" : "fill-kept", low = x(value - 2 * error), high = x(value + 2 * error);
  const svg = draw("svg", { viewBox: `0 0 ${width} 54`, role: "img", "aria-label": `AUC ${value.toFixed(3)}, with an error of ${error.toFixed(3)}` });
  axis(svg, [[0.5, "0.5 guessing"], [0.75, "0.75"], [1, "1 perfect"]], x, from, to, 30);
  svg.append(draw("rect", { x: low, width: Math.max(2, high - low), y: 12, height: 8, class: kind, opacity: 0.5 }), draw("circle", { cx: x(value), cy: 16, r: 6, class: kind }));
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

/** What becomes of a cluster's samples, from the bottom of its bar on: classes, and names in the funnel. */
const parts = [["kept", "kept"], ["quota", "quota"], ["near-duplicate", "dedup"], ["gate", "gate"], ["thin", "thin"]];

/** Sizes of the clusters in the order of `rows`, before and after. */
function sizes(rows) {
  const most = Math.max(1, ...rows.map((row) => row.funnel.usable));
  return (width) => {
    const height = 160, left = 44, right = width - 6, floor = height - 20, top = 8, step = (right - left) / rows.length, up = (n) => floor - ((floor - top) * n) / most;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Sizes of the clusters, before and after" });
    for (const n of ticks(0, most, 4)) svg.append(draw("line", { x1: left, x2: right, y1: up(n), y2: up(n), class: "axis" }), draw("text", { x: left - 6, y: up(n) + 4, "text-anchor": "end", class: "tick" }, n >= 1e6 ? short(n / 1e6) + " M" : n >= 1e4 ? short(n / 1e3) + " k" : thousands(n)));
    rows.forEach((row, i) => {
      let below = 0;
      for (const [kind, part] of parts) {
        const n = row.funnel[part], x = (left + i * step).toFixed(2), width = Math.max(0.5, step - 0.5).toFixed(2);
        if (n) svg.append(draw("rect", { x, y: up(below + n).toFixed(2), width, height: (up(below) - up(below + n)).toFixed(2), class: "fill-" + kind }));
        below += n;
      }
      if (step >= 7 * String(row.cluster).length + 5) svg.append(draw("text", { x: left + (i + 0.5) * step, y: floor + 14, "text-anchor": "middle", class: "name" }, row.cluster));
    });
    return svg;
  };
}
