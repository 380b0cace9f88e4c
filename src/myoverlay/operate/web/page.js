// What the plugin tells, as tables. Every text of somebody else's is set as text, never as markup.
import { draw } from "/drawing.js";
import { chose, trace } from "/trace.js";

/** Milliseconds between two questions: with the plugin's own pause a change is seen within two seconds. */
const PAUSE = 700;
const LOST = 2000;
/** Rows of endpoints that are shown at first, and more each time somebody scrolls to their end: to lay out a thousand
 *  takes a quarter of a second, which nobody who types waits for. */
const ROWS = 200;
const $ = (id) => document.getElementById(id);

/** An element with attributes, listeners (functions) and children; a child that is no node is a text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

/** What the address says is shown: the view, and what was chosen in it. */
function chosen() {
  const [view, query] = location.hash.replace(/^#/, "").split("?");
  const known = ["overview", "hosts", "endpoints", "drawing"];
  return { view: known.includes(view) ? view : "overview", query: new URLSearchParams(query) };
}

/** Choose something: null takes a choice back. */
export function choose(changes, view = chosen().view) {
  const { query } = chosen();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  const hash = `#${view}${text ? `?${text}` : ""}`;
  if (hash !== location.hash) history.replaceState(null, "", hash);
  show();
}

// -- asking ----------------------------------------------------------------------------------------------------------

const told = new Map();

/** What is told at a path: [it, whether it is news]. Raises where there is no answer. */
async function ask(path) {
  const before = told.get(path);
  const headers = before ? { "If-None-Match": before.mark } : {};
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(5000) });
  if (answer.status === 304) return [before.data, false];
  if (!answer.ok) throw new Error((await answer.text()).trim());
  const data = await answer.json();
  told.set(path, { mark: answer.headers.get("ETag"), data });
  if (told.size > 16) told.delete(told.keys().next().value);
  return [data, true];
}

function drawingPath(query) {
  const overlay = query.get("overlay") || state.host?.overlays[0]?.overlay;
  if (!overlay) return null;
  const asked = new URLSearchParams({ overlay });
  for (const name of ["from", "to", "host"]) if (query.get(name)) asked.set(name, query.get(name));
  return `/data/drawing?${asked}`;
}

const state = { host: null, endpoints: null, matrix: null, drawing: null, painted: "" };
let timer = 0;
let round = 0;

/** Ask for what the view shows, paint what is new, and do so again. */
async function turn() {
  clearTimeout(timer);
  const mine = ++round;
  const { view, query } = chosen();
  let pause = PAUSE;
  try {
    let [host, news] = await ask("/data/host");
    state.host = host;
    const path = { endpoints: "/data/endpoints", hosts: "/data/matrix", drawing: drawingPath(query) }[view];
    if (path) {
      const [data, more] = await ask(path);
      state[{ endpoints: "endpoints", hosts: "matrix", drawing: "drawing" }[view]] = data;
      news = news || more;
    }
    if (mine !== round) return;
    alive(null);
    if (news || state.painted !== location.hash) paint();
  } catch (error) {
    if (mine !== round) return;
    alive(error);
    pause = LOST;
  }
  if (!document.hidden) timer = setTimeout(turn, pause);
}

let since = null;
function alive(error) {
  const line = $("live");
  if (!error) {
    since = null;
    if (line.textContent !== "Live") line.textContent = "Live";
  } else {
    since ??= new Date();
    line.textContent = `No answer since ${since.toLocaleTimeString()}: ${error.message}`;
  }
  line.classList.toggle("lost", Boolean(error));
}

// -- painting --------------------------------------------------------------------------------------------------------

/** The rows of a table by their keys: those that stay are kept, so that focus and selection stay. */
function fill(body, rows, make) {
  const old = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const made = rows.map(([key, value]) => {
    const text = JSON.stringify(value);
    const known = old.get(key);
    if (known && known.dataset.said === text) return known;
    const row = make(value);
    row.dataset.key = key;
    row.dataset.said = text;
    if (old.size && !known) row.classList.add("fresh");
    return row;
  });
  const same = made.length === body.children.length && made.every((row, place) => row === body.children[place]);
  if (!same) body.replaceChildren(...made);
}

