/** Takes pictures of the main states at three widths, into portal/screenshots. Names as arguments choose some. */
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { placeOf, prepare, STATES } from "./states.ts";
import { startWorld, visit } from "./world.ts";
import { words } from "./words.ts";

const WIDTHS = [320, 768, 1280];
const LOOKS = { "": {}, "-dark": { theme: "dark" }, "-rtl": { locale: "ar-XB" } } as const;
const directory = fileURLToPath(new URL("../screenshots/", import.meta.url));
const wanted = process.argv.slice(2);
const chosen = STATES.filter(({ name }) => wanted.length === 0 || wanted.includes(name));

mkdirSync(directory, { recursive: true });
const world = await startWorld();
try {
  const prepared = await prepare(world);
  for (const state of chosen) {
    for (const [suffix, look] of Object.entries(LOOKS)) {
      for (const width of suffix === "" ? WIDTHS : [suffix === "-rtl" ? 320 : 1280]) {
        const { who, path } = placeOf(state, prepared);
        const size = { width, height: width === 320 ? 720 : 860 };
        const visitor = await visit(world, who, path, { ...look, ...size }, (early) => state.before?.(early, prepared) ?? Promise.resolve());
        await state.reach?.(visitor, words("locale" in look ? look.locale : "en"), prepared);
        await visitor.page.locator(state.shows).first().waitFor();
        await visitor.page.waitForTimeout(150);
        await visitor.page.screenshot({ path: `${directory}${state.name}-${width}${suffix}.png` });
        await visitor.close();
      }
    }
    console.log(state.name);
  }
} finally {
  await world.stop();
}
