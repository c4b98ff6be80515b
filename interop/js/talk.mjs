// Two agents talk, end-to-end encrypted, through matrix-js-sdk with its Rust crypto.
//
//   node talk.mjs BASE_URL [BASE_URL_OF_THE_SECOND] [--registration dummy|token:T|secret:S|login]
//                 [--first user:password] [--second user:password] [--verbose]
//
// Exit 0 when every step held, 1 with the step's name otherwise.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { account, call } from "./accounts.mjs";
import { bases, conclude, crossSign, encryptedRoom, options, received, say, seen, start, step } from "./agent.mjs";
import * as attachment from "./attachment.mjs";

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
        await seen(camille, ["Room", "RoomState.members", "RoomMember.membership"], () =>
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

await conclude(main);
