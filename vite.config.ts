import { defineConfig } from "vite";

/**
 * Two builds from one folder. The page, and what the demo adds to it, without shared modules: hashed files and a manifest, by which the server finds them. The element
 * (`--mode embed`): one classic script under a name that storefronts can rely on.
 */
export default defineConfig(({ mode }) => ({
  root: "web",
  publicDir: mode === "embed" ? false : "public",
  logLevel: "warn",
  build:
    mode === "embed"
      ? {
          outDir: "../dist/web",
          emptyOutDir: false,
          target: "es2022",
          lib: { entry: "embed/embed.ts", formats: ["iife"], name: "StockCount", fileName: () => "embed.js" },
        }
      : {
          outDir: "../dist/web",
          emptyOutDir: true,
          target: "es2022",
          manifest: true,
          modulePreload: { polyfill: false },
          assetsInlineLimit: 0,
          rolldownOptions: { input: ["web/page/main.ts", "web/page/demo.ts", "web/embed-demo.html"] },
        },
}));
