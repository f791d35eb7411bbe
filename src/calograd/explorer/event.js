// One shower in its cells: in space on a 2-D canvas (no WebGL), from the side or along the beam.
// Windows follow the particle layer by layer in steps of whole cells, so all cells lie on one grid, which spans the
// windows of all layers. Cells of a grid never overlap, so drawing them from the farthest to the nearest is exact; the
// nearest is decided per axis, by the side on which the eye is.

const PALETTE = ["#edf8d9", "#c7e9b4", "#7fcdbb", "#41b6c4", "#1d91c0", "#225ea8", "#253494", "#081d58"];
const INK = "#1b1b1b", FAINT = "#9aa0a6", BEAM = "#d1380e";
const FONT = "12px Helvetica, Arial, 'Liberation Sans', sans-serif";
const HOME = { turn: 0.5, tilt: 0.36, zoom: 1 };

const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
function colour(share) {
  const at = Math.min(Math.max(share, 0), 1) * (PALETTE.length - 1), k = Math.min(Math.floor(at), PALETTE.length - 2);
  const a = rgb(PALETTE[k]), b = rgb(PALETTE[k + 1]);
  return a.map((v, i) => Math.round(v + (b[i] - v) * (at - k)));
}
const css = (c, shade, alpha) => `rgba(${c.map((v) => Math.round(v * shade)).join(",")},${alpha})`;

function niceStep(span, most) {
  const raw = span / most, power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((f) => f * power).find((step) => step >= raw);
}
function ticks(low, high, most) {
  const step = niceStep(high - low, most), found = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9 * step; v += step) found.push(+v.toPrecision(6));
  return found;
}
const inWords = (gev) => (gev >= 0.9995 ? `${+gev.toPrecision(3)} GeV` : `${+(1e3 * gev).toPrecision(3)} MeV`);

// Edges in cm of the grid along x, y and z, and the first cell of every layer's window on it.
function geometry(scene) {
  const n = scene.cells.length, z = [0], ends = [0, 1].map((a) => scene.offsets.map((o) => o[a]));
  const low = ends.map((o) => Math.min(...o));
  const [x, y] = ends.map((o, a) => [...Array(Math.max(...o) - low[a] + n + 1).keys()].map((i) => (i + low[a] - n / 2) * scene.dx));
  for (const d of scene.dz) z.push(z[z.length - 1] + d);
  return { n, x, y, z, first: scene.offsets.map((o) => [o[0] - low[0], o[1] - low[1]]) };
}
const lineAt = (scene, at) => {
  const { entry, slopes } = scene.line || { entry: [0, 0], slopes: [0, 0] };
  return [entry[0] + at * slopes[0], entry[1] + at * slopes[1], at];
};
function scaleOf(top, decades) {
  const high = Math.log10(Math.max(top, 1e-6)), low = high - decades;
  return { low, high, share: (e) => (e > 0 ? (Math.log10(e) - low) / (high - low) : -1) };
}

function legend(c, w, h, scale) {
  const x = w - 66, y = 44, height = h - 96;
  for (let k = 0; k < height; k++) {
    c.fillStyle = css(colour(1 - k / height), 1, 1);
    c.fillRect(x, y + k, 12, 1.5);
  }
  c.strokeStyle = INK; c.lineWidth = 0.8; c.strokeRect(x, y, 12, height);
  c.fillStyle = INK; c.textAlign = "left"; c.textBaseline = "middle";
  for (let p = Math.ceil(scale.low); p <= scale.high; p++) {
    const at = y + height * (1 - (p - scale.low) / (scale.high - scale.low));
    c.beginPath(); c.moveTo(x + 8, at); c.lineTo(x + 12, at); c.stroke();
    c.fillText(inWords(10 ** p), x + 17, at);
  }
  c.textAlign = "right"; c.fillText("energy of a cell", w - 8, y - 16);
}

