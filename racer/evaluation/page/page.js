"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const INK = "#1c2530", MUTED = "#5d6b7b", RED = "#d0403c", GRID = "#e3e8ee";
const CURVES = ["#2f6fd0", "#d9822b", "#3d9970", "#8e5bb5"];
const state = { group: 0, index: 0, time: 0, playing: true, last: null };

function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

// Boxes of every moment: [number, dx, dy, heading, kind] as int16, relative to the moment's eye.
function unpack(recording) {
  if (recording.ready) return recording;
  if (recording.critic) recording.critic.rows = bytes(recording.critic.probs);
  recording.ready = true;
  if (!data.scene) return recording;
  const numbers = new Int16Array(bytes(recording.boxes).buffer);
  const eyes = new Float32Array(bytes(recording.eyes).buffer);
  const sizes = new Float32Array(bytes(recording.sizes).buffer);
  recording.moments = [];
  let at = 0;
  recording.counts.forEach((count, moment) => {
    const boxes = new Map();
    for (let i = 0; i < count; i++, at += 5) {
      const number = numbers[at];
      boxes.set(number, {
        x: eyes[2 * moment] + numbers[at + 1] * recording.quantum,
        y: eyes[2 * moment + 1] + numbers[at + 2] * recording.quantum,
        heading: numbers[at + 3] / 10000, kind: numbers[at + 4],
        length: sizes[2 * number], width: sizes[2 * number + 1],
      });
    }
    recording.moments.push({ boxes, x: eyes[2 * moment], y: eyes[2 * moment + 1] });
  });
  return recording;
}

const duration = (recording) => recording.steps * recording.seconds;

function between(recording, time) {
  const last = recording.moments.length - 1;
  const place = Math.min(Math.max(time / recording.seconds, 0), last);
  const i = Math.min(Math.floor(place), Math.max(last - 1, 0));
  const a = recording.moments[i], b = recording.moments[Math.min(i + 1, last)];
  // What is further away than half a picture is a new beginning, and nothing moved there.
  const jump = Math.abs(b.x - a.x) > data.scene.extent[0] / 2 || Math.abs(b.y - a.y) > data.scene.extent[1] / 2;
  const share = last ? (jump ? Math.floor(place - i) : place - i) : 0;
  const mix = (u, v) => u + (v - u) * share;
  const boxes = [];
  for (const [number, box] of a.boxes) {
    const next = b.boxes.get(number);
    if (!next) { if (share < 1) boxes.push(box); continue; }
    const turn = Math.atan2(Math.sin(next.heading - box.heading), Math.cos(next.heading - box.heading));
    boxes.push({ ...box, x: mix(box.x, next.x), y: mix(box.y, next.y), heading: box.heading + turn * share,
                 kind: share > 0.5 ? next.kind : box.kind });
  }
  return { boxes, x: mix(a.x, b.x), y: mix(a.y, b.y) };
}

function sized(canvas, ratio) {
  const width = canvas.clientWidth, height = Math.round(width * ratio), dense = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * dense) || canvas.height !== Math.round(height * dense)) {
    canvas.style.height = height + "px";
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
  }
  const context = canvas.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  return { context, width, height };
}

function drawScene(canvas, recording, time) {
  const [across, down] = data.scene.extent;
  const { context, width, height } = sized(canvas, down / across);
  const scale = width / across, now = between(recording, time);
  context.clearRect(0, 0, width, height);
  context.save();
  context.translate(width / 2, height / 2);
  context.scale(scale, scale);
  context.translate(-now.x, -now.y);
  context.lineWidth = across / 720;
  context.strokeStyle = "#e8edf2";
  for (const [x0, y0, x1, y1, dash] of data.scene.lines) {
    const length = Math.hypot(x1 - x0, y1 - y0), ux = (x1 - x0) / length, uy = (y1 - y0) / length;
    // The part within reach of the eye; dashes stay where they are.
    const middle = (now.x - x0) * ux + (now.y - y0) * uy;
    const from = Math.max(0, middle - across), to = Math.min(length, middle + across);
    if (to <= from) continue;
    context.setLineDash(dash ? [dash, dash] : []);
    context.lineDashOffset = from;
    context.beginPath();
    context.moveTo(x0 + ux * from, y0 + uy * from);
    context.lineTo(x0 + ux * to, y0 + uy * to);
    context.stroke();
  }
  context.setLineDash([]);
  for (const box of now.boxes) {
    context.save();
    context.translate(box.x, box.y);
    context.rotate(box.heading);
    const [, color, front] = data.scene.kinds[box.kind];
    context.fillStyle = color;
    const { length, width: wide } = box;
    context.beginPath();
    context.roundRect(-length / 2, -wide / 2, length, wide, Math.min(length, wide) * 0.2);
    context.fill();
    context.fillStyle = "rgba(0, 0, 0, 0.35)";
    if (front) context.fillRect(length * 0.12, -wide * 0.38, length * 0.14, wide * 0.76);
    context.restore();
  }
  context.restore();
  if (time >= duration(recording) - 1e-6) {
    context.font = "600 15px system-ui, sans-serif";
    const words = recording.end, wide = context.measureText(words).width + 24;
    context.fillStyle = "rgba(12, 17, 23, 0.85)";
    context.fillRect((width - wide) / 2, 8, wide, 28);
    context.fillStyle = "#fff";
    context.textAlign = "center";
    context.fillText(words, width / 2, 27);
    context.textAlign = "left";
  }
}

