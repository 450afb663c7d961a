// The server at a glance: its state, what routing made of the requests over time, and the latest of them.

import { badge, clock, facts, h, memoryLink, number, percent, row, table, whole } from "./dom.js";
import { get } from "./api.js";
import { chart } from "./charts.js";

const SHOWN = 25, MINUTES = 60, FEWEST = 10;
const X = { range: (_, low, high) => [low - 30, high + 30] }; // half a minute more, for the outer bars
const ROUTES = [["off", "memory off"], ["no_memory", "no memory"], ["agree", "agree"], ["memory", "memory"], ["zero_shot", "zero-shot"]];
const COLUMNS = [{ name: "Time" }, { name: "Problem", text: true }, { name: "Route" }, { name: "Memory" },
  { name: "Similarity", number: true }, { name: "Seconds", number: true }, { name: "Tokens", number: true }, { name: "Learning", text: true }];

export async function overview({ main, signal, repeat }) {
  const state = h("div", { class: "cards" });
  const agreement = h("p", { class: "faint" });
  let minutes = lastMinutes([]);
  const bars = uPlot.paths.bars({ size: [0.8, 24] });
  const routes = chart({
    label: "Answers per minute by route, over the last hour",
    scales: { x: X, y: { range: (_, low, high) => [0, Math.max(4, Math.ceil((high || 0) * 1.1))] } },
    yValues: (_, splits) => splits.map(value => Number.isInteger(value) ? String(value) : ""),
    // Bars are stacked by drawing the highest sum first; the legend says each route's own number.
    series: ROUTES.map(([name, text], at) => ({ name, text, at })).reverse().map(({ name, text }) => ({
      label: text, colour: `--route-${name}`, fill: true, width: 0, paths: bars, points: { show: false },
      value: (_, __, ___, index) => index === null || index === undefined ? "–" : String(minutes[index]?.routes[name] || 0),
    })),
  }, stacked(minutes));
  const shares = chart({
    label: "Share of the compared answers that agree with and without memory, over the last hour",
    scales: { x: X, y: { range: [0, 1] } },
    yValues: (_, splits) => splits.map(percent),
    series: [{ label: "agreement", colour: "--route-agree", points: { show: true, size: 6 }, spanGaps: true,
      value: (_, value) => percent(value) }],
  }, agreements(minutes));
  const feed = h("div");
  main.append(
    state,
    h("section", {}, h("h2", {}, "Answers per minute"), routes.element),
    h("section", {}, h("h2", {}, "Agreement"), agreement, shares.element),
    h("section", {}, h("h2", {}, "Latest answers"), feed),
  );

  repeat(10_000, async () => state.replaceChildren(...cards(await get("/tacit/v1/status", signal))));
  let last = 0, answers = [], first = true;
  await repeat(2_000, async () => {
    const page = await get(`/tacit/v1/feed?after=${last}`, signal);
    if (page.last < last) answers = []; // the server has been restarted
    const news = page.last !== last;
    last = page.last;
    answers = [...page.answers.reverse(), ...answers].slice(0, SHOWN);
    minutes = lastMinutes(page.minutes);
    routes.set(stacked(minutes));
    shares.set(agreements(minutes));
    const counted = name => minutes.reduce((sum, minute) => sum + (minute.routes[name] || 0), 0);
    const [agree, memory, zero] = ["agree", "memory", "zero_shot"].map(counted);
    agreement.textContent = agree + memory + zero === 0
      ? "In the last hour no answer with memory was compared with one without."
      : `Of ${agree + memory + zero} answers with a memory in the last hour, ${agree} agreed with the plain one; where they differed, `
        + `${memory} times the memory’s was taken, ${zero} times the plain one.`;
    if (news || first) feed.replaceChildren(table("Latest answers", COLUMNS, answers.map(shown), "Nothing has been asked since the server started."));
    first = false;
  });
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

function agreements(minutes) {
  return [minutes.map(minute => minute.time), minutes.map(({ routes: { agree = 0, memory = 0, zero_shot: zero = 0 } }) =>
    agree + memory + zero ? agree / (agree + memory + zero) : null)];
}