function camera(scene, view, w, h) {
  const { n, x, y, z, first } = geometry(scene), depth = z[z.length - 1];
  const [middle, half] = [1, -1].map((s) => [x, y].map((e) => (e[e.length - 1] + s * e[0]) / 2));
  const one = x.length === n + 1 && y.length === n + 1; // window; else room is left for axes beside the windows
  const radius = Math.hypot(...half, depth / 2), scale = ((one ? 0.47 : 0.44) * Math.min((w - 70) / 1.12, h * 1.25) * view.zoom) / radius;
  const [ct, st, ce, se] = [Math.cos(view.turn), Math.sin(view.turn), Math.cos(view.tilt), Math.sin(view.tilt)];
  const away = 5 * radius;
  // World (x, y, z): right = z turned, up = y, depth into the screen.
  const turned = (p) => {
    const a = p[2] - depth / 2, b = p[0] - middle[0], v = p[1] - middle[1], right = a * ct - b * st, into = a * st + b * ct;
    return [right, v * ce + into * se, into * ce - v * se];
  };
  const project = (p) => {
    const [right, up, into] = turned(p), near = away / (away + into);
    return [(w - 60) / 2 + scale * right * near, h / 2 + 4 - scale * up * near];
  };
  // The eye in the world: the point that is turned into (0, 0, -away).
  const into = -away * ce, up = away * se;
  const eye = [into * ct + middle[0], up + middle[1], into * st + depth / 2];
  return { project, eye, half, depth, n, x, y, z, first };
}

// Order of n slabs between edges: the farthest from the eye first.
function farFirst(edges, eye) {
  const order = [...Array(edges.length - 1).keys()];
  const gap = (k) => Math.max(edges[k] - eye, eye - edges[k + 1], 0);
  return order.sort((a, b) => gap(b) - gap(a));
}

const FACES = [ // axis, side, corners as bits of (x, y, z), shade
  [0, 0, [0, 2, 6, 4], 0.86], [0, 1, [1, 3, 7, 5], 0.86], [1, 0, [0, 1, 5, 4], 0.72], [1, 1, [2, 3, 7, 6], 1.0],
  [2, 0, [0, 1, 3, 2], 0.93], [2, 1, [4, 5, 7, 6], 0.93],
];

function polygon(c, points) {
  c.beginPath();
  points.forEach((p, i) => (i ? c.lineTo(p[0], p[1]) : c.moveTo(p[0], p[1])));
  c.closePath();
}

// Boxes of consecutive layers with one window: edges in x, y and z, low and high, and the layers' faces in between.
function boxes({ n, x, y, z, first }) {
  const found = [];
  first.forEach(([i, j], k) => {
    const last = found[found.length - 1];
    if (last && last.at[0] === i && last.at[1] === j) { last.faces.push(z[k]); last.hi[2] = z[k + 1]; }
    else found.push({ at: [i, j], lo: [x[i], y[j], z[k]], hi: [x[i + n], y[j + n], z[k + 1]], faces: [] });
  });
  return found;
}

