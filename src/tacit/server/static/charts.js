// Charts by uPlot. They take their colours from the style sheet, so that both themes have their own.

import { h } from "./dom.js";

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// options: {label, series, scales, axes, ...} of uPlot; data: columns. Returns {element, set(data)}.
export function chart({ label, height = 190, series, scales = {}, xTime = true, xValues, xValue, yValues, xName }, data) {
  const element = h("div", { class: "chart", role: "img", "aria-label": label });
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 },
    font: "12px system-ui, sans-serif" };
  const named = series.map(({ colour: own, ...one }) => ({ stroke: colour(own), width: 2, ...one,
    ...(one.fill ? { fill: colour(own) } : {}), points: { fill: colour(own), ...one.points } }));
  let plot = null;
  const options = width => ({
    width, height, scales: { ...scales, x: { time: xTime, ...scales.x } },
    cursor: { drag: { x: false, y: false } },
    legend: { live: true },
    axes: [{ ...axis, values: xTime ? TIMES : xValues, incrs: xTime ? [60, 120, 300, 600, 900, 1800] : [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
      { ...axis, size: 54, ...(yValues ? { values: yValues } : {}) }],
    series: [{ label: xName || "time", value: xValue || ((_, x) => x === null || x === undefined ? (xTime ? "all shown" : "last") : xTime ? clockOf(x) : String(x)) }, ...named],
  });
  // uPlot needs a width in pixels: it is made when the element has one, and follows it.
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (!width) return;
    if (plot) plot.setSize({ width, height });
    else plot = new uPlot(options(width), data, element);
  }).observe(element);
  return {
    element,
    set(next) { data = next; if (plot) plot.setData(next); },
  };
}

const two = value => String(value).padStart(2, "0");
const clockOf = seconds => { const at = new Date(1000 * seconds); return `${two(at.getHours())}:${two(at.getMinutes())}`; };
const TIMES = (_, splits) => splits.map(clockOf);
