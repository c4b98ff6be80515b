// A web application of another origin: matrix-js-sdk with its Rust crypto, bundled when the test begins.
import { readFile } from "node:fs/promises";
import { createServer } from "node:https";
import { createRequire } from "node:module";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { options } from "../agent.mjs";
import { origin } from "./chromium.mjs";

const WASM = "matrix_sdk_crypto_wasm_bg.wasm";
const TYPES = { ".js": "text/javascript", ".wasm": "application/wasm" };
const PAGE = `<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Application</title>
<link rel="icon" href="data:,"><script type="module" src="/app.js"></script></html>`;

let address;

async function files() {
    const folder = join(options.folder, "site");
    await build({
        entryPoints: [fileURLToPath(new URL("app.mjs", import.meta.url))],
        outfile: join(folder, "app.js"),
        bundle: true,
        format: "esm",
        platform: "browser",
        define: { global: "globalThis" },
        logLevel: "error",
    });
    const crypto = createRequire(import.meta.url).resolve("@matrix-org/matrix-sdk-crypto-wasm");
    return { "/app.js": join(folder, "app.js"), [`/pkg/${WASM}`]: join(crypto, "..", "pkg", WASM) };
}

/** Serves the application at every path; gives its origin. */
export async function open() {
    const known = await files();
    const [cert, key] = await Promise.all(["tls.crt", "tls.key"].map((name) => readFile(join(options.folder, name))));
    const server = createServer({ cert, key }, async ({ url }, response) => {
        const file = known[url];
        response.setHeader("Content-Type", file ? TYPES[extname(file)] : "text/html");
        response.end(file ? await readFile(file) : PAGE);
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    address = `https://app.localhost:${server.address().port}`;
    return address;
}

/** From the application to the server's pages. */
export async function depart({ page }, prompt) {
    await page.goto(address);
    await page.evaluate(([base, prompt]) => app.depart(base, prompt), [origin, prompt]);
    await page.waitForURL(`${origin}/**`);
}

/** Waits until a page is back in the application. */
export const isBack = (page) => page.waitForURL((url) => url.pathname === "/back");

/** Back in the application, with a code. */
export async function arrive({ page }) {
    await isBack(page);
    return page.evaluate(() => app.arrive());
}