function drawSpace(c, scene, view, w, h) {
  const cam = camera(scene, view, w, h), scale = scaleOf(scene.top, scene.decades), { project, eye, n, x, y, z, first } = cam;
  const corner = (lo, hi, bits) => [0, 1, 2].map((a) => (bits & (1 << a) ? hi[a] : lo[a]));
  const lo = [x[0], y[0], 0], hi = [x[x.length - 1], y[y.length - 1], cam.depth], windows = boxes(cam);
  const seen = (a, side, low, high) => (side ? eye[a] > high[a] : eye[a] < low[a]);
  const frame = (front) => {
    for (const box of windows) for (const [a, side, bits] of FACES) {
      if (seen(a, side, box.lo, box.hi) !== front) continue;
      polygon(c, bits.map((b) => project(corner(box.lo, box.hi, b))));
      if (!front) { c.fillStyle = "rgba(120,130,140,0.05)"; c.fill(); }
      c.strokeStyle = front ? "rgba(60,64,70,0.35)" : "rgba(60,64,70,0.55)"; c.lineWidth = front ? 0.7 : 0.9; c.stroke();
    }
  };
  frame(false);
  // Layers on the floor and on the back.
  c.strokeStyle = "rgba(60,64,70,0.18)"; c.lineWidth = 0.7;
  for (const box of windows) for (const at of box.faces) {
    const [side, other] = eye[0] > (box.lo[0] + box.hi[0]) / 2 ? [box.lo[0], box.hi[0]] : [box.hi[0], box.lo[0]];
    const path = [[other, box.lo[1], at], [side, box.lo[1], at], [side, box.hi[1], at]];
    c.beginPath(); path.map(project).forEach((p, i) => (i ? c.lineTo(...p) : c.moveTo(...p))); c.stroke();
  }
  // The beam, up to the front face.
  const from = project(lineAt(scene, -0.28 * cam.depth)), to = project(lineAt(scene, 0));
  const beamBehind = eye[2] > 0;
  const beam = () => {
    c.strokeStyle = BEAM; c.fillStyle = BEAM; c.lineWidth = 1.6;
    c.beginPath(); c.moveTo(...from); c.lineTo(...to); c.stroke();
    const angle = Math.atan2(to[1] - from[1], to[0] - from[0]);
    polygon(c, [to, [to[0] - 9 * Math.cos(angle - 0.35), to[1] - 9 * Math.sin(angle - 0.35)],
      [to[0] - 9 * Math.cos(angle + 0.35), to[1] - 9 * Math.sin(angle + 0.35)]]); c.fill();
    c.textAlign = "left"; c.textBaseline = "top"; c.fillText(scene.beam, Math.max(from[0] - 6, 6), from[1] + 7);
  };
  if (beamBehind) beam();
  let drawn = 0;
  const order = [farFirst(x, eye[0]), farFirst(y, eye[1]), farFirst(z, eye[2])];
  const gap = 0.04;
  for (const k of order[2]) for (const i of order[0]) for (const j of order[1]) {
    const a = i - first[k][0], b = j - first[k][1];
    if (a < 0 || b < 0 || a >= n || b >= n) continue;
    const share = scale.share(scene.cells[a][b][k]);
    if (share < 0) continue;
    const low = [x[i], y[j], z[k]], high = [x[i + 1], y[j + 1], z[k + 1]];
    const inner = (q, v, s) => v + s * gap * (high[q] - low[q]);
    const l = low.map((v, q) => inner(q, v, 1)), m = high.map((v, q) => inner(q, v, -1));
    const tint = colour(share), alpha = 0.05 + 0.8 * share ** 2;
    for (const [q, side, bits, shade] of FACES) {
      if (!seen(q, side, l, m)) continue;
      polygon(c, bits.map((b) => project(corner(l, m, b))));
      c.fillStyle = css(tint, shade, alpha); c.fill();
      c.strokeStyle = css(tint, 0.6, Math.min(1, 1.3 * alpha)); c.lineWidth = 0.6; c.stroke();
    }
    drawn++;
  }
  frame(true);
  if (!beamBehind) beam();
  if (scene.line) through(c, project(lineAt(scene, 0)), project(lineAt(scene, cam.depth)));
  // Axes along the lower edges that face the eye.
  const sx = eye[0] > (lo[0] + hi[0]) / 2 ? hi[0] : lo[0], ez = eye[2] > cam.depth / 2 ? cam.depth : 0;
  c.fillStyle = INK; c.strokeStyle = INK; c.lineWidth = 1; c.textBaseline = "middle";
  const axis = (point, outward, low, high, label, most) => {
    for (const t of ticks(low, high, most)) {
      const a = project(point(t)), b = project(outward(t));
      const l = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1, ux = (b[0] - a[0]) / l, uy = (b[1] - a[1]) / l;
      c.beginPath(); c.moveTo(...a); c.lineTo(a[0] + 5 * ux, a[1] + 5 * uy); c.stroke();
      c.textAlign = "center"; c.fillText(`${t}`, a[0] + 15 * ux, a[1] + 13 * uy);
    }
    const mid = (low + high) / 2, a = project(point(mid)), b = project(outward(mid));
    const l = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1;
    c.textAlign = "center"; c.fillText(label, a[0] + (38 * (b[0] - a[0])) / l, a[1] + (32 * (b[1] - a[1])) / l);
  };
  const out = 0.4 * Math.min(...cam.half), zo = ez ? cam.depth + out : -out, xo = sx + (sx === hi[0] ? out : -out);
  if (windows.length > 1) { // the edges that carry the axes
    c.strokeStyle = "rgba(60,64,70,0.35)"; c.lineWidth = 0.7;
    c.beginPath(); c.moveTo(...project([sx, lo[1], cam.depth - ez])); c.lineTo(...project([sx, lo[1], ez]));
    c.lineTo(...project([lo[0] + hi[0] - sx, lo[1], ez])); c.stroke();
    c.strokeStyle = INK; c.lineWidth = 1;
  }
  axis((t) => [sx, lo[1], t], (t) => [xo, lo[1], t], 0, cam.depth, "z [cm]", 6);
  axis((t) => [t, lo[1], ez], (t) => [t, lo[1], zo], lo[0], hi[0], "x [cm]", 4);
  legend(c, w, h, scale);
  return drawn;
}

