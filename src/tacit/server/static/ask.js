// A problem, answered by the plain model and by the one with memory, side by side.

import { badge, facts, h, memoryLink, number, whole } from "./dom.js";
import { call, get } from "./api.js";

export async function ask({ main, signal, tell }) {
  const problem = h("textarea", { name: "problem", rows: 3, required: true, maxlength: "100000" });
  const learn = h("input", { type: "checkbox", name: "learn" });
  const button = h("button", { type: "submit", class: "main" }, "Ask");
  const answers = h("div", { class: "pair", "aria-live": "polite" });
  const form = h("form", { onsubmit: async event => {
    event.preventDefault();
    if (!problem.value.trim()) return;
    button.disabled = true;
    tell(null);
    answers.replaceChildren(h("p", { class: "faint" }, "Answering …"));
    try {
      const { data: [plain, memory] } = await get("/v1/models", signal);
      const found = await Promise.all([plain, memory].map(model => call("POST", "/v1/chat/completions", {
        model: model.id, messages: [{ role: "user", content: problem.value }], temperature: 0,
        tacit: { learn: model === memory && learn.checked },
      }, signal)));
      answers.replaceChildren(shown("Without memory", found[0]), shown("With memory", found[1]));
    } catch (error) {
      if (signal.aborted) return;
      answers.replaceChildren();
      tell(error);
    } finally {
      button.disabled = false;
    }
  } },
    h("label", {}, "Problem", problem),
    h("div", { class: "row" }, button, h("label", {}, learn, " learn from it")));
  problem.addEventListener("keydown", event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
  main.append(form, answers);
}

function shown(title, { model, choices: [choice], usage, tacit }) {
  return h("section", { class: "card" }, h("h2", {}, title), h("p", { class: "faint" }, model),
    h("pre", { class: "answer", tabindex: "0" }, choice.message.content || "(no text)"),
    facts([
      ["route", badge(tacit.route)], ["why", tacit.why || "–"],
      ...(tacit.memory ? [["memory", memoryLink(tacit.memory)], ["similarity", number(tacit.similarity, 3)]] : []),
      ["tokens", whole(usage.completion_tokens)], ["learning", tacit.learning],
    ]));
}
