// Which page is shown: by the address's hash. A page is a function of (main, rest, query, signal); the signal ends it.

import { h } from "./dom.js";
import { overview } from "./overview.js";
import { memories } from "./memories.js";
import { memory } from "./memory.js";
import { queue } from "./queue.js";
import { ask } from "./ask.js";

const ROUTES = [
  [/^\/?$/, overview, "Overview"],
  [/^\/memories$/, memories, "Memories"],
  [/^\/memories\/(.+)$/, memory, "Memory"],
  [/^\/queue$/, queue, "Queue"],
  [/^\/ask$/, ask, "Try it"],
];

const main = document.getElementById("page"), problem = document.getElementById("error");
let ending = new AbortController();

function tell(error) {
  if (error?.name === "AbortError") return;
  problem.textContent = error ? error.message : "";
  problem.hidden = !error;
}

// Runs ``work`` now and every so many milliseconds while the page can be seen; says what fails, and when it works again.
async function repeat(signal, milliseconds, work) {
  let failed = false;
  while (!signal.aborted) {
    if (document.visibilityState === "visible") {
      try {
        await work();
        if (failed && !signal.aborted) tell(null);
        failed = false;
      } catch (error) {
        if (signal.aborted) return;
        failed = true;
        tell(error);
      }
    }
    await new Promise(done => {
      const timer = setTimeout(done, milliseconds);
      signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
    });
  }
}

async function show(focus) {
  ending.abort();
  ending = new AbortController();
  const { signal } = ending;
  const [path, search = ""] = location.hash.slice(1).split("?");
  const found = ROUTES.find(([pattern]) => pattern.test(path));
  tell(found ? null : new Error("There is no such page."));
  const [pattern, page, title] = found || ROUTES[0];
  const part = found ? decoded(path.match(pattern)[1]) : undefined;
  document.title = `${title} · Tacit`;
  for (const link of document.querySelectorAll("nav a")) {
    const own = link.getAttribute("href").slice(1);
    const here = own === "/" ? page === overview : path.startsWith(own);
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  const heading = h("h1", { tabindex: "-1" }, title);
  main.replaceChildren(heading);
  if (focus) { heading.focus({ preventScroll: true }); scrollTo(0, 0); }
  try {
    await page({
      main, part, query: new URLSearchParams(search), signal, tell,
      repeat: (milliseconds, work) => repeat(signal, milliseconds, work),
      again: () => show(false),
    });
  } catch (error) {
    if (!signal.aborted) tell(error);
  }
}

function decoded(part) {
  try { return part && decodeURIComponent(part); } catch { return part; }
}

addEventListener("hashchange", () => show(true));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(false)); // charts are drawn in colours
show(false);