// The particle's line through the calorimeter, between two points of the canvas.
function through(c, from, to) {
  c.save();
  c.strokeStyle = BEAM; c.fillStyle = BEAM; c.lineWidth = 1.3; c.setLineDash([5, 4]);
  c.beginPath(); c.moveTo(...from); c.lineTo(...to); c.stroke();
  c.beginPath(); c.arc(...from, 2.5, 0, 2 * Math.PI); c.fill();
  c.restore();
}

// Sums over one axis, with axes: "side" is x against z, "front" is y against x.
function drawFlat(c, scene, kind, w, h) {
  const { n, x, y, z, first } = geometry(scene), sums = new Map();
  const side = kind === "side", across = side ? z : x, up = side ? x : y;
  const columns = across.length - 1, rows = up.length - 1;
  first.forEach(([i, j], k) => {
    for (let a = 0; a < n; a++) for (let b = 0; b < n; b++) {
      const at = side ? k * rows + i + a : (i + a) * rows + j + b;
      sums.set(at, (sums.get(at) || 0) + scene.cells[a][b][k]);
    }
  });
  const scale = scaleOf(scene.top, scene.decades), box = [58, 52, w - 150, h - 106];
  const wide = across[columns] - across[0], high = up[rows] - up[0];
  if (!side) {
    const [sx, sy] = [wide, high].map((size) => size / Math.max(wide, high)), edge = Math.min(box[2] / sx, box[3] / sy);
    box[0] += (box[2] - edge * sx) / 2; [box[2], box[3]] = [edge * sx, edge * sy];
  }
  const px = (v) => box[0] + ((v - across[0]) / wide) * box[2], py = (v) => box[1] + (1 - (v - up[0]) / high) * box[3];
  let drawn = 0;
  c.strokeStyle = "rgba(60,64,70,0.25)"; c.lineWidth = 0.6;
  const place = (at) => {
    const a = Math.floor(at / rows), b = at % rows;
    return [px(across[a]), py(up[b + 1]), px(across[a + 1]) - px(across[a]), py(up[b]) - py(up[b + 1])];
  };
  for (const [at, sum] of sums) {
    const share = scale.share(sum);
    if (share < 0) continue;
    c.fillStyle = css(colour(share), 1, 1); c.fillRect(...place(at));
    drawn++;
  }
  c.beginPath(); // every edge of a cell once
  for (const at of sums.keys()) {
    const [left, top, width, height] = place(at), right = left + width, bottom = top + height;
    c.moveTo(left, top); c.lineTo(left, bottom); c.lineTo(right, bottom);
    if (!sums.has(at + rows)) { c.moveTo(right, top); c.lineTo(right, bottom); }
    if (at % rows === rows - 1 || !sums.has(at + 1)) { c.moveTo(left, top); c.lineTo(right, top); }
  }
  c.stroke();
  if (scene.line) {
    c.save(); c.beginPath(); c.rect(...box); c.clip();
    const ends = [0, z[z.length - 1]].map((at) => lineAt(scene, at)).map((p) => (side ? [px(p[2]), py(p[0])] : [px(p[0]), py(p[1])]));
    through(c, ...ends);
    c.restore();
  }
  c.strokeStyle = INK; c.lineWidth = 1; c.strokeRect(...box); c.fillStyle = INK;
  c.textAlign = "center"; c.textBaseline = "top";
  for (const t of ticks(across[0], across[columns], 8)) for (const [y, s] of [[box[1] + box[3], -1], [box[1], 1]]) {
    c.beginPath(); c.moveTo(px(t), y); c.lineTo(px(t), y + 5 * s); c.stroke();
    if (s < 0) c.fillText(`${t}`, px(t), y + 6);
  }
  c.textAlign = "right"; c.textBaseline = "middle";
  for (const t of ticks(up[0], up[rows], 6)) for (const [at, s] of [[box[0], 1], [box[0] + box[2], -1]]) {
    c.beginPath(); c.moveTo(at, py(t)); c.lineTo(at + 5 * s, py(t)); c.stroke();
    if (s > 0) c.fillText(`${t}`, at - 6, py(t));
  }
  c.textAlign = "right"; c.fillText(side ? "z [cm]" : "x [cm]", box[0] + box[2], box[1] + box[3] + 30);
  c.save(); c.translate(16, box[1]); c.rotate(-Math.PI / 2); c.fillText(side ? "x [cm]" : "y [cm]", 0, 0); c.restore();
  legend(c, w, h, scale);
  return drawn;
}

