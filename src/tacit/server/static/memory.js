// One memory: what it is of, how it was learned, what became of it; and the buttons that change that.

import { badge, facts, h, memoryLink, number, row, table, time, whole } from "./dom.js";
import { call, get } from "./api.js";
import { chart } from "./charts.js";

const NEAR = [{ name: "Problem", text: true }, { name: "State" }, { name: "Similarity", number: true }];
const PAST = [{ name: "Time" }, { name: "Change" }, { name: "Reason", text: true }];

export async function memory({ main, part: id, signal, tell, again }) {
  const path = `/tacit/v1/memories/${encodeURIComponent(id)}`;
  const one = await get(path, signal);
  const { provenance } = one;
  const steps = one.steps.filter(step => typeof step?.reward === "number");
  const curve = steps.length > 1 && chart({
    label: `Reward at each of ${steps.length} steps of learning, from ${number(steps[0].reward)} to ${number(steps.at(-1).reward)}`,
    xTime: false, xName: "step", scales: { y: { range: (_, low, high) => [Math.min(0, low), Math.max(1, high)] } },
    series: [{ label: "mean reward", colour: "--accent", points: { show: steps.length < 40, size: 5 }, value: (_, value) => number(value ?? steps.at(-1).reward, 3) }],
  }, [steps.map((_, at) => at + 1), steps.map(step => step.reward)]);
  main.append(
    h("p", { class: "problem" }, one.problem),
    h("p", {}, badge(one.state), " ", one.reason),
    facts([
      ["label", one.label ?? "–"], ["vote share", number(one.share)], ["margin", number(one.margin)],
      ...(typeof provenance.belief === "number" ? [["verifier’s belief", number(provenance.belief)]] : []),
      ["uses", whole(one.uses)], ["agreed", whole(one.agreed)], ["helped", whole(one.helped)], ["hurt", whole(one.hurt)],
      ["virtual tokens", whole(one.prompt.tokens)],
      ["created", time(one.created)],
      ["norms", `${number(one.prompt.norm_low)} to ${number(one.prompt.norm_high)} (the model’s own embeddings: ${number(one.prompt.embedding_norm)})`],
      ["id", one.id], ["problem id", one.problem_id],
    ]),
    one.why ? h("p", { class: "faint" }, `Why this label: ${one.why}`) : "",
    changes(one, path, { signal, tell, again }),
    h("section", {}, h("h2", {}, "Reward while it was learned"), curve ? curve.element : h("p", { class: "faint" }, "There is no record of its steps.")),
    h("section", {}, h("h2", {}, "Nearest memories"), table("Nearest memories", NEAR, one.neighbours.map(near => row(NEAR,
      [memoryLink(near.id, near.problem.slice(0, 300) || near.id), badge(near.state), number(near.similarity, 3)])), "It is the only one.")),
    h("section", {}, h("h2", {}, "History"), table("History", PAST, one.history.map(step => row(PAST,
      [time(step.time), step.old ? `${step.old} → ${step.new}` : step.new, step.reason])), "There is none.")),
  );
}

function changes(one, path, { signal, tell, again }) {
  const reason = h("input", { name: "reason", maxlength: "1000", autocomplete: "off" });
  const act = async (method, where, done) => {
    try {
      const body = method === "DELETE" ? undefined : reason.value.trim() ? { reason: reason.value.trim() } : {};
      await call(method, where, body, signal);
      done();
    } catch (error) {
      tell(error);
    }
  };
  const dialog = h("dialog", { "aria-labelledby": "sure" },
    h("p", { id: "sure" }, "Delete this memory for good? It cannot be restored; a quarantined one can."),
    h("div", { class: "row" },
      h("button", { type: "button", class: "danger", onclick: () => { dialog.close(); act("DELETE", path, () => { location.hash = "#/memories"; }); } }, "Delete for good"),
      h("button", { type: "button", onclick: () => dialog.close() }, "Keep it")));
  const out = one.state === "quarantined" || one.state === "retired";
  return h("section", { class: "card" }, h("h2", {}, "Change it"), h("form", { class: "row", onsubmit: event => event.preventDefault() },
    h("label", { class: "grow" }, "Reason", reason),
    one.state === "quarantined" ? "" : h("button", { type: "button", onclick: () => act("POST", `${path}/quarantine`, again) }, "Quarantine"),
    one.state === "candidate" ? h("button", { type: "button", onclick: () => act("POST", `${path}/activate`, again) }, "Activate") : "",
    out ? h("button", { type: "button", onclick: () => act("POST", `${path}/restore`, again) }, "Restore") : "",
    h("a", { class: "button", href: `${path}/export`, download: "" }, "Export"),
    h("button", { type: "button", class: "danger", onclick: () => dialog.showModal() }, "Delete …")), dialog);
}
