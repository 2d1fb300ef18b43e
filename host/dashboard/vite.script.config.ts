// Builds the script for other people's pages into `dist/tidemark.js`, which the binary embeds beside the page.
import type { Plugin } from "vite";
import { defineConfig } from "vite";

const SCRIPT_BYTES_MAX = 4_000;

function budget(): Plugin {
  return {
    name: "script-budget",
    generateBundle(_options, bundle) {
      for (const [name, file] of Object.entries(bundle)) {
        const bytes = file.type === "chunk" ? Buffer.byteLength(file.code) : 0;
        if (bytes > SCRIPT_BYTES_MAX) this.error(`${name} is ${bytes} bytes, the limit is ${SCRIPT_BYTES_MAX}`);
        console.log(`script-budget: ${name} ${bytes} bytes of ${SCRIPT_BYTES_MAX}`);
      }
    },
  };
}

export default defineConfig({
  publicDir: false,
  build: {
    target: "es2020",
    outDir: "dist",
    emptyOutDir: false,
    lib: { entry: "script/tidemark.ts", formats: ["iife"], name: "unused", fileName: () => "tidemark.js" },
  },
  plugins: [budget()],
});
