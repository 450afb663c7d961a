// What scrolls can be reached by keyboard, as long as it scrolls: wide tables, long lines of code, menus.
const scrolling = ".md-typeset__scrollwrap, pre > code, .md-sidebar__scrollwrap";

function reach() {
  for (const one of document.querySelectorAll(scrolling)) {
    const more = one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight;
    if (more) one.tabIndex = 0;
    else one.removeAttribute("tabindex");
  }
}

document$.subscribe(() => {  // the theme's: a page is there, and its tables are wrapped
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  reach();
});
window.addEventListener("resize", reach);
