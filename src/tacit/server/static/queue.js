// The latest learning jobs, with what is being done and what came of it.

import { badge, h, memoryLink, row, select, table, time, whole } from "./dom.js";
import { call, get } from "./api.js";

const ROWS = 100;
const STATES = [["", "all"], ["queued", "queued"], ["learning", "learning"], ["done", "done"], ["failed", "failed"]];
const COLUMNS = [{ name: "Problem", text: true }, { name: "State" }, { name: "What came of it", text: true }, { name: "Attempts", number: true },
  { name: "Submitted" }, { name: "Seconds", number: true }];

export async function queue({ main, query, signal, tell, repeat, again }) {
  const state = STATES.some(([name]) => name === query.get("state")) ? query.get("state") : "";
  const found = h("div"), counted = h("p", { class: "faint", role: "status" });
  const choose = chosen => {
    history.replaceState(null, "", chosen ? `#/queue?state=${chosen}` : "#/queue");
    again();
    document.querySelector("select[name=state]")?.focus();
  };
  main.append(h("form", { class: "row", onsubmit: event => event.preventDefault() },
    h("label", {}, "State ", select("state", STATES, state, choose))), counted, found);
  const retry = async job => {
    try {
      await call("POST", `/tacit/v1/jobs/${encodeURIComponent(job.id)}/retry`, {}, signal);
      again();
    } catch (error) {
      tell(error);
    }
  };
  let before = null;
  await repeat(3_000, async () => {
    const { jobs } = await get(`/tacit/v1/jobs?limit=${ROWS}${state ? `&state=${state}` : ""}`, signal);
    const now = JSON.stringify(jobs);
    if (now === before) return; // leave the table alone: somebody may be reading it
    before = now;
    counted.textContent = jobs.length < ROWS ? `${whole(jobs.length)} ${jobs.length === 1 ? "job" : "jobs"}, newest first.` : `The latest ${ROWS} jobs, newest first.`;
    found.replaceChildren(table("Jobs", COLUMNS, jobs.map(job => shown(job, retry)), "There is no such job."));
  });
}

const shown = (job, retry) => row(COLUMNS, [job.problem.slice(0, 300), badge(job.state), result(job, retry), whole(job.attempts), time(job.created),
  job.started && job.finished ? (job.finished - job.started).toFixed(1) : "–"]);

function result(job, retry) {
  if (job.error) return [h("span", { class: "bad" }, job.error), " ", h("button", { type: "button", onclick: () => retry(job) }, "Try again")];
  if (job.memory_id) return [job.outcome || "", " ", memoryLink(job.memory_id, "memory")];
  if (job.outcome) return job.outcome;
  if (!job.progress) return "–";
  return Object.entries(job.progress).map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
}
