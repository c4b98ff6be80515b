// People come in by an identity provider of another site: to an application, to the server's pages, and to confirm something.
//
//   node sso.mjs BASE_URL ORIGIN --folder FOLDER --provider ISSUER
import assert from "node:assert/strict";
import { conclude, step } from "../agent.mjs";
import { button, launch, look, origin, person } from "./chromium.mjs";
import * as provider from "./provider.mjs";
import * as site from "./site.mjs";

/** At the provider. */
const prove = (page) => page.getByRole("link", { name: "It is me" }).click();

async function logIn(sacha, address) {
    const { page } = sacha;
    await page.goto(`${origin}/_matrix/client/v3/login/sso/redirect?${new URLSearchParams({ redirectUrl: `${address}/back` })}`);
    await prove(page);
    await page.getByRole("link", { name: "Continuer" }).waitFor();
    await look(sacha, "sso-application");
    await page.getByRole("link", { name: "Continuer" }).click();
    await site.isBack(page);
    return page.evaluate((base) => app.logInByToken(base), origin);
}

/** The application opens the page in a window of its own, and hears from it when all is done. */
async function confirm(sacha, device) {
    const { page } = sacha;
    const opened = page.waitForEvent("popup");
    const ended = page.evaluate((device) => app.endSession(device), device);
    const popup = { ...sacha, page: await opened };
    await prove(popup.page);
    await popup.page.getByRole("button", { name: "Confirmer" }).waitFor();
    await look(popup, "sso-confirm");
    await button(popup.page, "Confirmer");
    await look(popup, "sso-confirmed");
    await ended;
}

async function intoPages(sacha) {
    const { page } = sacha;
    await site.depart(sacha);
    await look(sacha, "sso-log-in");
    await page.getByRole("link", { name: "Se connecter avec Ministry" }).click();
    await prove(page);
    await page.getByRole("button", { name: "Autoriser" }).waitFor();
    await look(sacha, "sso-consent");
    await button(page, "Autoriser");
    return site.arrive(sacha);
}

async function mistakes(sacha) {
    const response = await sacha.page.goto(`${origin}/_matrix/client/unstable/chappe/oidc/callback?code=x&state=x`);
    assert.equal(response.status(), 400);
    await look(sacha, "sso-mistake");
}

async function main() {
    const address = await step("bundle the application", site.open);
    await provider.open();
    const browser = await step("start Chromium", launch);
    const sacha = await person(browser, { locale: "fr-FR" });
    const first = await step("log in by the provider", () => logIn(sacha, address));
    const second = await step("and once more", () => logIn(sacha, address));
    assert.equal(first.userId, second.userId);
    await step("confirm in another window", () => confirm(sacha, first.deviceId));
    const session = await step("into the server's own pages", () => intoPages(sacha));
    assert.equal(session.user_id, first.userId);
    await step("a way that nobody began", () => mistakes(sacha));
    await browser.close();
}

await conclude(main);
