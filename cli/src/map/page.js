"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const WIDTH = 32, HEIGHT = 16, PAGE = 4096, AWAY = 0;
const $ = id => document.getElementById(id);

// A column of numbers: runs as pairs of varints (how often, which), in base64.
function column(text) {
  const bytes = atob(text), out = [];
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes.charCodeAt(at++);
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  };
  while (at < bytes.length) {
    let count = varint();
    const value = varint();
    while (count--) out.push(value);
  }
  return out;
}

function bytes(n) {
  if (n < 1024) return n + " B";
  let unit = -1;
  do { n /= 1024; unit++; } while (n >= 1023.5 && unit < 4);
  return n.toFixed(n < 99.95 ? 1 : 0) + " " + ["KiB", "MiB", "GiB", "TiB", "PiB"][unit];
}
const count = n => n.toLocaleString("en").replaceAll(",", "\u202f");
const some = (n, word) => count(n) + " " + word + (n === 1 ? "" : "s");
const here = parts => parts.taken + parts.pinned + parts.idle + parts.empty;

// Tiles: each address at which a snapshot has an arena, or each 32 pools of it.
const places = new Map();
for (const snapshot of data.snapshots) {
  snapshot.sizes = column(snapshot.sizes);
  snapshot.pool_taken = column(snapshot.pool_taken);
  snapshot.pool_blocks = column(snapshot.pool_blocks);
  snapshot.taken = column(snapshot.taken);
  snapshot.blocks = column(snapshot.blocks);
  snapshot.tiles = new Map();
  let pool = 0;
  for (const [address, pools] of snapshot.arenas)
    for (let first = 0; first < pools; first += WIDTH) {
      const own = Math.min(WIDTH, pools - first);
      const at = "0x" + (BigInt(address) + BigInt(first) * 65536n).toString(16);
      snapshot.tiles.set(at, { first: pool, pools: own });
      places.set(at, BigInt(at));
      pool += own;
    }
}
const tiles = [...places.keys()].sort((a, b) => (places.get(a) < places.get(b) ? -1 : 1));

const shades = new Map(Object.entries(data.shades).map(([size, list]) => [+size, list]));
function colour(snapshot, pool, page) {
  const taken = snapshot.taken[pool * HEIGHT + page], size = snapshot.sizes[pool];
  if (taken === AWAY) return data.away;
  if (size === 0) return data.empty;
  const list = shades.get(size);
  return list[Math.ceil((taken - 1) / PAGE * (list.length - 1))];
}

let current = 0, together = false, marked = null, panels = [];

// The size of a cell, and the number of tiles in a row, for the available room.
function plan(width, height) {
  for (let cell = 8; cell > 1; cell--) {
    const gap = cell > 3 ? 8 : 5;
    const across = Math.min(tiles.length, Math.floor((width + gap) / (WIDTH * cell + gap)));
    if (across > 0 && Math.ceil(tiles.length / across) * (HEIGHT * cell + gap) <= height)
      return { cell, gap, across };
  }
  const across = Math.max(1, Math.min(tiles.length, Math.floor((width + 4) / (WIDTH * 2 + 4))));
  return { cell: 2, gap: 4, across };
}

function draw(panel) {
  const { canvas, snapshot, cell, gap, across } = panel;
  const [w, h] = [WIDTH * cell, HEIGHT * cell];
  const lines = Math.ceil(tiles.length / across);
  const [width, height] = [across * (w + gap) - gap, Math.max(lines * (h + gap) - gap, 1)];
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = width + "px";
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const inner = cell > 4 ? cell - 1 : cell;
  tiles.forEach((address, n) => {
    const x = n % across * (w + gap), y = Math.floor(n / across) * (h + gap);
    const tile = snapshot.tiles.get(address);
    if (!tile) {
      pen.strokeStyle = "#242933";
      pen.strokeRect(x + .5, y + .5, w - 1, h - 1);
      return;
    }
    for (let column = 0; column < tile.pools; column++) {
      const pool = tile.first + column;
      pen.globalAlpha = marked === null || snapshot.sizes[pool] === marked ? 1 : .13;
      for (let page = 0; page < HEIGHT; page++) {
        pen.fillStyle = colour(snapshot, pool, page);
        pen.fillRect(x + column * cell, y + page * cell, inner, cell > 6 ? inner : cell);
      }
    }
    pen.globalAlpha = 1;
  });
}