const cell = (text, attributes = {}) => element("td", attributes, text ?? "–");
const tag = (text, kind) => element("span", { class: `tag ${kind}` }, text);
const time = (seconds) => (seconds === null ? "never" : new Date(seconds * 1000).toLocaleString());
const KINDS = { alive: "good", pending: "warn", "cut off": "warn", dead: "bad" };

/** Whether each word of the search is in one of the texts. */
export function matches(words, texts) {
  const all = texts.join("\n").toLowerCase();
  return words.every((word) => all.includes(word));
}

export const words = () => $("search").value.toLowerCase().split(/\s+/).filter(Boolean);

function paint() {
  state.painted = location.hash;
  const { view } = chosen();
  if (!state.host) return;
  const { host } = state;
  $("host-name").textContent = `on ${host.name}`;
  document.title = `${host.name} – myoverlay`;
  if (view === "overview") overview(host);
  if (view === "hosts" && state.matrix) matrix(state.matrix);
  if (view === "endpoints" && state.endpoints) {
    news(state.endpoints);
    endpoints(state.endpoints);
  }
  if (view === "drawing") drawing(state.drawing);
}

function overview(host) {
  const { store } = host;
  const answers = store.answers === null ? "was not asked yet" : store.answers ? "answers" : `no answer: ${store.failure}`;
  const session = host.session ? "session held" : "no session";
  $("facts").replaceChildren(
    element("dt", {}, "Host"), element("dd", {}, `${host.name} (${host.id.slice(0, 12)}), version ${host.version}`),
    element("dt", {}, "Store"),
    element("dd", {}, `${store.where}: `, tag(answers, store.answers === false ? "bad" : "good"), ` since ${time(store.since)}, `,
      tag(session, host.session ? "good" : "bad")),
    ...(host.elsewhere.length
      ? [element("dt", {}, "Overlays of others"),
         element("dd", {}, host.elsewhere.map((one) => `${one.overlay} (${one.hosts.join(", ")})`).join("; "))]
      : []),
  );
  $("concerns").replaceChildren(
    ...host.concerns.map((one) => element("p", { class: "concern" }, element("strong", {}, one.what), `: ${one.remedy}`)),
  );
  const asked = words();
  const shown = host.overlays.filter((one) => matches(asked, [one.overlay, one.subnet, one.vtep]));
  fill($("overlays").tBodies[0], shown.map((one) => [one.overlay, one]), (one) =>
    element("tr", {},
      element("th", { scope: "row" },
        element("a", { href: `#drawing?overlay=${encodeURIComponent(one.overlay)}` }, one.overlay)),
      cell(one.subnet, { class: "code" }), cell(one.vni), cell(one.port), cell(one.mtu), cell(one.vtep, { class: "code" }),
      cell(one.endpoints), cell(one.peers), cell(one.hosts + 1),
      element("td", {}, one.built ? (one.complete ? tag("complete", "good") : tag("peers not all known", "warn")) : tag("not built", "bad"))));
  const peers = host.peers.filter((one) => matches(asked, [one.name, one.id, one.vtep || "", one.state, ...one.overlays]));
  fill($("peers").tBodies[0], peers.map((one) => [one.id, one]), (one) =>
    element("tr", {},
      element("th", { scope: "row", title: one.id }, one.name || one.id.slice(0, 12)),
      element("td", {}, tag(one.state, KINDS[one.state])), cell(time(one.since)), cell(one.vtep, { class: "code" }),
      cell(one.rtt === null ? "not heard" : `${(one.rtt * 1000).toPrecision(2)} ms`), cell(one.version || "not told"),
      cell(one.overlays.join(", ")), cell(one.why, { class: "wrap" })));
}

/** A cell's class, its lines and what it says aloud. */
function seen(from, to, found) {
  if (from.id === to.id) return ["none", ["—"], `${from.name} itself`];
  if (from.cells === null) return ["none", ["not told"], `${from.name} → ${to.name}: not told`];
  if (!found) return ["none", ["·"], `${from.name} → ${to.name}: they share no overlay`];
  const [fate, latency, loss, carries] = found;
  const lines = [fate === "alive" && latency !== null ? `${latency} ms` : fate];
  if (fate !== "alive" && latency !== null) lines.push(`${latency} ms`);
  if (loss) lines.push(`${Math.round(loss * 100)} % lost`);
  if (carries === false) lines.push("MTU too small");
  const kind = fate === "dead" || carries === false ? "bad" : fate !== "alive" || loss > 0.1 ? "warn" : "good";
  const size = carries === null ? "full size not tried yet" : carries ? `${from.mtu} bytes come back` : `${from.mtu} bytes do not come back`;
  const share = loss === null ? "loss not known yet" : `${Math.round(loss * 100)} % lost`;
  const heard = latency === null ? "not heard yet" : `${latency} ms`;
  return [kind, lines, `${from.name} → ${to.name}: ${fate}, ${heard}, ${share}, ${size}`];
}

