// Writes what the client takes from the OpenAPI document: the types (by openapi-typescript) and the table of operations.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import openapiTypescript, { astToString } from "openapi-typescript";

const document = new URL("../../openapi/openapi.json", import.meta.url);
const target = new URL("src/generated/", import.meta.url);
const NOTICE = "// Generated from openapi/openapi.json by generate.mjs.\n";

/** Returns `name: [method, path, takes a body, parameter for the next page]` of each operation under /v1. */
function table(paths) {
  const rows = [];
  for (const [path, methods] of Object.entries(paths)) {
    if (!path.startsWith("/v1/")) continue;
    for (const [method, operation] of Object.entries(methods)) {
      const row = [method.toUpperCase(), path, "requestBody" in operation];
      const next = operation.parameters?.find(({ name }) => name === "cursor" || name === "after");
      if (next) row.push(next.name);
      rows.push(`  ${operation.operationId}: ${JSON.stringify(row)},`);
    }
  }
  return `export const OPERATIONS = {\n${rows.sort().join("\n")}\n} as const;\n`;
}

await mkdir(target, { recursive: true });
await writeFile(new URL("schema.ts", target), NOTICE + astToString(await openapiTypescript(document)));
const { paths } = JSON.parse(await readFile(document, "utf8"));
await writeFile(new URL("operations.ts", target), NOTICE + table(paths));
