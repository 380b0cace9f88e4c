// The trace of the chosen pair, as `myoverlay trace` has it: asked for by a button, and for one pair at a time.
import { element } from "/page.js";

/** Milliseconds between two questions for the result, and how often it is asked for: a little longer than it may take. */
const PAUSE = 400;
const OFTEN = 60;
const $ = (id) => document.getElementById(id);
const SIGNS = { right: "ok", wrong: "wrong", unseen: "not seen" };
const TAGS = { right: "good", wrong: "bad", unseen: "warn" };

let shown = "";
let turn = 0;
/** The number of the trace that is shown: asked for again, a newer one is wanted. */
let had = 0;

/** What the pair is called in the address of the data; empty where no pair is chosen. */
const pairOf = ({ overlay, from, to }) => (overlay && from && to && from !== to ? new URLSearchParams({ overlay, from, to }).toString() : "");

/** What the last trace of the chosen pair named: {hop, host, saw, late, at}, `late`: it is nearer to the end; else null. */
let named = null;
export const traced = () => named;

function name(found, when) {
  const first = found ? found.first : null;
  const before = JSON.stringify(named);
  named = first === null ? null
    : { ...found.steps[first], late: first >= found.steps.length / 2, at: when };
  if (JSON.stringify(named) !== before) document.dispatchEvent(new Event("traced"));
}

/** Another pair is chosen: what was said of the one before goes. */
export function chose(chosen) {
  const pair = pairOf(chosen);
  $("trace-pair").disabled = !pair;
  if (pair === shown) return;
  turn += 1;
  shown = pair;
  named = null;
  $("trace").hidden = true;
  $("trace").replaceChildren();
}

function say(kind, text, ...more) {
  $("trace").hidden = false;
  $("trace").replaceChildren(element("p", { class: `tag ${kind}`, id: "trace-verdict", role: "status" }, text), ...more);
}

/** Have the pair traced, and show what came of it. */
export async function trace(chosen) {
  const pair = pairOf(chosen);
  if (!pair) return;
  const mine = ++turn;
  shown = pair;
  say("warn", "Both hosts are asked…");
  name(null);
  for (let often = 0; often < OFTEN; often += 1) {
    let told;
    try {
      const answer = await fetch(`/data/trace?${pair}&had=${had}`, {
        headers: { "X-Myoverlay-Button": "trace" }, cache: "no-store", signal: AbortSignal.timeout(5000),
      });
      if (!answer.ok) throw new Error((await answer.text()).trim());
      told = await answer.json();
    } catch (error) {
      if (mine === turn) say("bad", `It could not be traced: ${error.message}`);
      return;
    }
    if (mine !== turn) return;
    if (told.state === "done") {
      had = told.number;
      paint(told);
      return;
    }
    if (told.state === "waits" && !often) say("warn", "One was traced just now: this one comes after a pause…");
    await new Promise((done) => setTimeout(done, PAUSE));
    if (mine !== turn) return;
  }
  say("bad", "It was not traced: others keep asking too. Try again, or use `myoverlay trace` on the host.");
}

function paint(told) {
  const { found } = told;
  if (!found) {
    say("bad", `It could not be traced: ${told.refused}`);
    return;
  }
  const wrong = found.first === null ? null : found.steps[found.first];
  const unseen = found.steps.filter((one) => one.state === "unseen").length;
  const [kind, verdict] = wrong
    ? ["bad", `The first wrong hop: ${wrong.hop} on ${wrong.host}: there is ${wrong.saw}`]
    : found.silent.length ? ["warn", `Nothing wrong is seen, but ${found.silent.join(", ")} did not say what is there`]
    : unseen ? ["warn", `The path is whole, as far as it is seen: ${unseen} hops are not`] : ["good", "The path is whole."];
  const advice = wrong ? [element("p", { id: "trace-remedy" }, `There should be ${wrong.wanted}. What repairs it: ${wrong.remedy}`)] : [];
  const rows = found.steps.map((one, place) =>
    element("tr", place === found.first ? { class: "first" } : {},
      element("td", {}, one.host), element("th", { scope: "row" }, one.hop),
      element("td", {}, element("span", { class: `tag ${TAGS[one.state] || "warn"}` }, SIGNS[one.state] || one.state)),
      element("td", { class: "wrap" }, one.saw)));
  const table = element("div", { class: "scroll hops", role: "region", tabindex: 0, "aria-label": "Hops of the path" },
    element("table", { id: "hops" },
      element("thead", {}, element("tr", {}, ...["Host", "Hop", "State", "Seen"].map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, ...rows)));
  const when = new Date(told.at * 1000).toLocaleTimeString();
  name(found, when);
  say(kind, verdict, ...advice, element("p", { class: "hint" }, `Traced at ${when}, as \u201cmyoverlay trace\u201d does it.`), table);
  // Its own frame scrolls to the wrong hop, and the page stays where it is.
  if (wrong) table.scrollTop = rows[found.first].offsetTop - 2 * rows[found.first].offsetHeight;
}
