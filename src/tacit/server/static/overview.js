// The server at a glance: whether memory helps and by which evidence, its state, what routing made of the requests over
// time, and the latest of them.

import { badge, clock, facts, h, memoryLink, number, percent, row, table, whole } from "./dom.js";
import { get } from "./api.js";
import { chart } from "./charts.js";

const SHOWN = 25, KEPT = 500, MINUTES = 60, FEWEST = 10; // the server keeps as many
const UNJUDGED = ["asked with the memory alone", "routing is off: the memory's answer is taken"]; // whys of an answer with memory that nobody compared
const X = { range: (_, low, high) => [low - 30, high + 30] }; // half a minute more, for the outer bars
const ROUTES = [["off", "memory off"], ["no_memory", "no memory"], ["agree", "agree"], ["memory", "memory"], ["zero_shot", "zero-shot"]];
const COLUMNS = [{ name: "Time" }, { name: "Problem", text: true }, { name: "Route" }, { name: "Memory" },
  { name: "Similarity", number: true }, { name: "Seconds", number: true }, { name: "Tokens", number: true }, { name: "Learning", text: true }];

export async function overview({ main, signal, repeat }) {
  const verdict = h("section", { class: "card verdict" });
  const state = h("div", { class: "cards" });
  let status = null, counted = {}, answers = null;
  const say = () => answers && status && verdict.replaceChildren(...judged(answers, status));
  let minutes = lastMinutes([]);
  const bars = uPlot.paths.bars({ size: [0.8, 24] });
  const routes = chart({
    label: "Answers per minute by route, over the last hour",
    scales: { x: X, y: { range: (_, low, high) => [0, Math.max(4, Math.ceil((high || 0) * 1.1))] } },
    yValues: (_, splits) => splits.map(value => Number.isInteger(value) ? String(value) : ""),
    // Bars are stacked by drawing the highest sum first; the legend says each route's own number.
    series: ROUTES.map(([name, text], at) => ({ name, text, at })).reverse().map(({ name, text }) => ({
      label: text, colour: `--route-${name}`, fill: true, width: 0, paths: bars, points: { show: false },
      value: (_, __, ___, index) => whole((index === null || index === undefined ? counted : minutes[index]?.routes)?.[name] || 0),
    })),
  }, stacked(minutes));
  const shares = chart({
    label: "Share of the compared answers that agree with and without memory, over the last hour",
    scales: { x: X, y: { range: [0, 1] } },
    yValues: (_, splits) => splits.map(percent),
    series: [{ label: "agreement", colour: "--route-agree", points: { show: true, size: 6 }, spanGaps: true,
      value: (_, value, __, index) => percent(index === null || index === undefined ? share(counted) : value) }],
  }, agreements(minutes));
  const feed = h("div");
  main.append(
    verdict, state,
    h("section", {}, h("h2", {}, "Answers per minute"), routes.element),
    h("section", {}, h("h2", {}, "Agreement of the answers with and without memory"), shares.element),
    h("section", {}, h("h2", {}, "Latest answers"), feed),
  );

  repeat(10_000, async () => {
    status = await get("/tacit/v1/status", signal);
    state.replaceChildren(...cards(status));
    say();
  });
  let last = 0, first = true;
  await repeat(2_000, async () => {
    const page = await get(`/tacit/v1/feed?after=${last}`, signal);
    if (page.last < last) answers = null; // the server has been restarted
    const news = page.last !== last;
    last = page.last;
    answers = [...page.answers.reverse(), ...answers || []].slice(0, KEPT);
    minutes = lastMinutes(page.minutes);
    counted = Object.fromEntries(ROUTES.map(([name]) => [name, minutes.reduce((sum, minute) => sum + (minute.routes[name] || 0), 0)]));
    routes.set(stacked(minutes));
    shares.set(agreements(minutes));
    say();
    if (news || first) feed.replaceChildren(table("Latest answers", COLUMNS, answers.slice(0, SHOWN).map(shown), "Nothing has been asked since the server started."));
    first = false;
  });
}

