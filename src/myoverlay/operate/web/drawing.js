// One overlay as a picture: hosts with their containers, the way between two of them, the tables of a host.
import { choose, element, matches, words } from "/page.js";
import { traced } from "/trace.js";

const SVG = "http://www.w3.org/2000/svg";
const LEAST = 216, MOST = 300, GAP = 18, HEAD = 46, LINE = 24, SHOWN = 10, STEP = 44;
const $ = (id) => document.getElementById(id);

function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

const label = (text, x, y, kind = "") => shape("text", { x, y, class: kind }, text);
const short = (text, long) => (text.length > long ? `${text.slice(0, long - 1)}…` : text);
const named = (one) => one.names[0] || one.address;

let said = "";

/** Paint what is told of an overlay; what is painted already stays, so that focus stays. */
export function draw(data, chosen) {
  const text = JSON.stringify([data, chosen, $("picture").clientWidth, $("way").clientWidth, words(), traced()]);
  if (text === said) return;
  said = text;
  data = { ...data, way: marked(data.way, traced()) };
  const focus = document.activeElement?.closest?.("[data-host]")?.dataset.host;
  way(data.way, chosen);
  $("picture").replaceChildren(picture(data, chosen));
  tables(data, chosen);
  if (focus) document.querySelector(`#picture [data-host="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
}

// -- hosts and containers ----------------------------------------------------------------------------------------------

/** Which of a host's containers are drawn: the chosen ones and those that are searched for come first. */
function drawn(host, chosen, asked) {
  const rank = (one) => (one.address === chosen.from || one.address === chosen.to ? 0 : asked.length && found(one, asked) ? 1 : 2);
  const order = host.endpoints.map((one, place) => [rank(one), place, one]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  return order.slice(0, SHOWN).map((each) => each[2]);
}

const found = (one, asked) => asked.length > 0 && matches(asked, [one.address, one.mac, ...one.names]);

function picture(data, chosen) {
  const wide = Math.max(LEAST, $("picture").clientWidth || 900) - 2;
  const columns = Math.max(1, Math.floor(wide / (LEAST + GAP)));
  const width = Math.min(MOST, Math.floor(wide / columns) - GAP);
  const asked = words();
  const hosts = data.hosts.map((host) => ({ ...host, shown: drawn(host, chosen, asked) }));
  if (data.outsiders.length) {
    const outside = { id: "", name: "outsiders", vtep: null, state: null, endpoints: data.outsiders };
    hosts.push({ ...outside, shown: drawn(outside, chosen, asked) });
  }
  const places = new Map();
  const parts = [];
  let top = GAP;
  for (let start = 0; start < hosts.length; start += columns) {
    const row = hosts.slice(start, start + columns);
    const tall = Math.max(...row.map((host) => HEAD + LINE * (host.shown.length + (host.endpoints.length > host.shown.length ? 1 : 0)) + 8));
    row.forEach((host, column) => parts.push(box(host, { x: column * (width + GAP) + 1, y: top, width, tall }, chosen, asked, places)));
    top += tall + GAP;
  }
  const line = link(places.get(chosen.from), places.get(chosen.to), data.way);
  const used = Math.min(columns, Math.max(1, hosts.length)) * (width + GAP) + 2;
  const aloud = `${data.overlay}: ${hosts.length} hosts with ${hosts.reduce((sum, host) => sum + host.endpoints.length, 0)} endpoints`;
  return shape("svg", { viewBox: `0 0 ${used} ${top}`, width: used, height: top, role: "group", "aria-label": aloud, id: "overlay-picture" },
    ...parts, ...(line ? [line] : []));
}

const WARNED = { pending: "warned", "cut off": "warned", dead: "dead" };

function box(host, { x, y, width, tall }, chosen, asked, places) {
  const letters = Math.floor((width - 20) / 6.4);
  const pick = () => host.id && choose({ host: chosen.host === host.id ? null : host.id });
  const state = host.state === "here" ? "this host" : host.state ?? (host.id ? "not told" : "by records alone");
  const group = shape("g", {
    class: `host ${WARNED[host.state] || ""}`, "data-host": host.id, "data-name": host.name, transform: `translate(${x} ${y})`,
    tabindex: host.id ? 0 : null, role: host.id ? "button" : null, "aria-pressed": host.id ? String(chosen.host === host.id) : null,
    "aria-label": `${host.name}, ${state}, ${host.endpoints.length} endpoints: show its tables`,
    click: pick,
    keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } },
  },
  shape("rect", { class: "box", width, height: tall, rx: 8 }),
  label(short(host.name, Math.floor((width - 24) / 8.6)), 12, 20, "kind"),
  label(short(`${host.vtep ?? ""}  ${state}`, letters), 12, 37, "soft"));
  host.shown.forEach((one, place) => {
    const high = HEAD + place * LINE;
    const role = one.address === chosen.from ? "from" : one.address === chosen.to ? "to" : "";
    places.set(one.address, { top: y - GAP / 2, y: y + high + LINE / 2 - 2, edge: x + width - 8, gap: x + width + GAP / 2 });
    group.append(shape("g", {
      class: `endpoint ${role} ${found(one, asked) ? "found" : ""}`, "data-address": one.address,
      click: (event) => { event.stopPropagation(); pickEnd(one.address, chosen); },
    },
    shape("title", {}, `${named(one)} ${one.address} ${one.mac}`),
    shape("rect", { class: "chip", x: 8, y: high, width: width - 16, height: LINE - 4, rx: 5 }),
    label(short(one.names[0] ? `${one.names[0]}  ${one.address}` : one.address, letters), 14, high + 14)));
  });
  const beyond = host.endpoints.length - host.shown.length;
  if (beyond > 0) group.append(label(`and ${beyond} more: search for them`, 14, HEAD + host.shown.length * LINE + 14, "soft"));
  return group;
}

/** The first click says from where, the second to where; one on a chosen end takes it back. */
function pickEnd(address, chosen) {
  if (chosen.from === address) choose({ from: null });
  else if (chosen.to === address) choose({ to: null });
  else if (!chosen.from) choose({ from: address });
  else choose({ to: address });
}

/** Between the boxes: out to the right, up into the gap above the first one's row, along it, and down beside the other. */
function link(from, to, found) {
  if (!from || !to || from === to) return null;
  const kind = !found ? "unseen" : found.first_wrong !== null ? "wrong" : found.stations.some((one) => one.state === "unseen") ? "unseen" : "";
  const across = from.gap === to.gap ? "" : `V ${from.top} H ${to.gap} `;
  return shape("path", { class: `link ${kind}`, d: `M ${from.edge} ${from.y} H ${from.gap} ${across}V ${to.y} H ${to.edge}`, "pointer-events": "none" });
}

// -- the way between two -----------------------------------------------------------------------------------------------

/** At which station of the drawing a hop of the trace lies. */
const STATIONS = {
  "container route": "container", "container neighbour": "container", "container link": "container", endpoint: "container",
  veth: "veth", "bridge port": "veth", "bridge row": "veth", bridge: "bridge", "overlay firewall": "bridge", overlay: "bridge",
  "VXLAN port": "vtep", "VXLAN device": "vtep", "host firewall": "vtep", "underlay route": "vtep", definition: "vtep",
  record: "neighbour", "neighbour row": "neighbour", "FDB row": "fdb", underlay: "underlay",
};

/** The way with the wrong hop that the pair's trace named: it saw more than the tables tell. */
function marked(way, named) {
  if (!way || !named) return way;
  const fits = (one) => one.kind === STATIONS[named.hop] && (one.kind === "underlay" || one.where === named.host);
  const place = named.late ? way.stations.findLastIndex(fits) : way.stations.findIndex(fits);
  if (place < 0) return way;
  const saw = `${named.hop}: ${named.saw} (traced at ${named.at})`;
  const stations = way.stations.map((one, at) => (at === place ? { ...one, state: "wrong", saw } : one));
  const first = way.first_wrong === null ? place : Math.min(place, way.first_wrong);
  return { stations, first_wrong: first };
}

const KINDS = { container: "container", veth: "veth", bridge: "bridge", neighbour: "VXLAN, neighbour row", fdb: "VXLAN, FDB row", vtep: "VTEP", underlay: "underlay" };

function way(data, chosen) {
  const target = $("way");
  if (!data) {
    target.replaceChildren(...(chosen.from && chosen.to ? [element("p", { class: "hint" }, "These are no two endpoints of this overlay now.")]
      : [element("p", { class: "hint" }, "Choose two containers to see the way between them; choose a host to see its tables.")]));
    return;
  }
  const { stations } = data;
  const wide = Math.max(300, Math.min(820, target.clientWidth || 820));
  const parts = [];
  stations.forEach((one, place) => {
    const y = place * STEP;
    if (place === 0 || stations[place - 1].where !== one.where) {
      const last = stations.findIndex((next, later) => later > place && next.where !== one.where);
      const count = (last < 0 ? stations.length : last) - place;
      parts.push(shape("rect", { class: "ground", x: 0, y: y + 2, width: wide, height: count * STEP - 4, rx: 6 }));
      parts.push(shape("text", { class: "soft", x: wide - 10, y: y + 18, "text-anchor": "end" }, short(one.where, 34)));
    }
  });
  stations.forEach((one, place) => {
    const y = place * STEP + STEP / 2;
    if (place) parts.push(shape("line", { class: "rail", x1: 20, x2: 20, y1: y - STEP + 8, y2: y - 8 }));
    parts.push(shape("circle", { class: `stop ${one.state}`, cx: 20, cy: y, r: 7, "data-state": one.state, "data-kind": one.kind }));
    const letters = Math.floor((wide - 50) / 7.2);
    parts.push(shape("text", { x: 38, y: y - 4 }, shape("tspan", { class: "kind" }, `${KINDS[one.kind] || one.kind} `), short(one.name, 26)));
    parts.push(label(short(one.saw, letters), 38, y + 13, one.state === "wrong" ? "wrong-text" : "soft"));
  });
  const wrong = data.first_wrong === null ? null : stations[data.first_wrong];
  const open = stations.filter((one) => one.state === "unseen").length;
  const verdict = wrong ? `The first wrong station: ${KINDS[wrong.kind] || wrong.kind} on ${wrong.where}: ${wrong.saw}`
    : open ? `Nothing wrong is known; ${open} stations are not told yet.` : "Every station is as it should be.";
  target.replaceChildren(
    element("p", { class: wrong ? "bad tag" : open ? "warn tag" : "good tag", id: "verdict", role: "status" }, verdict),
    shape("svg", { viewBox: `0 0 ${wide} ${stations.length * STEP}`, width: wide, height: stations.length * STEP, "aria-hidden": "true", id: "way-picture" }, ...parts),
    element("ol", { class: "visually-hidden" }, ...stations.map((one) => element("li", {}, `${one.where}: ${KINDS[one.kind] || one.kind} ${one.name}, ${one.state}: ${one.saw}`))));
}

// -- a host's tables ---------------------------------------------------------------------------------------------------

function tables(data, chosen) {
  const target = $("tables");
  const host = data.hosts.find((one) => one.id === chosen.host);
  if (!host) {
    target.replaceChildren();
    return;
  }
  const told = data.tables[host.id];
  if (!told) {
    target.replaceChildren(element("h3", {}, `Tables of ${host.name}`), element("p", { class: "hint" }, "Not told yet: the host is asked through the store."));
    return;
  }
  const asked = words();
  const when = told.told === null ? "read now" : `told at ${new Date(told.told * 1000).toLocaleTimeString()}`;
  const rows = (table) => told.rows.filter((row) => row[0] === table && matches(asked, row));
  const one = (title, heads, body) => element("div", { class: "scroll tall", role: "region", tabindex: 0, "aria-label": `${title} of ${host.name}` },
    element("table", {}, element("caption", {}, `${title} (${body.length})`),
      element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, ...body.map((cells) => element("tr", {}, ...cells.map((text) => element("td", { class: "code" }, text || "–")))))));
  target.replaceChildren(
    element("h3", {}, `Tables of ${host.name}`),
    element("p", { class: "hint" }, [when, told.more ? `${told.more} more rows are there` : "", told.trouble].filter(Boolean).join("; ")),
    one("Neighbours", ["Address", "MAC", "State"], rows("arp").map((row) => row.slice(1))),
    one("FDB", ["MAC", "VTEP", "State"], rows("fdb").map((row) => row.slice(1))),
    one("Ports", ["Container", "Port of the bridge"], Object.entries(told.ports)));
}
