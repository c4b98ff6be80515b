// What the programs share: steps bounded in time, clients with encryption, encrypted rooms, waiting for an event.
import assert from "node:assert/strict";
import { parseArgs } from "node:util";
import { seen } from "./seen.mjs";

export { seen };

/** Options and base URLs of the command line. */
export const { values: options, positionals: bases } = parseArgs({
    allowPositionals: true,
    options: {
        registration: { type: "string", default: "dummy" },
        first: { type: "string" },
        second: { type: "string" },
        third: { type: "string" },
        folder: { type: "string" },
        mail: { type: "string" },
        provider: { type: "string" },
        verbose: { type: "boolean", default: false },
    },
});
const print = console.info.bind(console);
if (!options.verbose) for (const level of ["debug", "log", "info", "warn", "error", "trace"]) console[level] = () => {};

// Node 20 is still around, and this is all that the SDK misses there.
Promise.withResolvers ??= function withResolvers() {
    const parts = {};
    parts.promise = new this((resolve, reject) => Object.assign(parts, { resolve, reject }));
    return parts;
};

export const sdk = await import("matrix-js-sdk");

const STEP_LIMIT = 60_000;
const WHOLE_LIMIT = 180_000;

/** Runs one named step, bounded in time. */
export async function step(name, action) {
    const began = Date.now();
    let timer;
    const limit = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`nothing within ${STEP_LIMIT / 1000} s`)), STEP_LIMIT);
    });
    try {
        const result = await Promise.race([action(), limit]);
        print(`js: ok   ${name} (${Date.now() - began} ms)`);
        return result;
    } catch (error) {
        print(`js: FAIL ${name}: ${error.stack}`);
        process.exit(1);
    } finally {
        clearTimeout(timer);
    }
}

/** A client that has synced once, with encryption. `more` goes to the SDK's `createClient`. */
export async function start(credentials, more = {}) {
    const { base: baseUrl, userId, deviceId, accessToken } = credentials;
    const client = sdk.createClient({ baseUrl, userId, deviceId, accessToken, ...more });
    await client.initRustCrypto({ useIndexedDB: false });
    await client.startClient({ initialSyncLimit: 20, threadSupport: true });
    await seen(client, ["sync"], () => client.getSyncState() === "PREPARED" || client.getSyncState() === "SYNCING");
    return client;
}

/** Makes cross-signing keys, with the password where the server asks for it. */
export async function crossSign(client, { userId, password }) {
    await client.getCrypto().bootstrapCrossSigning({
        authUploadDeviceSigningKeys: async (upload) => {
            try {
                return await upload(null);
            } catch (error) {
                const session = error.data?.session;
                if (!session) throw error;
                const identifier = { type: "m.id.user", user: userId };
                return upload({ type: "m.login.password", identifier, password, session });
            }
        },
    });
    assert.ok(await client.getCrypto().isCrossSigningReady(), "cross-signing is not ready");
}

/** A private room with encryption; gives its id. */
export async function encryptedRoom(client, invitee) {
    const { room_id: roomId } = await client.createRoom({
        preset: "trusted_private_chat",
        name: "Ministry to ministry",
        invite: [invitee],
        initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
    });
    return roomId;
}

/** Waits until `client` shows the event of another, decrypted, and gives it. */
export async function received(client, roomId, eventId) {
    const event = await seen(client, ["Room.timeline", "Event.decrypted"], () => {
        const found = client.getRoom(roomId)?.findEventById(eventId);
        return found && !found.isBeingDecrypted() && !found.isDecryptionFailure() && found.getType() === "m.room.message" && found;
    });
    assert.equal(event.getWireType(), "m.room.encrypted", "the message travelled in clear");
    return event;
}

/** Sends a text and waits until the other one has read it. */
export async function say(from, to, roomId, body) {
    const { event_id: eventId } = await from.sendMessage(roomId, { msgtype: "m.text", body });
    const event = await received(to, roomId, eventId);
    assert.equal(event.getContent().body, body);
    assert.equal(event.getSender(), from.getUserId());
    return event;
}

/** Runs a program of steps to its end; exits 1 when it takes too long. */
export async function conclude(program) {
    setTimeout(() => {
        print(`js: FAIL: not done after ${WHOLE_LIMIT / 1000} s`);
        process.exit(1);
    }, WHOLE_LIMIT).unref();
    await program();
    print("js: all steps held");
    process.exit(0);
}
