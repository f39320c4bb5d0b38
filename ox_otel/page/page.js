// The page of ox_otel: what the functions of one process use, live, or as a file that was saved.
//
// A view is what `_graph.py` makes of a profile. Whatever a function is called, it is text: nothing
// here is ever parsed as markup.
"use strict";

const REFRESH = 1000; // milliseconds between two looks at a process that answers
const RETRY = 2000; // and at one that does not
const ROW = 21; // pixels from one level of the graph to the next
const LETTER = 6.7; // pixels that a letter in it takes, about
const ROWS = 200; // functions listed at most
const LUMPED = /\.__(other|unplaced|retired_\d+)__$/; // names that are those of no function

const byId = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const written = (element, text) => {
  if (element.textContent !== text) element.textContent = text; // or it would be read out again
};
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

let view = null; // the newest one, or the one that is held
let root = null; // of its tree, at the time chosen; null where there is none
let zoomed = ""; // the key of the frame that is as wide as the graph
let focused = ""; // the key of the frame that the keys walk from
let order = { by: "self", down: true };
let held = false;
let token = ""; // in memory alone: where it is stored, other pages of this origin could read it

// ---- numbers -------------------------------------------------------------------------------

const percent = (part, whole) => `${((100 * part) / (whole || 1)).toFixed(1)} %`;
const aligned = (text) => text.padStart(8, "\u2007"); // a space as wide as a figure

function seconds(value) {
  if (!value) return "0 s";
  if (value >= 100) return `${value.toFixed(0)} s`;
  if (value >= 0.1) return `${value.toFixed(2)} s`;
  return `${(1000 * value).toFixed(value >= 0.01 ? 0 : 1)} ms`;
}

// ---- a view, as one of the times ------------------------------------------------------------

const of = (time, cpu, wait) => (time === "wait" ? 0 : cpu) + (time === "cpu" ? 0 : wait);

function tree(time) {
  if (!view.times.includes(time)) return null;
  const path = [];
  for (const [index, level, cpu, wait] of view.frames) {
    const name = view.names[index];
    const parent = level ? path[level - 1] : null;
    const self = of(time, cpu, wait);
    const key = parent ? `${parent.key}\n${name}` : name;
    const frame = { name, key, level, parent, self, inclusive: self, children: [] };
    parent?.children.push(frame);
    for (let above = parent; above; above = above.parent) above.inclusive += self;
    path[level] = frame;
  }
  return path[0];
}

function functions(time) {
  return view.functions.map(([index, selfCpu, selfWait, cpu, wait]) => ({
    name: view.names[index],
    self: of(time, selfCpu, selfWait),
    inclusive: of(time, cpu, wait),
  }));
}

const total = (time) => functions(time).reduce((sum, { self }) => sum + self, 0);

function found(key) {
  const [, ...names] = key.split("\n");
  let frame = root;
  for (const name of names) {
    const child = frame.children.find((one) => one.name === name);
    if (!child) break; // gone: the nearest caller that is still there
    frame = child;
  }
  return frame;
}

const searched = () => document.querySelector("input[name=search]").value.trim().toLowerCase();

// ---- the table ------------------------------------------------------------------------------

const body = document.querySelector("tbody");
const rows = new Map(); // by name, so that the focus stays where it is

function row(name) {
  const line = document.createElement("tr");
  const head = line.appendChild(document.createElement("th"));
  head.scope = "row";
  const button = head.appendChild(document.createElement("button"));
  button.type = "button";
  button.title = name;
  button.appendChild(document.createElement("bdi")).textContent = name;
  for (const kind of ["self", "inclusive"]) line.insertCell().dataset.kind = kind;
  return line;
}