/** So that host-2 comes before host-10. */
const BY_NAME = new Intl.Collator("en", { numeric: true });

function matrix(data) {
  const asked = words();
  const hosts = data.hosts.filter((one) => matches(asked, [one.name, one.id, one.version || ""]))
    .sort((one, other) => BY_NAME.compare(one.name, other.name));
  const head = element("tr", {},
    element("th", { scope: "col" }, "Host"),
    ...["Version", "Full size", "Told"].map((fact) => element("th", { scope: "col", class: "fact" }, fact)), ...hosts.map((one) => element("th", { scope: "col", title: one.id }, one.name)));
  const heading = $("matrix").tHead;
  const text = JSON.stringify(hosts.map((one) => [one.id, one.name]));
  if (heading.dataset.said !== text) {
    heading.dataset.said = text;
    heading.replaceChildren(head);
  }
  const facts = hosts.map((from) => [from.id, { ...from, order: text,
    row: hosts.map((to) => (from.cells ? from.cells[to.id] ?? null : null)), cells: from.cells && {} }]);
  fill($("matrix").tBodies[0], facts, (from) => {
    const told = [from.version ?? "not told", from.mtu ? `${from.mtu} B` : from.cells ? "none" : "not told",
      from.id === data.me ? "live" : from.told === null ? "not told" : new Date(from.told * 1000).toLocaleTimeString()];
    return element("tr", {},
      // Where there is no room for columns of their own, as on a phone, facts stand below the host's name.
      element("th", { scope: "row", title: from.id }, from.id === data.me ? `${from.name} (here)` : from.name,
        element("span", { class: "narrow" }, told.join(" · "))),
      ...told.map((fact) => cell(fact, { class: "fact" })),
      ...hosts.map((to, place) => {
        const [kind, lines, aloud] = seen(from, to, from.row[place]);
        return element("td", { class: kind, title: aloud, "aria-label": aloud, "data-to": to.name }, lines[0],
          ...lines.slice(1).map((line) => element("small", {}, line)));
      }));
  });
  const silent = data.hosts.filter((one) => one.cells === null).length;
  $("matrix-count").textContent = `${hosts.length} of ${data.hosts.length} hosts; ${silent ? `${silent} told nothing yet` : "all told what they see"}.`;
}

let limit = ROWS;
let searched = "";
/** The rows that were made, by key: [what is told, the row]. */
let made = new Map();
const rowOf = ([overlay, address, mac, host, vtep, names, joined]) => ({ overlay, address, mac, host, vtep, names, joined });
const keyOf = (row) => `${row[0]} ${row[1]}`;

function endpoint(row) {
  const one = rowOf(row);
  const there = `#drawing?overlay=${encodeURIComponent(one.overlay)}&from=${encodeURIComponent(one.address)}`;
  return element("tr", {},
    element("td", {}, one.names.join(", ") || "–", one.joined ? "" : " (not joined yet)"),
    element("td", { class: "code" }, element("a", { href: there, "aria-label": `draw ${one.address}` }, one.address)),
    cell(one.overlay), cell(one.host || "outsider"), cell(one.mac, { class: "code" }), cell(one.vtep, { class: "code" }));
}

function endpoints(data) {
  const asked = words();
  if (searched !== asked.join(" ")) limit = Math.min(limit, ROWS);
  searched = asked.join(" ");
  const found = data.rows.filter((row) => matches(asked, [row[0], row[1], row[2], row[3], row[4], ...row[5]]));
  const shown = found.slice(0, limit);
  const body = $("endpoints").tBodies[0];
  const rows = shown.map((row) => kept(keyOf(row), row));
  const same = rows.length === body.children.length && rows.every((row, place) => row === body.children[place]);
  if (!same) body.replaceChildren(...rows);
  const beyond = found.length - shown.length;
  $("endpoints-count").textContent = `${found.length} of ${data.rows.length} endpoints${beyond ? `, the first ${shown.length} shown` : ""}`;
  $("more").hidden = !beyond;
}

