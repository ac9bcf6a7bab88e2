// Writes the TypeScript and the request bodies of the repository's pages into files that `tsc` checks.
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const CHECKOUT = join(import.meta.dirname, "../..");
const TARGET = join(import.meta.dirname, "generated/documents");
const PAGES = ["README.md", "docs/**/*.md", "clients/*/README.md", "examples/**/*.md"];
/** What the commands of the pages call the places that they write to. */
const NAMES: Record<string, string> = { TEAM: "$API/shared-subscriptions/sub_demoteam", API: "/v1" };

type Methods = Record<string, { requestBody?: unknown }>;
const { paths }: { paths: Record<string, Methods> } = JSON.parse(readFileSync(join(CHECKOUT, "openapi/openapi.json"), "utf8"));

function blocks(page: string, language: string): string[] {
  const found = page.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, "gms"));
  return [...found].map(([, code = ""]) => code);
}

/** Returns the commands of a script, each on one line: a command goes on while a quote is open. */
function commands(script: string): string[] {
  const found: string[] = [];
  let open = "";
  for (const line of script.replaceAll("\\\n", " ").split("\n")) {
    open = open === "" ? line : `${open} ${line}`;
    if ((open.split("'").length - 1) % 2 === 1) continue;
    found.push(open);
    open = "";
  }
  return found;
}

/** Returns the path of the document that a command's address belongs to. */
function template(command: string): string | undefined {
  let [, address = ""] = /\s"?(\$(?:API|TEAM)[^\s"]*)/.exec(command) ?? [];
  for (const [name, value] of Object.entries(NAMES)) address = address.replace(`$${name}`, value);
  const [path = ""] = address.split("?");
  const parts = path.split("/");
  const fits = (stated: string) => {
    const wanted = stated.split("/");
    return wanted.length === parts.length && wanted.every((part, place) => part.startsWith("{") || part === parts[place]);
  };
  // A path without ids is the nearer one.
  return Object.keys(paths).filter(fits).sort((one, other) => one.split("{").length - other.split("{").length)[0];
}

/** Returns the check of a command's body, or nothing if it sends no JSON to the API. */
function bodyCheck(command: string): string | undefined {
  const [, quoted] = /-d '(\{.*?\})'(?=\s|$)/.exec(command) ?? [];
  const path = template(command);
  if (quoted === undefined || path === undefined) return undefined;
  const method = (/-X (\w+)/.exec(command)?.[1] ?? "POST").toLowerCase();
  if (paths[path]?.[method]?.requestBody === undefined) throw new Error(`${method} ${path} takes no body: ${command}`);
  return `(${JSON.stringify(JSON.parse(quoted.replaceAll("'", "")))}) satisfies Body<"${path}", "${method}">;`;
}

rmSync(TARGET, { recursive: true, force: true });
mkdirSync(TARGET, { recursive: true });
const checks: string[] = [];
let modules = 0;
for (const file of PAGES.flatMap((pattern) => globSync(pattern, { cwd: CHECKOUT })).sort()) {
  if (file.includes("node_modules")) continue;
  const page = readFileSync(join(CHECKOUT, file), "utf8");
  for (const code of blocks(page, "(?:ts|typescript|js|javascript)")) {
    writeFileSync(join(TARGET, `${file.replaceAll(/\W/g, "-")}-${++modules}.ts`), `// ${file}\n${code}\nexport {};\n`);
  }
  const found = blocks(page, "(?:sh|bash|console)").flatMap(commands).map(bodyCheck);
  checks.push(...found.filter((check) => check !== undefined).map((check) => `// ${file}\n${check}`));
}
// What the code of the pages takes from the application around it.
writeFileSync(join(TARGET, "application.d.ts"), "declare const session: { accessToken(): Promise<string> };\n");
if (checks.length < 20 || modules < 1) throw new Error(`only ${checks.length} bodies and ${modules} pieces of code were found`);
writeFileSync(
  join(TARGET, "bodies.ts"),
  `import type { paths } from "@coseat/client";

type Content<Operation> = Operation extends { requestBody?: infer Any } ? NonNullable<Any> : never;
type Body<Path extends keyof paths, Method extends keyof paths[Path]> =
  Content<paths[Path][Method]> extends { content: { "application/json": infer Json } } ? Json : never;

${checks.join("\n")}
`,
);