function drawTable() {
  const time = chosen("time");
  const whole = total(time);
  const text = searched();
  const all = functions(time).filter(
    ({ name, inclusive }) => inclusive > 0 && name.toLowerCase().includes(text),
  );
  const sign = order.down ? -1 : 1;
  all.sort(
    (a, b) =>
      (order.by === "name" ? 0 : sign * (a[order.by] - b[order.by])) ||
      (order.by === "name" ? sign : 1) * a.name.localeCompare(b.name),
  );
  const shown = all.slice(0, ROWS);
  const lines = shown.map(({ name, ...used }) => {
    if (!rows.has(name)) rows.set(name, row(name));
    const line = rows.get(name);
    for (const cell of line.querySelectorAll("td")) {
      const part = used[cell.dataset.kind];
      cell.className = part ? "" : "none";
      written(cell, `${seconds(part)}${aligned(percent(part, whole))}`);
      cell.style.setProperty("--share", percent(part, whole).replace(" ", ""));
    }
    return line;
  });
  const active = document.activeElement;
  if (lines.length !== body.rows.length || lines.some((line, n) => line !== body.rows[n])) {
    body.replaceChildren(...lines);
    if (active !== document.activeElement && body.contains(active)) active.focus();
  }
  for (const name of rows.keys()) if (!body.contains(rows.get(name))) rows.delete(name);
  for (const button of document.querySelectorAll("thead button")) {
    const direction = order.down ? "descending" : "ascending";
    button.parentElement.ariaSort = button.value === order.by ? direction : "none";
  }
  const hidden = all.length - shown.length;
  written(byId("left-out"), hidden ? `and ${hidden} more: search for them` : "");
  if (!all.length) written(byId("left-out"), text ? "no function is called so" : "nothing yet");
}

// ---- the flame graph ------------------------------------------------------------------------

const flame = byId("flame");

function hue(name) {
  let sum = 0; // one colour for all modules of a package
  for (const letter of name.split(".")[0]) sum = (sum * 33 + letter.charCodeAt(0)) % 4096;
  return (sum * 101) % 360;
}

function bar(number) {
  const element = flame.children[number] ?? flame.appendChild(document.createElement("div"));
  element.role = "treeitem";
  element.id = `frame-${number}`;
  return element;
}

function label(name, width) {
  if (width < 4 * LETTER) return "";
  const short = name.slice(name.lastIndexOf(".") + 1);
  return name.length * LETTER + 8 > width ? short : name;
}

function matched(frame, text) {
  if (frame.name.toLowerCase().includes(text)) return frame.inclusive;
  return frame.children.reduce((sum, child) => sum + matched(child, text), 0);
}

function share({ inclusive, self }) {
  return `${percent(inclusive, root.inclusive)} inclusive, ${percent(self, root.inclusive)} self`;
}

function drawFlame() {
  root = tree(chosen("time"));
  const text = searched();
  let count = 0;
  let deepest = 0;
  const draw = (frame, left, width, above) => {
    if (width < 1) return; // narrower than a pixel
    const element = bar(count++);
    element.frame = frame;
    written(element, label(frame.name, width));
    element.ariaLevel = frame.level + 1;
    element.ariaLabel = `${frame.name}, ${share(frame)}`;
    element.className = [
      above && "above",
      text && (frame.name.toLowerCase().includes(text) ? "match" : "other"),
      (!frame.level || LUMPED.test(frame.name)) && "lumped",
    ]
      .filter(Boolean)
      .join(" ");
    element.style.setProperty("--hue", hue(frame.name));
    element.style.transform = `translate(${left.toFixed(2)}px, ${frame.level * ROW}px)`;
    element.style.width = `${Math.max(width - 1, 1).toFixed(2)}px`;
    deepest = Math.max(deepest, frame.level);
    if (above) return;
    const children = frame.children.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const child of children) {
      const part = (width * child.inclusive) / frame.inclusive;
      draw(child, left, part, false);
      left += part;
    }
  };
  if (root?.inclusive) {
    const top = found(zoomed);
    zoomed = top.key;
    for (let above = top.parent; above; above = above.parent) {
      draw(above, 0, flame.clientWidth, true);
    }
    draw(top, 0, flame.clientWidth, false);
  }
  const part = root && text && percent(matched(root, text), root.inclusive);
  written(byId("found"), part ? `“${text}”: ${part} of all` : "");
  while (flame.children.length > count) flame.lastChild.remove();
  flame.style.height = `${(deepest + 1) * ROW}px`;
  byId("out").hidden = !root || zoomed === root.key;
  const other = view.times.length ? `${view.times.join()} alone` : "nothing";
  flame.dataset.empty = root ? "nothing yet" : `since the start, there is a tree of ${other}`;
  focusFrame();
}

