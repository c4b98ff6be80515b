// Two agents talk, end-to-end encrypted, through matrix-js-sdk with its Rust crypto.
//
//   node talk.mjs BASE_URL [BASE_URL_OF_THE_SECOND] [--registration dummy|token:T|secret:S|login]
//                 [--first user:password] [--second user:password] [--verbose]
//
// Exit 0 when every step held, 1 with the step's name otherwise.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";

const { values: options, positionals: bases } = parseArgs({
    allowPositionals: true,
    options: {
        registration: { type: "string", default: "dummy" },
        first: { type: "string" },
        second: { type: "string" },
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

const sdk = await import("matrix-js-sdk");
const { account, call } = await import("./accounts.mjs");
const attachment = await import("./attachment.mjs");

const STEP_LIMIT = 30_000;
const WHOLE_LIMIT = 180_000;

/** Runs one named step, bounded in time. */
async function step(name, action) {
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

/** Resolves with the first truthy value of `look`, asked now and at each of the events. */
function seen(emitter, events, look) {
    return new Promise((resolve) => {
        const check = (...details) => {
            const value = look(...details);
            if (!value) return;
            for (const event of events) emitter.off(event, check);
            resolve(value);
        };
        for (const event of events) emitter.on(event, check);
        check();
    });
}

async function start(credentials) {
    const { base: baseUrl, userId, deviceId, accessToken } = credentials;
    const client = sdk.createClient({ baseUrl, userId, deviceId, accessToken });
    await client.initRustCrypto({ useIndexedDB: false });
    await client.startClient({ initialSyncLimit: 20 });
    await seen(client, ["sync"], () => client.getSyncState() === "PREPARED" || client.getSyncState() === "SYNCING");
    return client;
}

async function crossSign(client, { userId, password }) {
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

async function encryptedRoom(client, invitee) {
    const { room_id: roomId } = await client.createRoom({
        preset: "trusted_private_chat",
        name: "Ministry to ministry",
        invite: [invitee],
        initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
    });
    return roomId;
}

/** Waits until `client` shows the event of another, decrypted, and gives it. */
async function received(client, roomId, eventId) {
    const event = await seen(client, ["Room.timeline", "Event.decrypted"], () => {
        const found = client.getRoom(roomId)?.findEventById(eventId);
        return found && !found.isBeingDecrypted() && !found.isDecryptionFailure() && found.getType() === "m.room.message" && found;
    });
    assert.equal(event.getWireType(), "m.room.encrypted", "the message travelled in clear");
    return event;
}

async function say(from, to, roomId, body) {
    const { event_id: eventId } = await from.sendMessage(roomId, { msgtype: "m.text", body });
    const event = await received(to, roomId, eventId);
    assert.equal(event.getContent().body, body);
    assert.equal(event.getSender(), from.getUserId());
    return event;
}

async function sendFile(from, to, roomId, credentials) {
    const bytes = randomBytes(100_000);
    const { ciphertext, file } = await attachment.encrypt(bytes);
    const { content_uri: url } = await from.uploadContent(new Blob([ciphertext]), { type: "application/octet-stream" });
    const content = { msgtype: "m.file", body: "note.bin", info: { size: bytes.length }, file: { ...file, url } };
    const { event_id: eventId } = await from.sendMessage(roomId, content);
    const event = await received(to, roomId, eventId);
    const link = to.mxcUrlToHttp(event.getContent().file.url, undefined, undefined, undefined, false, true, true);
    assert.equal((await fetch(link)).status, 401, "media were handed out without a token");
    const response = await fetch(link, { headers: { Authorization: `Bearer ${credentials.accessToken}` } });
    assert.equal(response.status, 200);
    const back = await attachment.decrypt(new Uint8Array(await response.arrayBuffer()), event.getContent().file);
    assert.ok(bytes.equals(back), "the file came back different");
}

async function typing(from, to, roomId) {
    const member = () => to.getRoom(roomId)?.getMember(from.getUserId());
    for (const isTyping of [true, false]) {
        await from.sendTyping(roomId, isTyping, 20_000);
        await seen(to, ["RoomMember.typing"], () => member()?.typing === isTyping);
    }
}

async function receipt(from, to, roomId, event) {
    await from.sendReadReceipt(event);
    await seen(to, ["Room.receipt"], () => to.getRoom(roomId).getEventReadUpTo(from.getUserId()) === event.getId());
}

async function leave(client, { base, accessToken }) {
    await client.logout(true);
    await assert.rejects(call(base, "GET", "/_matrix/client/v3/account/whoami", undefined, accessToken), (error) => {
        assert.equal(error.answer.errcode, "M_UNKNOWN_TOKEN");
        return true;
    });
}

async function main() {
    assert.ok(bases.length >= 1, "which server? give its base URL");
    const method = options.registration;
    const [one, two] = await step("sign up and log in", () =>
        Promise.all([
            account(bases[0], "camille", method, options.first),
            account(bases[1] ?? bases[0], "dominique", method, options.second),
        ]));
    const [camille, dominique] = await step("first sync with encryption", async () => [await start(one), await start(two)]);
    await step("cross-signing", async () => {
        await crossSign(camille, one);
        await crossSign(dominique, two);
    });
    const roomId = await step("create an encrypted room and invite", () => encryptedRoom(camille, two.userId));
    await step("accept the invitation", async () => {
        await seen(dominique, ["Room", "Room.myMembership"], () => dominique.getRoom(roomId)?.getMyMembership() === "invite");
        await dominique.joinRoom(roomId);
        await seen(camille, ["RoomState.members", "RoomMember.membership"], () =>
            camille.getRoom(roomId)?.getMember(two.userId)?.membership === "join");
    });
    await step("a message each way, decrypted", async () => {
        await say(camille, dominique, roomId, "Bonjour, ici le premier ministère.");
        await say(dominique, camille, roomId, "Bien reçu, ici le second. 🗼");
    });
    await step("an encrypted file", () => sendFile(camille, dominique, roomId, two));
    const last = await step("ten messages in a row, in order", async () => {
        let event;
        for (let n = 0; n < 10; n++) event = await say(camille, dominique, roomId, `message ${n}`);
        return event;
    });
    await step("typing is seen", () => typing(dominique, camille, roomId));
    await step("the receipt is seen", () => receipt(dominique, camille, roomId, last));
    await step("log out", async () => {
        await leave(camille, one);
        await leave(dominique, two);
    });
}

setTimeout(() => {
    print(`js: FAIL: not done after ${WHOLE_LIMIT / 1000} s`);
    process.exit(1);
}, WHOLE_LIMIT).unref();
await main();
print("js: all steps held");
process.exit(0);
