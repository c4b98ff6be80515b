// Debian's Chromium, and what is asked of every page that it shows.
import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { bases, options } from "../agent.mjs";

/** The origin of the server. */
export const origin = bases[1];

const pictures = join(options.folder, "pictures");
mkdirSync(pictures, { recursive: true });

/** The browser, which trusts the certificate of the test and no other. */
export function launch() {
    const certificate = new X509Certificate(readFileSync(join(options.folder, "tls.crt")));
    const key = certificate.publicKey.export({ type: "spki", format: "der" });
    return chromium.launch({
        executablePath: "/usr/bin/chromium",
        args: [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            `--ignore-certificate-errors-spki-list=${createHash("sha256").update(key).digest("base64")}`,
        ],
    });
}

/** A page of a person with cookies and storage of their own. What the server's pages complain about is in `complaints`. */
export async function person(browser, more = {}) {
    const context = await browser.newContext({ locale: "en-GB", ...more });
    const complaints = [];
    const pages = new Set();
    context.on("request", (request) => {
        if (request.isNavigationRequest()) pages.add(request.url());
    });
    context.on("console", (message) => {
        const { url } = message.location();
        // A page that says no has a status that says so as well; what another site is refused is no complaint of a page.
        const isOwn = message.page()?.url().startsWith(origin);
        const isStatus = (pages.has(url) || !isOwn) && message.text().startsWith("Failed to load resource: the server responded with a status of 40");
        if (message.type() === "error" && url.startsWith(origin) && !isStatus) complaints.push(message.text());
    });
    context.on("weberror", (error) => complaints.push(error.error().message));
    return { context, page: await context.newPage(), complaints, language: more.locale?.slice(0, 2) ?? "en" };
}

/** Asks of a page of the server what must be true of each of them, and takes its picture. */
export async function look({ context, page, complaints, language }, name) {
    await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
    assert.equal(await page.locator("html").getAttribute("lang"), language, "the language");
    assert.ok(await page.title(), "a page without a title");
    assert.equal(await page.locator("h1").count(), 1, "one heading says where one is");
    await named(context, page);
    await narrow(page, name);
    for (const { name, httpOnly, secure, sameSite } of await context.cookies(origin)) {
        assert.ok(name.startsWith("__Host-") && httpOnly && secure && sameSite === "Lax", `the cookie ${name}`);
    }
    assert.deepEqual(complaints, [], "the console has complaints");
}

/** Whatever can be used has a name for those who do not see it. */
async function named(context, page) {
    const inspector = await context.newCDPSession(page);
    const { nodes } = await inspector.send("Accessibility.getFullAXTree");
    await inspector.detach();
    const used = nodes.filter(({ ignored, role }) => !ignored && ["textbox", "checkbox", "button", "link"].includes(role.value));
    for (const { role, name } of used) assert.ok(name?.value.trim(), `a ${role.value} without a name`);
    assert.ok(nodes.some(({ role }) => role?.value === "main"), "no main part");
}

/** On the narrowest telephones nothing has to be pushed to the side. */
async function narrow(page, name) {
    const size = page.viewportSize();
    await page.setViewportSize({ width: 320, height: 640 });
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    await page.screenshot({ path: join(pictures, `${name}-narrow.png`), fullPage: true });
    await page.setViewportSize(size);
    assert.ok(width <= 320, `${width} pixels wide on a screen of 320`);
}

/** Fills a field, known by its label. */
export const fill = (page, label, text) => page.getByLabel(label, { exact: true }).fill(text);

/** Presses a button, known by what stands on it, and waits for the page that it leads to. */
export async function button(page, name) {
    await Promise.all([page.waitForEvent("load"), page.getByRole("button", { name, exact: true }).click()]);
}

/** Walks to an element by the tabulator key, as people do who have no mouse. */
export async function tabTo(element) {
    for (let n = 0; n < 20; n++) {
        await element.page().keyboard.press("Tab");
        const outline = await element.evaluate((element) => element.matches(":focus-visible") && getComputedStyle(element).outlineStyle);
        if (!outline) continue;
        assert.notEqual(outline, "none", "nobody sees where the focus is");
        return;
    }
    throw new Error("the tabulator key does not lead there");
}