// Whether memory helps, in a word, then why: of the answers that differ, how often the one with memory was judged better.
function judged(answers, status) {
  const hour = answers.filter(one => one.time > Date.now() / 1000 - 60 * MINUTES && !UNJUDGED.includes(one.why));
  const [agree, memory, plain] = ["agree", "memory", "zero_shot"].map(route => hour.filter(one => one.route === route).length);
  const all = agree + memory + plain, differ = memory + plain;
  const [low, high] = wilson(memory, differ);
  const [kind, word] = !all ? ["", "Not known yet"] : !differ ? ["", "It changes nothing"] : low > 0.5 ? ["good", "Yes"]
    : high < 0.5 ? ["bad", "No, it hurts"] : ["warn", "Too early to say"];
  const judge = hour.map(one => one.why?.match(/^(.+): [\d.]+ with memory/)?.[1]).find(Boolean);
  const part = (name, count, text) => {
    const one = h("span", { class: `part to-${name}` });
    one.style.flexGrow = count;
    return [one, h("li", {}, h("span", { class: `swatch to-${name}`, "aria-hidden": "true" }), `${whole(count)} ${text}`)];
  };
  const parts = [part("agree", agree, "the same with and without"), part("memory", memory, "better with memory"),
    part("zero_shot", plain, "better without")];
  return [
    h("h2", {}, "Does memory help right now? ", h("strong", { class: kind }, `${word}.`)),
    h("p", {}, !all ? `In the last hour no answer with memory was compared with one without. ${missing(status)}`
      : `In the last hour ${whole(all)} ${all === 1 ? "answer" : "answers"} with memory ${all === 1 ? "was" : "were"} compared with one without. ` + (differ
        ? `${whole(differ)} differed; the one with memory was judged better in ${whole(memory)} of these: ${percent(memory / differ)}, `
          + `95% interval ${percent(low)} to ${percent(high)}.` : "None differed.")),
    all ? h("div", { class: "parts", "aria-hidden": "true" }, parts.map(([one]) => one)) : "",
    all ? h("ul", { class: "key" }, parts.map(([, text]) => text)) : "",
    all ? h("p", { class: "faint" }, `Better by the server’s own judge${judge ? ` (${judge})` : ""}, or because the other gave no answer. `
      + "No right answer is known here; to measure with right answers, use tacit run.") : "",
  ];
}

// What has to happen first.
function missing(status) {
  const { active, candidate } = status.memories;
  if (active) return `${whole(active)} ${active === 1 ? "memory is" : "memories are"} in use: send problems to ${status.model}:tacit.`;
  return candidate ? "No memory is in use yet: the candidates must first help on other problems of their kind."
    : `There is no memory yet: send problems to ${status.model}:tacit with a key that may learn.`;
}

// 95 % interval of a share.
function wilson(hits, n, z = 1.96) {
  if (!n) return [0, 1];
  const share = hits / n, scale = 1 + z * z / n, middle = share + z * z / (2 * n);
  const half = z * Math.sqrt(share * (1 - share) / n + z * z / (4 * n * n));
  return [(middle - half) / scale, (middle + half) / scale];
}

function cards(status) {
  const { runs, alive, failing, reason } = status.learner;
  const learner = !runs ? "none on this server" : failing ? "FAILING" : alive ? "running" : "not running";
  const last = runs && reason ? `: ${reason}` : "";
  const counts = found => facts(Object.entries(found).map(([name, count]) => [name, whole(count)]));
  const restarts = status.learner.restarts ? `, restarted ${status.learner.restarts} times` : "";
  return [
    h("section", { class: "card" }, h("h2", {}, "Server"), facts([
      ["model", status.model], ["namespace", status.namespace], ["learner", learner + restarts + last],
      ["requests", status.draining ? "no new ones: it is shutting down" : "are taken"]])),
    h("section", { class: "card" }, h("h2", {}, "Memories"), counts(status.memories)),
    h("section", { class: "card" }, h("h2", {}, "Queue"), counts(status.jobs)),
  ];
}

const shown = one => row(COLUMNS, [
  clock(one.time), [one.problem, h("div", { class: "faint" }, one.why || "")], one.route ? badge(one.route) : "–",
  one.memory ? memoryLink(one.memory, one.memory.slice(0, 8)) : "–", number(one.similarity, 3), number(one.seconds), whole(one.tokens), one.learning,
]);

// One entry for each minute, also for those without answers: since the first answer of the last hour.
function lastMinutes(found) {
  const known = new Map(found.map(minute => [minute.time, minute]));
  const now = Math.floor(Date.now() / 60_000) * 60;
  const first = found.find(minute => minute.time > now - 60 * MINUTES)?.time ?? now;
  const count = Math.max(FEWEST, (now - first) / 60 + 1);
  return Array.from({ length: count }, (_, at) => now - 60 * (count - 1 - at)).map(time => known.get(time) || { time, requests: 0, routes: {} });
}

function stacked(minutes) {
  const sums = minutes.map(() => 0);
  const columns = ROUTES.map(([name]) => minutes.map((minute, at) => (sums[at] += minute.routes[name] || 0)));
  return [minutes.map(minute => minute.time), ...columns.reverse()];
}

const share = ({ agree = 0, memory = 0, zero_shot: zero = 0 }) => agree + memory + zero ? agree / (agree + memory + zero) : null;

const agreements = minutes => [minutes.map(minute => minute.time), minutes.map(minute => share(minute.routes))];