export function render({ model }) {
  const canvas = document.createElement("canvas"), view = { ...HOME };
  canvas.className = "event";
  canvas.style.cssText = "width:100%;height:100%;touch-action:none;display:block";
  canvas.setAttribute("role", "img");
  const context = canvas.getContext("2d");
  const draw = () => {
    const scene = model.scene, w = canvas.clientWidth, h = canvas.clientHeight;
    if (!context || !w || !h || !scene.cells) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = w * ratio; canvas.height = h * ratio;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "white"; context.fillRect(0, 0, w, h);
    context.font = FONT;
    const drawn = model.look === "3-D" ? drawSpace(context, scene, view, w, h) : drawFlat(context, scene, model.look, w, h);
    context.fillStyle = INK; context.textAlign = "left"; context.textBaseline = "top";
    context.font = `bold ${FONT}`; context.fillText(scene.title, 10, 8);
    context.font = FONT; context.fillStyle = FAINT; context.fillText(scene.subtitle, 10, 25);
    context.fillText(scene.particle, 10, 40);
    canvas.setAttribute("aria-label", [scene.title, scene.subtitle, scene.particle].filter(Boolean).join(", "));
    canvas.dataset.drawn = drawn; canvas.dataset.line = scene.line ? "drawn" : "none"; canvas.dataset.look = model.look; canvas.dataset.turn = view.turn.toFixed(3);
  };
  let held = null;
  canvas.addEventListener("pointerdown", (e) => { held = [e.clientX, e.clientY]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointermove", (e) => {
    if (!held || model.look !== "3-D") return;
    view.turn += (e.clientX - held[0]) / 160;
    view.tilt = Math.min(Math.max(view.tilt + (e.clientY - held[1]) / 200, -1.5), 1.5);
    held = [e.clientX, e.clientY];
    draw();
  });
  canvas.addEventListener("wheel", (e) => {
    if (model.look !== "3-D") return;
    e.preventDefault(); view.zoom = Math.min(Math.max(view.zoom * Math.exp(-e.deltaY / 900), 0.4), 6); draw();
  }, { passive: false });
  canvas.addEventListener("dblclick", () => { Object.assign(view, HOME); draw(); });
  new ResizeObserver(draw).observe(canvas);
  model.on("scene", draw);
  model.on("look", draw);
  return canvas;
}
