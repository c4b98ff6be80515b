// People let an application in on the server's own pages, and manage their account there (OAuth 2.0).
//
//   node pages.mjs BASE_URL ORIGIN --registration secret:S --folder FOLDER --mail PORT
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { account, call } from "../accounts.mjs";
import { bases, conclude, options, sdk, step } from "../agent.mjs";
import { button, fill, launch, look, origin, person, tabTo } from "./chromium.mjs";
import * as mailbox from "./mailbox.mjs";
import * as site from "./site.mjs";

const PASSWORD = "correct cheval pile agrafe";
// As they are in ministries.
const LONG_NAME = "dominique.delatourdupin.developpementdurable.gouv.fr";
const PASSWORD_CHANGE = "Change the password";
// What Chromium shows instead of a page that does not want to be framed.
const NO_PAGE = "chrome-error://chromewebdata/";
let browser;
let address;

async function signUp() {
    const camille = await person(browser);
    const { page, context } = camille;
    await site.depart(camille, "create");
    await look(camille, "sign-up");
    await page.getByRole("link", { name: "I have an account already" }).click();
    await page.getByRole("link", { name: "Create an account" }).click();
    await fill(page, "E-mail address", "camille@example.org");
    await button(page, "Go on");
    await look(camille, "sign-up-mailed");
    const mail = { ...camille, page: await context.newPage() };
    await mail.page.goto(await mailbox.link("camille@example.org"));
    await button(mail.page, "Confirm my address");
    await mail.page.close();
    await fill(page, "User name", "camille");
    await fill(page, "Password", PASSWORD);
    await fill(page, "Once more", "something else");
    await button(page, "Create the account");
    await look(camille, "sign-up-wrong");
    await fill(page, "Password", PASSWORD);
    await fill(page, "Once more", PASSWORD);
    await button(page, "Create the account");
    await look(camille, "consent");
    await button(page, "Allow");
    const session = await site.arrive(camille);
    assert.match(session.user_id, /^@camille:/);
    return { ...camille, session };
}

async function logIn() {
    const camille = await person(browser, { colorScheme: "dark" });
    const { page } = camille;
    await site.depart(camille);
    await look(camille, "log-in");
    await fill(page, "User name or e-mail address", "camille@example.org");
    await fill(page, "Password", "something else");
    await button(page, "Log in");
    await look(camille, "log-in-wrong");
    await fill(page, "Password", PASSWORD);
    await button(page, "Log in");
    await look(camille, "consent-dark");
    await button(page, "Refuse");
    await site.isBack(page);
    assert.match(page.url(), /error=access_denied/);
    await site.depart(camille);
    await button(page, "Allow");
    return site.arrive(camille);
}

/** What an application does that has no page: registers, asks, and gets tokens for the code. */
async function native() {
    const metadata = await sdk.createClient({ baseUrl: origin }).getAuthMetadata();
    const back = `${address}/back`;
    const clientId = await sdk.OAuth2.registerClient(metadata, {
        client_name: "Une application au nom bien plus long que ce que l'on voit d'habitude, pour voir",
        client_uri: `${address}/`,
        tos_uri: `${address}/tos`,
        policy_uri: `${address}/policy`,
        redirect_uris: [back],
    });
    const grant = new sdk.OAuth2(metadata, { clientId });
    return { grant, back, link: await grant.generateAuthorizationCodeGrantUrl("state", back, "query") };
}

/** Logs in with the keyboard alone; gives the page at which the code has arrived. */
async function byKeyboard(known, more) {
    const { grant, back, link } = await native();
    const dominique = await person(browser, { locale: "fr-FR", ...more });
    const { page } = dominique;
    await page.goto(link);
    await look(dominique, `connexion-${more.name}`);
    await tabTo(page.getByLabel("Identifiant ou adresse e-mail"));
    await page.keyboard.type(known.userId);
    await tabTo(page.getByLabel("Mot de passe"));
    await page.keyboard.type(known.password);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Autoriser une application" }).waitFor();
    await look(dominique, `autorisation-${more.name}`);
    await tabTo(page.getByRole("button", { name: "Autoriser" }));
    await page.keyboard.press("Space");
    await site.isBack(page);
    const code = new URL(page.url()).searchParams.get("code");
    const { access_token: token } = await grant.completeAuthorizationCodeGrant(code, back);
    assert.equal((await call(origin, "GET", "/_matrix/client/v3/account/whoami", undefined, token)).user_id, known.userId);
    await dominique.context.close();
}

