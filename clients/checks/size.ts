// Fails if a module, bundled with all that it imports, is larger than allowed: size.ts FILE MOST_KILOBYTES [EXTERNAL].
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const [file = "", most = "", ...external] = process.argv.slice(2);
const { outputFiles } = await build({
  entryPoints: [file],
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  external,
  write: false,
});
const bytes = gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
const allowed = Number(most) * 1000;
console.log(`${file}: ${bytes} bytes gzipped, of ${allowed}`);
if (bytes > allowed) process.exitCode = 1;
