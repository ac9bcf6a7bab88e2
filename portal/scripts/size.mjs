/**
 * Fails if the page is too big. Sizes are gzipped, as they are transferred: JavaScript and CSS until the list of people
 * can be used (the entry, the seat dialog and the largest language), and all screens together.
 */
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const SEAT_LIST = 175_000;
const ALL = 260_000;
const SEAT_LIST_ENTRIES = ["index.html", "src/seats/SeatDialog.tsx"];

const dist = new URL("../dist/", import.meta.url);
const manifest = JSON.parse(readFileSync(new URL(".vite/manifest.json", dist), "utf8"));
const sizes = new Map();

function sizeOf(file) {
  if (!sizes.has(file)) sizes.set(file, gzipSync(readFileSync(new URL(file, dist))).length);
  return sizes.get(file);
}

function filesOf(name, found = new Set()) {
  const chunk = manifest[name];
  if (chunk === undefined || found.has(chunk.file)) return found;
  found.add(chunk.file);
  for (const style of chunk.css ?? []) found.add(style);
  for (const imported of chunk.imports ?? []) filesOf(imported, found);
  return found;
}

const sum = (files) => [...files].reduce((total, file) => total + sizeOf(file), 0);
const languages = Object.keys(manifest).filter((name) => name.startsWith("src/messages/"));
if (languages.length < 3) throw new Error("Each language must be a chunk of its own.");
const largest = Math.max(...languages.map((name) => sum(filesOf(name))));
const first = new Set(SEAT_LIST_ENTRIES.flatMap((name) => [...filesOf(name)]));
const everything = new Set(
  Object.keys(manifest).filter((name) => !languages.includes(name)).flatMap((name) => [...filesOf(name)]),
);

const measured = [
  ["until the seat list can be used", sum(first) + largest, SEAT_LIST],
  ["all screens", sum(everything) + largest, ALL],
];
for (const [what, bytes, limit] of measured) {
  console.log(`${(bytes / 1000).toFixed(1)} kB gzip, ${what} (at most ${limit / 1000} kB)`);
}
if (measured.some(([, bytes, limit]) => bytes > limit)) {
  console.error("The portal is too big.");
  process.exit(1);
}
