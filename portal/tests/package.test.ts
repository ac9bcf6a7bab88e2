/** The components as another application has them: packed, installed, built without a plugin of ours, and shown. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { build } from "vite";
import { OWNER, startWorld, tokenOf, type World } from "./world.ts";

const PORTAL = fileURLToPath(new URL("..", import.meta.url));
const MEDIA = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" } as Record<string, string>;

/** The application. Types that were missing would be taken for anything, so one wrong use has to be refused. */
const MAIN = `
import { createRoot } from "react-dom/client";
import { elementsConfirmation, SeatDialog } from "@coseat/portal";
import "@coseat/portal/styles.css";

const payments = elementsConfirmation("pk_test_nobody");
// @ts-expect-error - a number is no address
export const wrong = () => <SeatDialog baseUrl={1} token="" />;
const root = createRoot(document.getElementById("root")!);
root.render(<SeatDialog baseUrl="" token={() => location.hash.slice(1)} payments={payments} locale="en" />);
`;
const PAGE = '<!doctype html><title>Application</title><div id="root"></div><script type="module" src="./main.tsx"></script>';
const TYPES = {
  compilerOptions: {
    target: "ES2023",
    lib: ["ES2023", "DOM", "DOM.Iterable"],
    module: "ESNext",
    moduleResolution: "bundler",
    jsx: "react-jsx",
    strict: true,
    noEmit: true,
    skipLibCheck: true,
    types: ["vite/client"],
  },
  include: ["main.tsx"],
};

let world: World;
/** It lies below the portal, so that it finds React and the like as if it had installed them. */
let application: string;

before(async () => {
  world = await startWorld();
  application = mkdtempSync(join(PORTAL, "application-"));
});
after(async () => {
  await world?.stop();
  if (application) rmSync(application, { recursive: true, force: true });
});

function install(...names: string[]): void {
  const packed = names.flatMap((name) => ["--workspace", `@coseat/${name}`]);
  execFileSync("npm", ["pack", "--silent", "--pack-destination", application, ...packed], { cwd: join(PORTAL, "..") });
  for (const name of names) {
    const place = join(application, "node_modules/@coseat", name);
    mkdirSync(place, { recursive: true });
    const [archive] = readdirSync(application).filter((file) => file.startsWith(`coseat-${name}-`));
    assert.ok(archive, name);
    execFileSync("tar", ["-xzf", join(application, archive), "--strip-components=1", "-C", place]);
  }
}

test("an application installs the components, builds them with Vite alone, and shows the dialog", async () => {
  install("client", "portal");
  for (const [file, text] of [["main.tsx", MAIN], ["index.html", PAGE], ["tsconfig.json", JSON.stringify(TYPES)]] as const) {
    writeFileSync(join(application, file), text);
  }
  execFileSync("npx", ["--no-install", "tsc", "--project", application], { cwd: PORTAL, stdio: "inherit" });
  await build({ root: application, base: "./", configFile: false, logLevel: "error", plugins: [react()] });

  const context = await world.browser.newContext({ locale: "en-GB" });
  const page = await context.newPage();
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.route(`${world.url}/application/**`, async (route) => {
    const file = new URL(route.request().url()).pathname.replace("/application/", "");
    const body = readFileSync(join(application, "dist", file));
    await route.fulfill({ body, contentType: MEDIA[extname(file)] ?? "application/octet-stream" });
  });
  await page.goto(`${world.url}/application/index.html#${await tokenOf(world, OWNER)}`);
  const dialog = page.getByRole("dialog");
  await dialog.getByText(OWNER).waitFor();
  assert.ok((await dialog.locator(".cs-row").count()) >= 3);
  const painted = await dialog.evaluate((shown) => getComputedStyle(shown).backgroundColor);
  assert.notEqual(painted, "rgba(0, 0, 0, 0)");
  assert.deepEqual(errors, []);
  await context.close();
});
