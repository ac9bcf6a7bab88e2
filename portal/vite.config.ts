import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parse } from "@formatjs/icu-messageformat-parser";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";
import { pseudoLocalised } from "./scripts/pseudo.ts";

const PARSER = "@formatjs/icu-messageformat-parser";

/** Parses the messages at build time, so that no parser is sent, and generates the pseudo-locale from English. */
function messages(): Plugin {
  return {
    name: "coseat-messages",
    enforce: "pre",
    transform(code, id) {
      const file = /\/src\/messages\/\w+\.json(\?pseudo)?$/.exec(id);
      if (file === null) return null;
      const texts = JSON.parse(code) as Record<string, string>;
      const parsed = Object.entries(texts).map(([key, text]) => {
        const elements = parse(text, { captureLocation: false });
        return [key, file[1] === undefined ? elements : pseudoLocalised(elements)] as const;
      });
      return { code: `export default ${JSON.stringify(Object.fromEntries(parsed))};`, moduleType: "js", map: null };
    },
  };
}

const place = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** What an application installs beside the components. */
function installed(): RegExp {
  const { dependencies, peerDependencies } = JSON.parse(readFileSync(place("package.json"), "utf8"));
  return new RegExp(`^(?:${Object.keys({ ...dependencies, ...peerDependencies }).join("|")})(?:/|$)`);
}

/** The page, or with `--mode library` the components as a package. */
export default defineConfig(({ mode }) => ({
  plugins: [messages(), react()],
  resolve: { alias: [{ find: new RegExp(`^${PARSER}$`), replacement: `${PARSER}/no-parser.js` }] },
  build: {
    target: "es2023",
    emptyOutDir: true,
    ...(mode === "library"
      ? {
          outDir: place("library"),
          lib: { entry: place("src/index.ts"), formats: ["es" as const], fileName: "index" },
          rolldownOptions: { external: installed() },
          minify: false,
        }
      : {
          outDir: place("dist"),
          manifest: true,
          assetsInlineLimit: 0,
          modulePreload: { polyfill: false },
        }),
  },
  server: { proxy: Object.fromEntries(["/v1", "/dev"].map((path) => [path, "http://127.0.0.1:8000"])) },
}));
