// Starts one `coseat dev` on free ports, runs the tests that are named against it, and stops it by its id.
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Service } from "./service.ts";

const CHECKOUT = fileURLToPath(new URL("../../", import.meta.url));
const START_MILLISECONDS = 120_000;

/** PostgreSQL does not run as root, so that the user that it runs as must be able to pass through to its data. */
function temporaryDirectory(): string {
  const isRoot = process.getuid?.() === 0;
  const directory = mkdtempSync(join(isRoot ? "/var/tmp" : tmpdir(), "coseat-clients-"));
  if (isRoot) chmodSync(directory, 0o711);
  return directory;
}

/** Resolves with what `coseat dev` printed once it is ready. */
function announced(dev: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let printed = "";
    const fail = () => reject(new Error(`\`coseat dev\` did not come up; it printed:\n${printed}`));
    const timer = setTimeout(fail, START_MILLISECONDS);
    dev.once("exit", fail);
    for (const output of [dev.stdout, dev.stderr]) {
      output?.on("data", (text) => {
        printed += text;
        if (!printed.includes("Ctrl-C")) return;
        clearTimeout(timer);
        dev.off("exit", fail);
        resolve(printed);
      });
    }
  });
}

function serviceOf(printed: string, state: string): Service {
  const found = (pattern: RegExp) => pattern.exec(printed)?.[1] ?? "";
  const tokens = [...printed.matchAll(/^ +([A-Z_]+)=(\S+)$/gm)].map(([, name = "", value = ""]) => [name.toLowerCase(), value]);
  const secrets = JSON.parse(readFileSync(join(state, "dev", "secrets.json"), "utf8"));
  return {
    api: found(/API +(http:\/\/\S+)\/v1/),
    stripe: found(/Stripe +(http:\/\/\S+) /),
    stripeKey: found(/key (sk_test_\w+)/),
    jwtSecret: secrets.jwt_secret,
    tokens: Object.fromEntries(tokens),
  };
}

function exit(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => child.once("exit", (code) => resolve(code ?? 1)));
}

const state = temporaryDirectory();
const dev = spawn(join(CHECKOUT, ".venv/bin/coseat"), ["dev", "--reset", "--port", "0", "--state", state], {
  cwd: CHECKOUT,
  detached: true,
  stdio: ["ignore", "pipe", "pipe"],
});
const ended = exit(dev);
let tests: ChildProcess | undefined;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => {
    tests?.kill(signal);
    dev.kill("SIGTERM");
  });
}
try {
  const service = serviceOf(await announced(dev), state);
  tests = spawn(
    process.execPath,
    ["--test", "--test-reporter=spec", "--test-timeout=150000", ...process.argv.slice(2)],
    { cwd: CHECKOUT, env: { ...process.env, COSEAT_SERVICE: JSON.stringify(service) }, stdio: "inherit" },
  );
  process.exitCode = await exit(tests);
} finally {
  dev.kill("SIGTERM");
  await ended;
  rmSync(state, { recursive: true, force: true });
}
