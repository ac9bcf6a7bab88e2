/** Takes pictures of the main states at three widths, into portal/screenshots. `STATES` may name some. */
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { opened, prepare, STATES } from "./states.ts";
import { startWorld } from "./world.ts";

const HEIGHTS = { 320: 720, 768: 860, 1280: 860 } as const;
const LOOKS = {
  "": { widths: [320, 768, 1280] },
  "-dark": { theme: "dark", widths: [1280] },
  "-rtl": { locale: "ar-XB", widths: [320] },
} as const;
const directory = fileURLToPath(new URL("../screenshots/", import.meta.url));
const wanted = process.env["STATES"]?.split(" ") ?? STATES.map(({ name }) => name);

mkdirSync(directory, { recursive: true });
const world = await startWorld();
try {
  const prepared = await prepare(world);
  for (const state of STATES.filter(({ name }) => wanted.includes(name))) {
    for (const [suffix, { widths, ...look }] of Object.entries(LOOKS)) {
      for (const width of widths) {
        const { page, close } = await opened(world, state, prepared, { ...look, width, height: HEIGHTS[width] });
        await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finished)));
        await page.screenshot({ path: `${directory}${state.name}-${width}${suffix}.png` });
        await close();
      }
    }
    console.log(state.name);
  }
} finally {
  await world.stop();
}
