// The map of the bank: its most used active memories in the plane, near where their keys are near; once coloured by kind,
// once by what they did. Colours and counts stand in the legend at all times; pointing at a memory says its problem.

import { h, percent, whole } from "./dom.js";
import { get } from "./api.js";
import { chart } from "./charts.js";

const COLOURS = ["--route-agree", "--route-zero_shot", "--route-memory", "--route-off", "--warn"], REST = "--route-no_memory";
const BENEFITS = [["helped", "helped more than it hurt", COLOURS[0]], ["hurt", "hurt more than it helped", COLOURS[1]],
  ["level", "as often", COLOURS[2]], ["not recalled", "not recalled yet", REST]];
const EDGE = { range: [-108, 108] };
const SHORT = 40;

export async function map(main, signal) {
  const { places, active, shown } = await get("/tacit/v1/map", signal);
  if (signal.aborted || places.length < 3) return; // fewer have no neighbourhoods
  const found = places.toSorted((one, other) => one.x - other.x);
  const kinds = 1 + Math.max(...places.map(one => one.kind));
  const named = COLOURS.slice(0, kinds).map((colour, kind) =>
    [short(places.find(one => one.kind === kind).problem), colour, one => one.kind === kind]);
  const apart = named.length;
  if (kinds > apart) named.push([`${whole(kinds - apart)} other kinds`, REST, one => one.kind >= apart]);
  const judged = BENEFITS.map(([benefit, text, colour]) => [text, colour, one => one.benefit === benefit]);
  const few = places.length < active ? `The ${whole(places.length)} most used of ${whole(active)} active memories` : `All ${whole(active)} active memories`;
  const all = `Map of ${whole(places.length)} memories`;
  main.append(
    h("section", {}, h("h2", {}, `Map by kind (${whole(kinds)})`),
      h("p", { class: "faint" }, `${few}. Near means similar keys; the plane shows ${percent(shown)} of their differences.`),
      points(found, `${all} by kind`, named)),
    h("section", {}, h("h2", {}, "Map by what they did"), points(found, `${all} by what they did`, judged)));
}

// groups: [name, colour, belongs]; each is a series of points.
function points(found, label, groups) {
  const counted = groups.map(([name, , belongs]) => [name, found.filter(belongs).length]);
  return chart({
    label: `${label}: ${counted.map(([name, count]) => `${name} ${count}`).join("; ")}`, height: 300, xTime: false, xName: "problem",
    scales: { x: EDGE, y: EDGE }, xValues: blank, yValues: blank,
    xValue: (_, __, ___, at) => at === null || at === undefined ? "point at one" : short(found[at].problem),
    series: groups.map(([name, colour], at) => ({
      label: name, colour, fill: true, width: 0, paths: () => null, points: { show: true, size: 7 }, value: () => whole(counted[at][1]),
    })),
  }, [found.map(one => one.x), ...groups.map(([, , belongs]) => found.map(one => belongs(one) ? one.y : null))]).element;
}

const blank = (_, splits) => splits.map(() => "");
const short = text => text.length > SHORT ? `${text.slice(0, SHORT)}…` : text;
