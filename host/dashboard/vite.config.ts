// Builds the page into `dist`, which the binary embeds. Fails when the page outgrows its budget.
import { gzipSync } from "node:zlib";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const PAGE_GZIP_BYTES_MAX = 120 * 1024;

function budget(): Plugin {
  return {
    name: "page-budget",
    generateBundle(_options, bundle) {
      let total = 0;
      for (const [name, file] of Object.entries(bundle)) {
        if (!/\.(js|css)$/.test(name)) continue;
        total += gzipSync(file.type === "chunk" ? file.code : file.source).length;
      }
      if (total > PAGE_GZIP_BYTES_MAX) {
        this.error(`script and style are ${total} bytes gzip, the limit is ${PAGE_GZIP_BYTES_MAX}`);
      }
      console.log(`\npage-budget: ${(total / 1024).toFixed(1)} KB gzip of ${PAGE_GZIP_BYTES_MAX / 1024} KB`);
    },
  };
}

export default defineConfig({
  base: "/",
  build: { target: "es2022", outDir: "dist", emptyOutDir: true, modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  plugins: [budget()],
  test: { css: true },
  server: { proxy: { "/v1": { target: "http://127.0.0.1:8080", ws: true } } },
});
