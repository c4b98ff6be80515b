// Accounts and plain HTTP calls, before a client of the SDK exists.
import { createHmac, randomBytes } from "node:crypto";

/** Calls the client API and gives the JSON answer; throws with errcode and status otherwise. */
export async function call(base, method, path, body, token) {
    const headers = { "Content-Type": "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const response = await fetch(base + path, { method, headers, body: body && JSON.stringify(body) });
    const answer = await response.json();
    if (!response.ok) {
        const error = new Error(`${method} ${path}: ${response.status} ${answer.errcode} ${answer.error}`);
        throw Object.assign(error, { status: response.status, answer });
    }
    return answer;
}

/**
 * Makes an account. `method` is `dummy`, `token:TOKEN`, `secret:SHARED_SECRET`, or
 * `login` for accounts that exist (`user:password` in `known`).
 */
export async function account(base, name, method, known) {
    if (method === "login") {
        const [user, password] = known.split(":");
        return login(base, user, password);
    }
    const user = `${name}-${randomBytes(4).toString("hex")}`;
    const password = randomBytes(12).toString("hex");
    const [kind, secret] = method.split(/:(.*)/s);
    if (kind === "secret") {
        await registerWithSecret(base, user, password, secret);
    } else {
        await registerOpenly(base, user, password, secret);
    }
    return login(base, user, password);
}

/** Logs in with a password: a new device. */
export async function login(base, user, password) {
    const answer = await call(base, "POST", "/_matrix/client/v3/login", {
        type: "m.login.password",
        identifier: { type: "m.id.user", user },
        password,
        initial_device_display_name: "matrix-js-sdk",
    });
    return { base, password, userId: answer.user_id, deviceId: answer.device_id, accessToken: answer.access_token };
}

async function registerWithSecret(base, user, password, secret) {
    const path = "/_synapse/admin/v1/register";
    const { nonce } = await call(base, "GET", path);
    const mac = createHmac("sha1", secret).update([nonce, user, password, "notadmin"].join("\0")).digest("hex");
    await call(base, "POST", path, { nonce, username: user, password, admin: false, mac });
}

/** Walks through the stages the server asks for: a token where we have one, dummy, terms. */
async function registerOpenly(base, user, password, token) {
    const path = "/_matrix/client/v3/register";
    const body = { username: user, password, inhibit_login: true };
    let auth;
    for (let step = 0; step < 5; step++) {
        try {
            await call(base, "POST", path, { ...body, auth });
            return;
        } catch (error) {
            if (error.status !== 401 || !error.answer.session) throw error;
            auth = nextStage(error.answer, token);
        }
    }
    throw new Error("registration did not end after five stages");
}

function nextStage({ session, flows, completed = [] }, token) {
    const able = ["m.login.dummy", "m.login.terms", ...(token ? ["m.login.registration_token"] : [])];
    const flow = flows.find(({ stages }) => stages.every((stage) => able.includes(stage)));
    if (!flow) throw new Error(`no way to register: ${JSON.stringify(flows)}`);
    const type = flow.stages.find((stage) => !completed.includes(stage));
    return type === "m.login.registration_token" ? { type, session, token } : { type, session };
}
