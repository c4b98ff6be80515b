// Two people talk in browsers, with a page of another origin.
//
//   node chat.mjs BASE_URL ORIGIN --registration secret:S --folder FOLDER
import assert from "node:assert/strict";
import { account } from "../accounts.mjs";
import { bases, conclude, options, step } from "../agent.mjs";
import { launch, origin, person } from "./chromium.mjs";
import * as site from "./site.mjs";

async function enter(browser, address, name) {
    const known = await account(bases[0], name, options.registration);
    const { page } = await person(browser);
    await page.goto(address);
    const base = await page.evaluate((name) => app.discover(name), new URL(origin).host);
    assert.equal(base, origin);
    await page.evaluate(([base, user, password]) => app.logIn(base, user, password), [base, known.userId, known.password]);
    assert.equal(await page.evaluate(() => app.start()), false, "there was something in IndexedDB");
    await page.evaluate((password) => app.crossSign(password), known.password);
    return { page, ...known };
}

async function say(from, to, roomId, body) {
    await from.page.evaluate(([roomId, body]) => app.say(roomId, body), [roomId, body]);
    await to.page.evaluate(([roomId, body]) => app.read(roomId, body), [roomId, body]);
}

async function meet(camille, dominique) {
    const roomId = await camille.page.evaluate((user) => app.encryptedRoom(user), dominique.userId);
    await dominique.page.evaluate((roomId) => app.accept(roomId), roomId);
    await camille.page.evaluate(([roomId, user]) => app.joined(roomId, user), [roomId, dominique.userId]);
    return roomId;
}

/** Talks to the browser's inspector about a page. */
async function inspect({ page }) {
    const inspector = await page.context().newCDPSession(page);
    await inspector.send("Network.enable");
    return inspector;
}

async function picture(camille, dominique) {
    // As by mobile network: what is uploaded at once tells of no progress.
    const slow = { offline: false, latency: 20, downloadThroughput: -1, uploadThroughput: 1_000_000 };
    const network = await inspect(camille);
    await network.send("Network.emulateNetworkConditions", slow);
    const { uri, size, progress } = await camille.page.evaluate(() => app.upload(960, 720));
    assert.ok(size > 1_000_000 && progress.length > 1, `${size} bytes, told ${progress.length} times`);
    assert.deepEqual(progress.at(-1), [size, size]);
    await network.detach();
    const show = (...size) => dominique.page.evaluate(([uri, ...size]) => app.show(uri, ...size), [uri, ...size]);
    assert.deepEqual(await show(), { type: "image/png", width: 960, height: 720 });
    assert.deepEqual(await show(320, 240), { type: "image/png", width: 320, height: 240 });
    const cache = await inspect(dominique);
    // The page asks for other things meanwhile, such as its sync.
    const answered = new Promise((resolve) => {
        cache.on("Network.responseReceived", ({ type, response }) => {
            if (type !== "Preflight" && response.url.includes("/media/download/")) resolve(response);
        });
    });
    await show();
    const response = await answered;
    assert.ok(response.fromDiskCache, "the server was asked for a picture that was in the cache");
}

/** Answers that say no can be read, by each protocol: what is not held by CORS is "Failed to fetch". */
async function refusals({ page, accessToken }) {
    const headers = { Authorization: `Bearer ${accessToken}` };
    const ask = async (...request) => {
        const { status, errcode } = await page.evaluate((request) => app.ask(...request), request);
        return `${status} ${errcode}`;
    };
    for (const base of [origin, bases[0]]) {
        assert.equal(await ask("GET", `${base}/_matrix/client/v3/sync`), "401 M_MISSING_TOKEN");
        assert.equal(await ask("GET", `${base}/_matrix/client/v3/sync`, undefined, { Authorization: "Bearer x" }), "401 M_UNKNOWN_TOKEN");
        assert.equal(await ask("DELETE", `${base}/_matrix/nowhere`), "404 M_UNRECOGNIZED");
        assert.equal(await ask("PUT", `${base}/_matrix/client/v3/sync`), "405 M_UNRECOGNIZED");
        assert.equal(await ask("POST", `${base}/_matrix/client/v3/createRoom`, "{", headers), "400 M_NOT_JSON");
        assert.equal(await ask("POST", `${base}/_matrix/client/v3/createRoom`, " ".repeat(3_000_000), headers), "413 M_TOO_LARGE");
        assert.equal(await ask("POST", `${base}/_matrix/media/v3/upload`, 30_000_000, headers), "413 M_TOO_LARGE");
    }
}

async function patience({ page }) {
    const { status, errcode, retryAfter } = await page.evaluate(() => app.hurry());
    assert.deepEqual([status, errcode], [429, "M_LIMIT_EXCEEDED"]);
    assert.ok(Number(retryAfter) > 0, `Retry-After: ${retryAfter}`);
}

/** The page is loaded again, and everything is still there. */
async function again(camille, dominique, roomId) {
    await camille.page.evaluate(() => app.save());
    await camille.page.reload();
    assert.equal(await camille.page.evaluate(() => app.start()), true, "nothing was in IndexedDB");
    await camille.page.evaluate(([roomId, body]) => app.read(roomId, body), [roomId, "Bien reçu. 🗼"]);
    await say(dominique, camille, roomId, "Vous êtes encore là ?");
    await say(camille, dominique, roomId, "Toujours.");
}

async function main() {
    const address = await step("bundle the application", site.open);
    const browser = await step("start Chromium", launch);
    const camille = await step("find the server, log in, sync", () => enter(browser, address, "camille"));
    const dominique = await step("and somebody else", () => enter(browser, address, "dominique"));
    const roomId = await step("meet in an encrypted room", () => meet(camille, dominique));
    await step("a message each way, decrypted", async () => {
        await say(camille, dominique, roomId, "Bonjour, ici le navigateur.");
        await say(dominique, camille, roomId, "Bien reçu. 🗼");
    });
    await step("a picture, its thumbnail, and both from the cache", () => picture(camille, dominique));
    await step("refusals can be read", () => refusals(camille));
    await step("so can the time to wait", () => patience(camille));
    await step("go on after a reload", () => again(camille, dominique, roomId));
    await browser.close();
}

await conclude(main);