/** The account page: sees the sessions, ends one, changes the password, leaves. */
async function manage(camille, other) {
    const { page, session } = camille;
    await page.goto(session.account);
    await look(camille, "account");
    const row = page.getByRole("listitem").filter({ hasText: other.device_id });
    await row.getByRole("link", { name: "End the session" }).click();
    await look(camille, "end-session");
    await fill(page, "Your password", "something else");
    await button(page, "End the session");
    await look(camille, "end-session-wrong");
    await fill(page, "Your password", PASSWORD);
    await button(page, "End the session");
    await page.getByRole("status").waitFor();
    assert.equal(await row.count(), 0, "the session is still there");
    const whoami = (token) => call(origin, "GET", "/_matrix/client/v3/account/whoami", undefined, token);
    await assert.rejects(whoami(other.accessToken), { status: 401 });
    assert.equal((await whoami(session.accessToken)).user_id, session.user_id);
    await fill(page, "Current password", PASSWORD);
    await fill(page, "New password", `${PASSWORD} 2`);
    await fill(page, "Once more", `${PASSWORD} 2`);
    await button(page, "Change");
    await look(camille, "account-changed");
    await page.getByRole("link", { name: "Your account" }).click();
    await look(camille, "account-again");
    await page.getByRole("link", { name: "Close the account" }).click();
    await look(camille, "close-account");
    await page.getByRole("link", { name: "Do nothing" }).click();
    await button(page, "Leave this page");
    await look(camille, "account-left");
    await page.goBack();
    assert.equal(await page.getByText(PASSWORD_CHANGE).count(), 0, "who comes after sees the account");
}

/** A device without a browser shows a code, which is typed here (RFC 8628). */
async function device(camille) {
    const { grant } = await native();
    const shown = await grant.startDeviceAuthorizationGrant();
    const { page } = camille;
    await page.goto(shown.verification_uri);
    await fill(page, "User name or e-mail address", "camille");
    await fill(page, "Password", `${PASSWORD} 2`);
    await button(page, "Log in");
    await look(camille, "device");
    await fill(page, "The code that the device shows", "BBBB-BBBB");
    await button(page, "Go on");
    await look(camille, "device-wrong");
    await fill(page, "The code that the device shows", shown.user_code.toLowerCase());
    await button(page, "Go on");
    await look(camille, "device-consent");
    await button(page, "Allow");
    await look(camille, "device-done");
    const { access_token: token } = await grant.waitForDeviceAuthorizationGrant(shown);
    await call(origin, "GET", "/_matrix/client/v3/account/whoami", undefined, token);
}

/** Requests that are not valid end on a page that says so. */
async function mistakes(camille) {
    const { link } = await native();
    const wrong = { redirect_uri: "https://elsewhere.example/", response_type: "token", client_id: "nobody", code_challenge: "" };
    for (const [name, value] of Object.entries(wrong)) {
        const url = new URL(link);
        url.searchParams.set(name, value);
        const response = await camille.page.goto(url.href);
        assert.equal(response.status(), 400);
        await look(camille, `mistake-${name}`);
    }
}

/** Another site can neither press the buttons of somebody who is logged in nor show the pages as part of its own. */
async function hostile({ page }) {
    const { pathname, search } = new URL((await native()).link);
    await page.goto(`${origin}${pathname}${search}`);
    await page.getByRole("button", { name: "Allow" }).waitFor();
    await page.goto(address);
    const framed = (source) =>
        new Promise((resolve) => {
            const frame = Object.assign(document.createElement("iframe"), { src: source, onload: resolve });
            document.body.append(frame);
        });
    await page.evaluate(framed, `${origin}${pathname}${search}`);
    // The page may have loaded before Playwright hears of it.
    const shown = () => page.frames().at(-1).url();
    for (let n = 0; n < 50 && shown() !== NO_PAGE; n++) await sleep(100);
    assert.equal(shown(), NO_PAGE);
    await page.evaluate(([action, query]) => {
        const form = Object.assign(document.createElement("form"), { method: "post", action });
        for (const [name, value] of Object.entries({ decision: "allow", query })) {
            form.append(Object.assign(document.createElement("input"), { name, value }));
        }
        document.body.append(form);
        form.submit();
    }, [`${origin}${pathname}`, search.slice(1)]);
    await page.getByRole("heading", { name: "That did not work" }).waitFor();
}

async function main() {
    await mailbox.open();
    address = await step("bundle the application", site.open);
    browser = await step("start Chromium", launch);
    const camille = await step("sign up by mail, let the application in", signUp);
    const other = await step("log in, refuse, let it in", logIn);
    const dominique = await account(bases[0], LONG_NAME, options.registration);
    await step("by keyboard alone, in French", () => byKeyboard(dominique, { name: "clavier" }));
    await step("without JavaScript", () => byKeyboard(dominique, { name: "sans-javascript", javaScriptEnabled: false }));
    await step("manage the account", () => manage(camille, other));
    await step("log a device in by its code", () => device(camille));
    await step("requests that are not valid", () => mistakes(camille));
    await step("another site gets nothing of it", () => hostile(camille));
    await browser.close();
}

await conclude(main);