function drawnAt(key) {
  return [...flame.children].find(({ frame }) => frame.key === key);
}

function focusFrame(key = focused) {
  const element = drawnAt(key) ?? drawnAt(zoomed);
  for (const one of flame.children) one.ariaSelected = one === element;
  if (!element) {
    flame.removeAttribute("aria-activedescendant");
    byId("details").replaceChildren();
    return;
  }
  focused = element.frame.key;
  flame.setAttribute("aria-activedescendant", element.id);
  describe(element.frame);
}

function describe(frame) {
  const words = [
    `${frame.name}`,
    `inclusive ${seconds(frame.inclusive)} (${percent(frame.inclusive, root.inclusive)})`,
    `self ${seconds(frame.self)} (${percent(frame.self, root.inclusive)})`,
  ];
  byId("details").replaceChildren(
    ...words.map((text) => Object.assign(document.createElement("span"), { textContent: text })),
  );
}

function zoom(key) {
  zoomed = focused = key;
  drawFlame();
}

function step(key) {
  const element = drawnAt(focused);
  if (!element) return null;
  const { frame } = element;
  const level = [...flame.children].filter((one) => one.frame.level === frame.level);
  const place = level.indexOf(element);
  const widest = frame.children.reduce((a, b) => (b.inclusive > a.inclusive ? b : a), {
    inclusive: 0,
  });
  return {
    ArrowUp: frame.parent?.key,
    ArrowDown: widest.key,
    ArrowLeft: level[place - 1]?.frame.key,
    ArrowRight: level[place + 1]?.frame.key,
    Home: root.key,
  }[key];
}

flame.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "Enter" || event.key === " ") zoom(focused);
  else if (event.key === "Escape") zoom(root?.key ?? "");
  else if (["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home"].includes(event.key)) {
    const key = step(event.key);
    if (key && drawnAt(key)) focusFrame(key);
    else if (key) zoom(focused); // narrower than a pixel
    drawnAt(focused)?.scrollIntoView({ block: "nearest" });
  } else return;
  event.preventDefault();
});
flame.addEventListener("click", ({ target }) => target.frame && zoom(target.frame.key));
flame.addEventListener("pointerover", ({ target }) => target.frame && describe(target.frame));
flame.addEventListener("pointerleave", () => root && focusFrame());
byId("out").addEventListener("click", () => {
  zoom(root.key);
  flame.focus();
});

// ---- what is chosen -------------------------------------------------------------------------

function draw() {
  if (!view) return;
  const time = chosen("time");
  const whole = total(time);
  const words = { cpu: "CPU", wait: "waiting", wall: "CPU and waiting" }[time];
  const mean = time === "cpu" ? ` = ${(whole / (view.seconds || 1)).toFixed(2)} cores` : "";
  const span = view.seconds ? ` in ${view.seconds.toFixed(view.seconds < 100 ? 1 : 0)} s` : "";
  written(byId("flames-title"), `Flame graph: ${seconds(whole)} ${words}${span}${span && mean}`);
  drawTable();
  drawFlame();
}

for (const input of document.querySelectorAll("#time input, #search input")) {
  input.addEventListener("input", draw);
}
document.querySelector("thead").addEventListener("click", ({ target: { value } }) => {
  if (!value) return;
  order = { by: value, down: order.by === value ? !order.down : value !== "name" };
  draw();
});
body.addEventListener("click", ({ target }) => {
  const input = document.querySelector("input[name=search]");
  const name = target.closest("button")?.textContent;
  if (name === undefined) return;
  input.value = input.value === name ? "" : name;
  draw();
});
new ResizeObserver(draw).observe(flame);

// ---- the process ----------------------------------------------------------------------------

class Refusal extends Error {} // an answer that is none; its message is for people

function notice(text) {
  written(byId("notice"), text);
  byId("notice").hidden = !text;
}

async function ask(path, method = "GET") {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { method, headers, cache: "no-store", redirect: "error" });
  const isEntered = answer.status !== 401;
  if (byId("entry").hidden !== isEntered) {
    byId("entry").hidden = isEntered;
    if (!isEntered) document.querySelector("input[name=token]").focus();
  }
  if (!answer.ok) throw new Refusal((await answer.text()).trim());
  return answer;
}