const TRACE = 74, LEFT = 8;

function drawTraces(canvas, recording, time, longest) {
  const rows = recording.traces.length, critic = recording.critic ? 190 : 0;
  const tall = rows * TRACE + critic + 6;
  const { context, width, height } = sized(canvas, tall / Math.max(canvas.clientWidth, 1));
  context.clearRect(0, 0, width, height);
  const right = width - 8, span = Math.max(longest, recording.seconds);
  const at = (step) => LEFT + ((step + 1) * recording.seconds / span) * (right - LEFT);
  const cursor = LEFT + Math.min(time / span, 1) * (right - LEFT);
  const step = Math.min(Math.max(Math.ceil(time / recording.seconds - 1e-9) - 1, 0), recording.steps - 1);
  context.font = "12px system-ui, sans-serif";
  recording.traces.forEach((trace, row) => {
    const top = row * TRACE + 20, bottom = top + TRACE - 28;
    const bound = (value) => value === null ? trace.top : trace.top === null ? value : Math.min(value, trace.top);
    const known = trace.values.flat().map(bound).filter((value) => value !== null);
    const low = Math.min(0, ...known), high = Math.max(1e-9, ...known);
    const y = (value) => bottom - (value - low) / (high - low || 1) * (bottom - top);
    context.strokeStyle = GRID;
    context.beginPath(); context.moveTo(LEFT, y(0)); context.lineTo(right, y(0)); context.stroke();
    context.fillStyle = MUTED;
    context.fillText(trace.label, LEFT, top - 6);
    context.textAlign = "right";
    let edge = right;
    for (let k = trace.values.length - 1; k >= 0; k--) {
      const value = trace.values[k][step], words = value === null ? "none" : value.toFixed(2);
      const named = trace.values.length > 1 ? (trace.names[k] || k + 1) + " " + words : words;
      context.fillStyle = trace.values.length > 1 ? CURVES[k % CURVES.length] : INK;
      context.fillText(named, edge, top - 6);
      edge -= context.measureText(named).width + 14;
    }
    context.textAlign = "left";
    context.lineWidth = 1.6;
    trace.values.forEach((values, k) => {
      context.strokeStyle = CURVES[k % CURVES.length];
      context.beginPath();
      let pen = false;
      values.forEach((each, i) => {
        const level = bound(each);
        if (level === null) { pen = false; return; }
        pen ? context.lineTo(at(i), y(level)) : context.moveTo(at(i), y(level));
        pen = true;
      });
      context.stroke();
    });
    context.lineWidth = 1;
  });
  context.strokeStyle = RED;
  context.beginPath(); context.moveTo(cursor, 16); context.lineTo(cursor, rows * TRACE - 2); context.stroke();
  if (critic) drawCritic(context, recording.critic, step, rows * TRACE + 10, critic - 22, right);
}

function drawCritic(context, critic, step, top, tall, right) {
  const n = critic.atoms.length, probs = [];
  for (let i = 0; i < n; i++) probs.push((critic.rows[step * n + i] / 255) ** 2);
  const tallest = Math.max(1e-9, critic.rows.reduce((most, value) => Math.max(most, value), 0) ** 2 / 65025);
  const total = probs.reduce((sum, p) => sum + p, 0) || 1;
  const mean = probs.reduce((sum, p, i) => sum + p * critic.atoms[i], 0) / total;
  const low = critic.atoms[0], high = critic.atoms[n - 1];
  const x = (value) => LEFT + (value - low) / (high - low) * (right - LEFT), bottom = top + tall - 18;
  context.fillStyle = MUTED;
  context.fillText("return that the critic expects from here: distribution", LEFT, top + 8);
  let tail = (1 - critic.risk) * total, sum = 0;
  for (let i = 0; i < n; i++) {
    const share = Math.min(probs[i], Math.max(tail, 0)), level = (value) => value / tallest * (tall - 40);
    tail -= share; sum += share * critic.atoms[i];
    const wide = (right - LEFT) / n * 0.85;
    context.fillStyle = "#9dbdf0"; context.fillRect(x(critic.atoms[i]) - wide / 2, bottom - level(probs[i]), wide, level(probs[i]));
    context.fillStyle = RED; context.fillRect(x(critic.atoms[i]) - wide / 2, bottom - level(share), wide, level(share));
  }
  const cvar = sum / Math.max((1 - critic.risk) * total, 1e-9);
  context.textAlign = "right"; context.fillStyle = INK;
  context.fillText("mean " + mean.toFixed(1) + ", CVaR at risk " + critic.risk + " " + cvar.toFixed(1), right, top + 8);
  context.fillStyle = MUTED; context.fillText(high.toFixed(1), right, bottom + 14);
  context.textAlign = "left"; context.fillText(low.toFixed(1), LEFT, bottom + 14);
}

