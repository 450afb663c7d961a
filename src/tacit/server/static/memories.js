// All memories, a page at a time: the server filters, sorts and cuts. What is chosen stands in the address. Below, the map.

import { badge, h, memoryLink, number, row, select, table, time, whole } from "./dom.js";
import { get } from "./api.js";
import { map } from "./map.js";

const ROWS = 50;
const STATES = [["", "all"], ["active", "active"], ["candidate", "candidate"], ["quarantined", "quarantined"], ["retired", "retired"]];
const COLUMNS = [{ name: "Problem", text: true }, { name: "State" }, { name: "Label", text: true }, { name: "Vote share", number: true, sort: "share" },
  { name: "Uses", number: true, sort: "uses" }, { name: "Helped", number: true, sort: "helped" }, { name: "Hurt", number: true, sort: "hurt" },
  { name: "Created", sort: "created" }];

export async function memories({ main, query, signal, tell }) {
  const chosen = { state: "", sort: "created", order: "desc", q: "", page: 1, ...Object.fromEntries(query) };
  chosen.page = Math.max(1, Number(chosen.page) || 1);
  const found = h("div"), paging = h("div", { class: "row" });
  let typing;
  const search = h("input", { type: "search", name: "q", value: chosen.q, autocomplete: "off", oninput: () => {
    clearTimeout(typing);
    typing = setTimeout(() => change({ q: search.value }), 250);
  } });
  main.append(
    h("form", { class: "row", onsubmit: event => { event.preventDefault(); change({ q: search.value }); } },
      h("label", {}, "State ", select("state", STATES, chosen.state, state => change({ state }))),
      h("label", {}, "Problem contains ", search)),
    found, paging);

  function change(changes, keep) {
    Object.assign(chosen, { page: 1 }, changes);
    history.replaceState(null, "", `#/memories?${new URLSearchParams(chosen)}`);
    return load(keep);
  }

  let asked = 0;
  async function load(keep) {
    const own = ++asked;
    const { state, sort, order, q, page } = chosen;
    const wanted = new URLSearchParams({ sort, order, q, limit: ROWS, offset: ROWS * (page - 1), ...(state ? { state } : {}) });
    try {
      const { total, memories: rows } = await get(`/tacit/v1/memories?${wanted}`, signal);
      if (own !== asked) return; // something else has been chosen meanwhile
      tell(null);
      const columns = COLUMNS.map(column => column.sort ? { ...column, ...sorter(column) } : column);
      found.replaceChildren(table("Memories", columns, rows.map(shown), "There is no such memory."));
      const pages = Math.max(1, Math.ceil(total / ROWS)), first = ROWS * (page - 1);
      const step = (text, to) => h("button", { type: "button", id: `to-${text}`, disabled: to < 1 || to > pages, onclick: () => change({ page: to }, `to-${text}`) }, text);
      paging.replaceChildren(step("Previous", page - 1), step("Next", page + 1),
        h("span", { role: "status" }, rows.length ? `${whole(first + 1)} to ${whole(first + rows.length)} of ${whole(total)}` : `none of ${whole(total)}`));
      if (keep) document.getElementById(keep)?.focus(); // the button has been made anew
    } catch (error) {
      if (!signal.aborted) tell(error);
    }
  }

  function sorter({ name, sort }) {
    const falling = chosen.sort === sort && chosen.order === "desc";
    const mark = chosen.sort !== sort ? "" : falling ? " ▾" : " ▴";
    return {
      sorted: chosen.sort !== sort ? null : falling ? "descending" : "ascending",
      control: h("button", { type: "button", class: "plain", id: `by-${sort}`, onclick: () => change({ sort, order: falling ? "asc" : "desc" }, `by-${sort}`) }, name + mark),
    };
  }

  await load();
  await map(main, signal);
}

const shown = one => row(COLUMNS, [memoryLink(one.id, one.problem.slice(0, 300) || one.id), badge(one.state), one.label ?? "–", number(one.share), whole(one.uses),
  whole(one.helped), whole(one.hurt), time(one.created)]);
