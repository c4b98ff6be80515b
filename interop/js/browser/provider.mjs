// An identity provider of another site, which vouches for whoever presses its button (OpenID Connect).
import { createHash, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { text } from "node:stream/consumers";
import { join } from "node:path";
import { options } from "../agent.mjs";

const issuer = options.provider;
const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const decoded = (code) => JSON.parse(Buffer.from(code, "base64url"));

const documents = {
    "/.well-known/openid-configuration": {
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
        jwks_uri: `${issuer}/keys`,
    },
    "/keys": { keys: [{ ...createPublicKey(privateKey).export({ format: "jwk" }), kid: "1", alg: "ES256", use: "sig" }] },
};

/** The page with the button. What was asked is in the code. */
function authorize(asked) {
    const code = encoded({ nonce: asked.get("nonce"), challenge: asked.get("code_challenge") });
    const back = new URL(asked.get("redirect_uri"));
    back.search = new URLSearchParams({ code, state: asked.get("state") });
    return `<!DOCTYPE html><title>Ministry</title><a href="${back.href.replaceAll("&", "&amp;")}">It is me</a>`;
}

function token(asked) {
    const { nonce, challenge } = decoded(asked.get("code"));
    const hash = createHash("sha256").update(asked.get("code_verifier")).digest("base64url");
    if (hash !== challenge) return { error: "invalid_grant" };
    const now = Math.floor(Date.now() / 1000);
    const person = { sub: "1", preferred_username: "sacha", name: "Sacha", email: "sacha@example.org", email_verified: true };
    const claims = { ...person, iss: issuer, aud: "chappe", iat: now, exp: now + 300, auth_time: now, nonce };
    const signed = `${encoded({ alg: "ES256", kid: "1" })}.${encoded(claims)}`;
    const signature = sign("sha256", signed, { key: privateKey, dsaEncoding: "ieee-p1363" }).toString("base64url");
    return { access_token: "none", token_type: "Bearer", id_token: `${signed}.${signature}` };
}

/** Answers at `--provider`. */
export function open() {
    const [cert, key] = ["tls.crt", "tls.key"].map((name) => readFileSync(join(options.folder, name)));
    const server = createServer({ cert, key }, async (request, response) => {
        const { pathname, searchParams } = new URL(request.url, issuer);
        const isPage = pathname === "/authorize";
        response.setHeader("Content-Type", isPage ? "text/html" : "application/json");
        if (isPage) return response.end(authorize(searchParams));
        // A browser asks for more, such as an icon.
        if (!documents[pathname] && pathname !== "/token") return response.writeHead(404).end("{}");
        const answer = documents[pathname] ?? token(new URLSearchParams(await text(request)));
        return response.writeHead(answer.error ? 400 : 200).end(JSON.stringify(answer));
    });
    const { hostname, port } = new URL(issuer);
    return new Promise((resolve) => server.listen(Number(port), hostname, resolve));
}