function chosen() { return data.groups[state.group].episodes[state.index].map(unpack); }

function drawAll() {
  const recordings = chosen(), longest = Math.max(...recordings.map(duration));
  recordings.forEach((recording, i) => {
    const player = element("players").children[i];
    if (data.scene) drawScene(player.querySelector(".road"), recording, state.time);
    drawTraces(player.querySelector(".traces"), recording, state.time, longest);
  });
  element("scrub").max = longest;
  element("scrub").value = state.time;
  element("clock").textContent = state.time.toFixed(1) + " s of " + longest.toFixed(1) + " s";
  element("play").textContent = state.playing ? "Pause" : "Play";
}

function select(group, index) {
  Object.assign(state, { group, index, time: 0, last: null });
  const players = element("players");
  players.replaceChildren(...chosen().map((recording) => {
    const box = document.createElement("div"), title = document.createElement("h3");
    box.className = "player";
    title.textContent = recording.policy + ": " + recording.caption;
    const scene = document.createElement("canvas"), traces = document.createElement("canvas");
    scene.className = "road"; traces.className = "traces";
    scene.setAttribute("role", "img"); scene.setAttribute("aria-label", title.textContent);
    traces.setAttribute("role", "img"); traces.setAttribute("aria-label", recording.traces.map((t) => t.label).join(", "));
    box.append(title, ...(data.scene ? [scene, traces] : [traces]));
    return box;
  }));
  document.querySelectorAll(".episodes button").forEach((button) => {
    const on = button.dataset.place === group + "/" + index;
    button.classList.toggle("on", on);
    button.setAttribute("aria-pressed", on);
  });
  drawAll();
}

function tick(now) {
  if (state.playing) {
    const passed = state.last === null ? 0 : Math.min((now - state.last) / 1000, 0.1);
    const end = Math.max(...chosen().map(duration));
    state.time = Math.min(state.time + passed * Number(element("rate").value), end);
    if (state.time >= end) state.playing = false;
    drawAll();
  }
  state.last = now;
  requestAnimationFrame(tick);
}

function toggle() {
  const end = Math.max(...chosen().map(duration));
  if (!state.playing && state.time >= end) state.time = 0;
  state.playing = !state.playing;
  drawAll();
}

function begin() {
  if (!data.groups.length) return;
  element("replay").hidden = false;
  const list = element("episodes");
  data.groups.forEach((group, g) => {
    const title = document.createElement("h3");
    title.textContent = group.title;
    list.append(title, ...group.episodes.map((pair, i) => {
      const button = document.createElement("button");
      button.textContent = pair[group.whose].button;
      button.dataset.place = g + "/" + i;
      button.onclick = () => { state.playing = true; select(g, i); };
      return button;
    }));
  });
  const legend = element("legend");
  (data.scene ? data.scene.kinds : []).filter(([name]) => name).forEach(([name, color]) => {
    const mark = document.createElement("i");
    mark.style.background = color;
    legend.append(mark, name);
  });
  element("play").onclick = toggle;
  element("scrub").oninput = (event) => { state.playing = false; state.time = Number(event.target.value); drawAll(); };
  window.addEventListener("resize", drawAll);
  document.addEventListener("keydown", (event) => {
    if (event.target instanceof HTMLElement && ["SELECT", "INPUT", "BUTTON"].includes(event.target.tagName)) return;
    const seconds = chosen()[0].seconds, steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === " ") { event.preventDefault(); toggle(); }
    if (!steps) return;
    event.preventDefault();
    state.playing = false;
    const end = Math.max(...chosen().map(duration));
    state.time = Math.min(Math.max((Math.round(state.time / seconds) + steps) * seconds, 0), end);
    drawAll();
  });
  select(0, 0);
  requestAnimationFrame(tick);
}

begin();