function showState(state, reason) {
  document.body.dataset.state = state;
  written(byId("state"), reason ? `${state}: ${reason}` : state);
}

function showStatus(status) {
  showState(status.state, status.reason);
  byId("pause").textContent = status.state === "paused" ? "Unpause" : "Pause";
  const age = status.last_sample_age;
  const facts = {
    cost: `${(100 * status.overhead_ratio).toFixed(2)} % of a core`,
    engine: status.engine,
    interval: seconds(status.interval),
    samples: status.samples.toLocaleString("en"),
    missed: status.missed.toLocaleString("en"),
    errors: status.errors.toLocaleString("en"),
    series: `${status.series} of ${status.series_limit}`,
    "last sample": age === null ? "none" : age < 2 ? "now" : `${seconds(age)} ago`,
    process: status.pid,
  };
  byId("facts").replaceChildren(
    ...Object.entries(facts).map(([name, value]) => {
      const pair = document.createElement("div");
      pair.appendChild(document.createElement("dt")).textContent = name;
      pair.appendChild(document.createElement("dd")).textContent = value;
      return pair;
    }),
  );
}

async function refresh() {
  const asked = chosen("window");
  const began = performance.now();
  let answer;
  try {
    answer = await (await ask(`live.json?${asked && `seconds=${asked}`}`)).json();
  } catch (error) {
    if (error instanceof Refusal) showState("refused", error.message);
    else showState("connection lost", "trying again; what is shown is the last that was seen");
    return RETRY;
  }
  const { status, wishes, ...newest } = answer;
  showStatus(status);
  const input = document.querySelector("input[name=seconds]");
  if (!input.value) input.value = wishes.interval; // what was typed stays
  if (!held && asked === chosen("window")) {
    view = newest;
    draw();
  }
  // what costs the process much is asked for more rarely; for all since the start it makes a batch
  return Math.max(asked ? REFRESH : 3 * REFRESH, 9 * (performance.now() - began));
}

async function change(path) {
  try {
    showStatus(await (await ask(path, "POST")).json());
    notice("");
  } catch (error) {
    notice(error instanceof Refusal ? error.message : "the process does not answer");
  }
}

async function download({ value }) {
  const asked = chosen("window");
  const time = chosen("time");
  const query = new URLSearchParams({ format: value, time, ...(asked && { seconds: asked }) });
  notice(asked ? `capturing ${asked} s for ${value} …` : "");
  try {
    const answer = await ask(`profile?${query}`);
    const link = document.createElement("a");
    const names = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"));
    link.download = names?.[1] ?? value;
    link.href = URL.createObjectURL(await answer.blob());
    link.click();
    URL.revokeObjectURL(link.href);
    notice("");
  } catch (error) {
    notice(error instanceof Refusal ? error.message : "the process does not answer");
  }
}

function sayWhatIsCaptured() {
  const names = { 10: "Capture the next 10 s:", 60: "Capture the next minute:" };
  byId("capture").textContent = names[chosen("window")] ?? "Save all since the start:";
}

byId("pause").addEventListener("click", ({ target }) => change(target.textContent.toLowerCase()));
byId("interval").addEventListener("submit", (event) => {
  event.preventDefault();
  change(`interval?${new URLSearchParams(new FormData(event.target))}`);
});
byId("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  token = new FormData(event.target).get("token");
  event.target.reset();
  refresh();
});
byId("hold").addEventListener("click", ({ target }) => {
  held = !held;
  target.ariaPressed = held;
});
byId("downloads").addEventListener("click", ({ target }) => target.value && download(target));
byId("window").addEventListener("input", () => {
  sayWhatIsCaptured();
  refresh();
});

async function live() {
  sayWhatIsCaptured();
  // nobody looks at a page that is hidden: the process need not keep anything for it
  for (;;) await wait(document.hidden ? REFRESH : await refresh());
}

function saved({ title, time, ...profile }) {
  for (const element of document.querySelectorAll(".live")) element.hidden = true;
  document.querySelector(`input[name=time][value=${time}]`).checked = true;
  document.title = `ox_otel: ${title}`;
  written(byId("state"), title);
  view = profile;
  draw();
}

const data = byId("profile");
if (data) saved(JSON.parse(data.textContent));
else live();