function tell(panel, event) {
  const { canvas, snapshot, cell, gap, across } = panel, box = canvas.getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  const [w, h] = [WIDTH * cell + gap, HEIGHT * cell + gap];
  const column = Math.floor(x % w / cell), page = Math.floor(y % h / cell);
  const place = tiles[Math.floor(y / h) * across + Math.floor(x / w)];
  const tile = place && snapshot.tiles.get(place);
  const tip = $("tip");
  tip.hidden = !place || x < 0 || column >= WIDTH || page >= HEIGHT || x > across * w;
  if (tip.hidden) return;
  tip.textContent = "";
  const say = (text, tag = "div") => {
    const line = document.createElement(tag);
    line.textContent = text;
    tip.append(line);
  };
  if (!tile || column >= tile.pools) {
    say("arena at " + place, "code");
    say("not mapped at this time");
  } else {
    const pool = tile.first + column, at = pool * HEIGHT + page, size = snapshot.sizes[pool];
    const taken = snapshot.taken[at] - 1, blocks = snapshot.blocks[at];
    const address = places.get(place) + BigInt(column * 65536 + page * PAGE);
    say("0x" + address.toString(16), "code");
    if (size === 0) say("empty pool", "b");
    else say("blocks of " + bytes(size), "b");
    if (taken < 0) say("not in memory: given back, or never used");
    else if (size === 0) say("in memory, waiting for its next use");
    else if (blocks === 0) say("free: returned to the kernel if it stays so");
    else {
      say(`${some(blocks, "block")} taken, ${count(taken)} of ${count(PAGE)} bytes`);
      say(`${count(PAGE - taken)} bytes pinned by them`);
    }
    if (size !== 0)
      say(`its pool: ${count(snapshot.pool_taken[pool])} of ${count(snapshot.pool_blocks[pool])} blocks taken`);
  }
  const room = document.documentElement, left = event.clientX + 16, top = event.clientY + 16;
  tip.style.left = Math.min(left, room.clientWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = (top + tip.offsetHeight > room.clientHeight ? event.clientY - tip.offsetHeight - 12 : top) + "px";
}

function show() {
  const shown = together ? data.snapshots : [data.snapshots[current]];
  const box = $("panels"), side = Math.min(shown.length, 4, Math.max(1, Math.floor(box.clientWidth / 230)));
  box.style.gridTemplateColumns = `repeat(${side}, minmax(0, 1fr))`;
  box.textContent = "";
  const room = (box.clientWidth - 12 * (side - 1)) / side - 26;
  const fit = plan(room, Math.max(320, window.innerHeight * .62));
  panels = shown.map(snapshot => {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption");
    for (const [tag, text] of [["b", snapshot.name], ["span", bytes(here(snapshot.parts)) + " in memory"], ["em", snapshot.sentence]]) {
      const part = document.createElement(tag);
      part.textContent = text;
      caption.append(part);
    }
    figure.append(caption, canvas);
    box.append(figure);
    const panel = { canvas, snapshot, ...fit };
    canvas.addEventListener("pointermove", event => tell(panel, event));
    canvas.addEventListener("pointerdown", event => tell(panel, event));
    canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });
    draw(panel);
    return panel;
  });
  $("single").setAttribute("aria-pressed", !together);
  $("together").setAttribute("aria-pressed", together);
  $("slider").value = current;
  [...$("bars").children].forEach((bar, n) => bar.setAttribute("aria-current", n === current));
  legend();
}

function mark(size) {
  if (size === marked) return;
  marked = size;
  panels.forEach(draw);
}

function legend() {
  const snapshot = data.snapshots[current], table = document.querySelector("#legend table");
  $("of").textContent = data.snapshots.length > 1 ? "in " + snapshot.name : "";
  table.textContent = "";
  const head = table.createTHead().insertRow();
  for (const text of ["", "size", "blocks", "bytes", "in memory", "taken", "nearly empty", "pinned"]) {
    const cell = document.createElement("th");
    cell.textContent = text;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of snapshot.classes) {
    const line = body.insertRow(), swatch = document.createElement("i");
    const list = shades.get(row.size);
    swatch.style.background = `linear-gradient(90deg, ${list[1]}, ${list[list.length - 1]})`;
    line.insertCell().append(swatch);
    const memory = row.here * PAGE;
    for (const text of [bytes(row.size), count(row.blocks), bytes(row.blocks * row.size), bytes(memory),
      memory ? Math.round(row.taken * 100 / memory) + " %" : "-", some(row.nearly, "page"), bytes(row.pinned)])
      line.insertCell().textContent = text;
    line.addEventListener("pointerenter", () => mark(row.size));
  }
  body.addEventListener("pointerleave", () => mark(null));
}

function bars() {
  const box = $("bars"), largest = Math.max(1, ...data.snapshots.map(s => here(s.parts)));
  const many = data.snapshots.length > 12;
  box.classList.toggle("many", many);
  data.snapshots.forEach((snapshot, n) => {
    const line = document.createElement("div"), name = document.createElement("b");
    const bar = document.createElement("span"), track = document.createElement("span");
    const sum = document.createElement("output");
    name.textContent = line.title = snapshot.name;
    sum.textContent = bytes(here(snapshot.parts));
    bar.className = "bar";
    bar.style[many ? "height" : "width"] = here(snapshot.parts) * 100 / largest + "%";
    for (const part of ["taken", "pinned", "idle", "empty"]) {
      const piece = document.createElement("i");
      piece.className = part;
      piece.style.flex = snapshot.parts[part] + " 0 0";
      bar.append(piece);
    }
    if (many) line.append(bar);
    else {
      track.append(bar);
      line.append(name, track, sum);
    }
    line.addEventListener("click", () => { current = n; show(); });
    box.append(line);
  });
}

const last = data.snapshots[data.snapshots.length - 1];
$("whose").textContent = last.whose;
document.title = "Heap map: " + last.whose;
$("slider").max = data.snapshots.length - 1;
$("slider").hidden = document.querySelector("nav").hidden = data.snapshots.length < 2;
$("slider").addEventListener("input", event => { current = +event.target.value; show(); });
$("single").addEventListener("click", () => { together = false; show(); });
$("together").addEventListener("click", () => { together = true; show(); });
const key = (paint, text, wide) => `<span><i ${wide ? 'class="wide"' : ""} style="background:${paint}"></i>${text}</span>`;
const scale = [16, 32, 64, 128, 256, 512, 2048, 8192, 32768].map(size => data.scale[size]);
$("cells").innerHTML = key(`linear-gradient(90deg, ${scale})`, "small to large blocks", true)
  + key(`linear-gradient(90deg, ${data.scale.shades})`, "nearly empty to full page", true)
  + key(data.empty, "empty pool") + key(data.away, "not in memory");
together = location.hash === "#all";
current = data.snapshots.length - 1;
bars();
show();
window.addEventListener("resize", show);
