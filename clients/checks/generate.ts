// Generates clients by other generators than ours, and fails if one of them warns of anything in the document.
import { execFileSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@hey-api/openapi-ts";

const here = import.meta.dirname;
const document = join(here, "../../openapi/openapi.json");
const target = join(here, "generated");
const WARNS = /warn|⚠|error|unsupported|skipp/i;

rmSync(target, { recursive: true, force: true });

const said: string[] = [];
for (const level of ["log", "info", "warn", "error"] as const) {
  console[level] = (...parts: unknown[]) => void said.push(parts.join(" "));
}
await createClient({
  input: document,
  output: { path: join(target, "hey"), module: { extension: ".ts" } },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/sdk"],
});
const python = execFileSync(
  "openapi-python-client",
  ["generate", "--path", document, "--output-path", join(target, "python"), "--overwrite", "--fail-on-warning"],
  { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] },
);
const warnings = [...said, ...python.split("\n")].filter((line) => WARNS.test(line));
if (warnings.length > 0) throw new Error(warnings.join("\n"));
writeFileSync(join(target, ".ready"), "");