/** The row of an endpoint, made anew only where something else is told of it. */
function kept(key, row) {
  const known = made.get(key);
  if (known && (known[0] === row || JSON.stringify(known[0]) === JSON.stringify(row))) return known[1];
  const fresh = endpoint(row);
  made.set(key, [row, fresh]);
  return fresh;
}

/** What is told anew: who was not there before is marked for a moment, and who is gone is forgotten. */
let listed = null;
function news(data) {
  if (listed === data) return;
  const before = listed && new Set(listed.rows.map(keyOf));
  const now = new Set(data.rows.map(keyOf));
  for (const key of made.keys()) if (!now.has(key)) made.delete(key);
  if (before) for (const row of data.rows) if (!before.has(keyOf(row))) kept(keyOf(row), row).classList.add("fresh");
  listed = data;
}

function drawing(data) {
  const { query } = chosen();
  const overlays = state.host.overlays.map((one) => one.overlay);
  options($("choose-overlay"), overlays.map((name) => [name, name]), query.get("overlay") || overlays[0] || "");
  chose(pair());
  if (!data || !overlays.length) {
    $("drawing-facts").textContent = overlays.length ? "" : "This host is on no overlay.";
    return;
  }
  const ends = [];
  for (const host of [...data.hosts, { name: "outsider", endpoints: data.outsiders }]) {
    for (const one of host.endpoints) ends.push([one.address, `${one.names[0] || one.address} (${one.names[0] ? `${one.address}, ` : ""}${host.name})`]);
  }
  options($("choose-from"), [["", "choose a container"], ...ends], query.get("from") || "");
  options($("choose-to"), [["", "choose a container"], ...ends], query.get("to") || "");
  $("drawing-facts").textContent = `${data.overlay}: ${data.subnet}, VNI ${data.vni}, UDP port ${data.port}, MTU ${data.mtu}; ${ends.length} endpoints on ${data.hosts.length} hosts`;
  draw(data, { from: query.get("from"), to: query.get("to"), host: query.get("host") });
}

/** The pair that the address says is chosen. */
function pair() {
  const { query } = chosen();
  return { overlay: query.get("overlay") || state.host?.overlays[0]?.overlay, from: query.get("from"), to: query.get("to") };
}

function options(select, wanted, value) {
  const text = JSON.stringify(wanted);
  if (select.dataset.said !== text) {
    select.dataset.said = text;
    select.replaceChildren(...wanted.map(([key, label]) => element("option", { value: key }, label)));
  }
  if (select.value !== value) select.value = value;
}

// -- what a person does ----------------------------------------------------------------------------------------------

function show() {
  const { view } = chosen();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  for (const name of ["overview", "hosts", "endpoints", "drawing"]) $(`view-${name}`).hidden = name !== view;
  paint();
  turn();
}

$("search").addEventListener("input", paint);
$("search-form").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => { limit = Infinity; paint(); });
$("endpoints").parentElement.addEventListener("scroll", (event) => {
  const { scrollTop, clientHeight, scrollHeight } = event.target;
  if (!$("more").hidden && scrollTop + clientHeight > scrollHeight - 300) {
    limit += ROWS;
    paint();
  }
});
$("choose").addEventListener("submit", (event) => event.preventDefault());
$("choose-overlay").addEventListener("change", (event) => choose({ overlay: event.target.value, from: null, to: null, host: null }));
$("choose-from").addEventListener("change", (event) => choose({ from: event.target.value }));
$("choose-to").addEventListener("change", (event) => choose({ to: event.target.value }));
$("swap").addEventListener("click", () => {
  const { query } = chosen();
  choose({ from: query.get("to"), to: query.get("from") });
});
$("trace-pair").addEventListener("click", () => trace(pair()));
document.addEventListener("traced", paint);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) {
    event.preventDefault();
    $("search").focus();
  }
  if (event.key === "Escape" && document.activeElement === $("search")) {
    $("search").value = "";
    paint();
  }
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
let resized = 0;
addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(paint, 100); });
addEventListener("hashchange", show);
show();
