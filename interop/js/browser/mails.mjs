// The pages behind the links in mails: an address confirmed, a password reset, an account renewed.
//
//   node mails.mjs BASE_URL ORIGIN --folder FOLDER --mail PORT
import assert from "node:assert/strict";
import { call, login } from "../accounts.mjs";
import { conclude, step } from "../agent.mjs";
import { button, launch, look, origin, person } from "./chromium.mjs";
import * as mailbox from "./mailbox.mjs";

const ADDRESS = "dominique@example.org";
const CLIENT = "/_matrix/client/v3";
const ask = (path, body, token) => call(origin, "POST", path, body, token);

/** Has a mail sent, opens its link, and presses the button; gives what the server knows the proof by. */
async function prove(reader, path, name, label) {
    const secret = `secret-${name}`;
    const wanted = { client_secret: secret, email: ADDRESS, send_attempt: 1 };
    const { sid } = await ask(CLIENT + path, wanted);
    await reader.page.goto(await mailbox.link(ADDRESS));
    await look(reader, name);
    await button(reader.page, label);
    await look(reader, `${name}-done`);
    return { type: "m.login.email.identity", threepid_creds: { sid, client_secret: secret } };
}

async function signUp(reader) {
    const proof = await prove(reader, "/register/email/requestToken", "address", "Confirm my address");
    const body = { username: "dominique.mail", password: "a first password", inhibit_login: true };
    const refusal = await ask(`${CLIENT}/register`, body).catch((error) => error.answer);
    await ask(`${CLIENT}/register`, { ...body, auth: { ...proof, session: refusal.session } });
}

async function reset(reader) {
    const proof = await prove(reader, "/account/password/email/requestToken", "password", "Confirm my request");
    await ask(`${CLIENT}/account/password`, { new_password: "a second password", auth: proof });
    return login(origin, "dominique.mail", "a second password");
}

/** The link is opened twice, the second time by somebody who reads French. */
async function renew(readers, { accessToken }) {
    await ask("/_synapse/client/email_account_validity/send_mail", {}, accessToken);
    const link = await mailbox.link(ADDRESS);
    for (const reader of readers) {
        const response = await reader.page.goto(link);
        assert.equal(response.status(), 200);
        await look(reader, `renewed-${reader.language}`);
    }
}

async function mistakes(reader) {
    for (const [path, name] of [
        ["/_synapse/client/email_account_validity/renew?token=x", "not-renewed"],
        ["/_matrix/client/unstable/chappe/confirm_email?sid=x&token=x", "not-confirmed"],
    ]) {
        const response = await reader.page.goto(origin + path);
        assert.equal(response.status(), 400);
        await look(reader, name);
    }
}

async function main() {
    await mailbox.open();
    const browser = await step("start Chromium", launch);
    const reader = await person(browser);
    await step("confirm an address", () => signUp(reader));
    const session = await step("reset a password", () => reset(reader));
    const french = await person(browser, { locale: "fr-FR" });
    await step("renew an account", () => renew([reader, french], session));
    await step("links that are not valid", () => mistakes(reader));
    await browser.close();
}

await conclude(main);
