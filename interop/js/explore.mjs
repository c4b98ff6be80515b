// What Element Web does beyond talking: secret storage, key backup, a new device, threads, relations, delayed events,
// spaces and search, through matrix-js-sdk.
//
//   node explore.mjs BASE_URL [BASE_URL_OF_THE_SECOND] [--registration dummy|token:T|secret:S|login]
//                    [--first user:password] [--second user:password] [--third user:password] [--verbose]
//
// Exit 0 when every step held, 1 with the step's name otherwise.
import assert from "node:assert/strict";
import { account, call, login } from "./accounts.mjs";
import { bases, conclude, crossSign, encryptedRoom, options, received, say, sdk, seen, start, step } from "./agent.mjs";

/** The callbacks of an agent who keeps the recovery key, as typed from paper. */
function keeping(recovery) {
    return {
        cryptoCallbacks: {
            getSecretStorageKey: async ({ keys }) => [Object.keys(keys)[0], recovery.privateKey],
            cacheSecretStorageKey: () => {},
        },
    };
}

async function recovery(client, credentials, kept) {
    const crypto = client.getCrypto();
    Object.assign(kept, await crypto.createRecoveryKeyFromPassphrase());
    await crossSign(client, credentials);
    await crypto.bootstrapSecretStorage({ createSecretStorageKey: async () => kept, setupNewKeyBackup: true });
    assert.ok(await crypto.isSecretStorageReady(), "secret storage is not ready");
    assert.ok(await crypto.getActiveSessionBackupVersion(), "there is no key backup");
}

/** The SDK backs keys up some seconds later, as it likes. */
async function backedUp({ base, accessToken }) {
    const backup = () => call(base, "GET", "/_matrix/client/v3/room_keys/version", undefined, accessToken);
    while ((await backup()).count === 0) await new Promise((resolve) => setTimeout(resolve, 200));
}

/** A second device of somebody reads, with the recovery key alone, what was said before it existed. */
async function newDevice(credentials, kept, roomId, before) {
    const client = await start(await login(credentials.base, credentials.userId, credentials.password), keeping(kept));
    const crypto = client.getCrypto();
    assert.ok(await crypto.userHasCrossSigningKeys(credentials.userId, true), "the public keys are not there");
    await known(client, credentials);
    await crypto.bootstrapCrossSigning({});
    await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    await crypto.checkKeyBackupAndEnable();
    const { imported, total } = await crypto.restoreKeyBackup();
    assert.ok(total > 0 && imported === total, `${imported} of ${total} keys came back`);
    const event = await received(client, roomId, before.getId());
    assert.equal(event.getContent().body, before.getContent().body);
    return client;
}

/** Only then its keys can be signed. */
async function known(client, { base, accessToken, userId }) {
    const asked = { device_keys: { [userId]: [client.getDeviceId()] } };
    const ask = () => call(base, "POST", "/_matrix/client/v3/keys/query", asked, accessToken);
    while (!(await ask()).device_keys[userId]?.[client.getDeviceId()])
        await new Promise((resolve) => setTimeout(resolve, 50));
}

async function trusted(client, other) {
    const status = () => client.getCrypto().getDeviceVerificationStatus(other.getUserId(), other.getDeviceId());
    while (!(await status())?.signedByOwner) await new Promise((resolve) => setTimeout(resolve, 200));
}

/** A room in clear with both inside. */
async function openRoom(camille, dominique, more = {}) {
    const { room_id: roomId } = await camille.createRoom({ preset: "private_chat", invite: [dominique.getUserId()], ...more });
    await seen(dominique, ["Room", "Room.myMembership"], () => dominique.getRoom(roomId)?.getMyMembership() === "invite");
    await dominique.joinRoom(roomId);
    await seen(camille, ["Room", "RoomState.members", "RoomMember.membership"], () =>
        camille.getRoom(roomId)?.getMember(dominique.getUserId())?.membership === "join");
    await seen(dominique, ["Room", "Room.myMembership"], () => dominique.getRoom(roomId)?.getMyMembership() === "join");
    return roomId;
}

const text = (body, more = {}) => ({ msgtype: "m.text", body, ...more });

/** Waits for something in a room. Threads fill up without an event that says so: hence a look now and then. */
async function arrived(client, roomId, look) {
    let found;
    while (!(found = look(client.getRoom(roomId)))) await new Promise((resolve) => setTimeout(resolve, 50));
    return found;
}

/** Sent without the SDK, which loses threads whose own replies come down the sync before they are acknowledged. */
function reply({ base, accessToken }, roomId, root, body) {
    const path = `/_matrix/client/v3/rooms/${encodeURIComponent(roomId)}/send/m.room.message/${encodeURIComponent(body)}`;
    const relation = { rel_type: "m.thread", event_id: root, is_falling_back: true, "m.in_reply_to": { event_id: root } };
    return call(base, "PUT", path, text(body, { "m.relates_to": relation }), accessToken);
}

async function threads(camille, dominique, one, two, roomId) {
    const { event_id: root } = await camille.sendMessage(roomId, text("who takes the minutes?"));
    for (const client of [camille, dominique]) await arrived(client, roomId, (room) => room.findEventById(root));
    const { event_id: answer } = await reply(two, roomId, root, "I do");
    // Who opens a thread does not count what comes meanwhile.
    for (const client of [camille, dominique])
        await arrived(client, roomId, (room) => {
            const thread = room.getThread(root);
            return thread?.initialEventsFetched && thread.findEventById(answer);
        });
    const { event_id: thanks } = await reply(one, roomId, root, "thank you");
    const last = await arrived(dominique, roomId, (room) => room.getThread(root)?.findEventById(thanks));
    const { events, originalEvent } = await dominique.relations(roomId, root, "m.thread", null, { limit: 10 });
    assert.equal(originalEvent.getId(), root);
    assert.deepEqual(events.map((event) => event.getId()), [thanks, answer]);
    await arrived(dominique, roomId, (room) => room.getThread(root).length === 2);
    await dominique.sendReadReceipt(last);
    const reader = dominique.getUserId();
    await arrived(camille, roomId, (room) => room.getThread(root)?.getEventReadUpTo(reader) === thanks);
    const listed = await dominique.createThreadListMessagesRequest(roomId, null, 10);
    assert.deepEqual(listed.chunk.map((event) => event.event_id), [root]);
    assert.equal(listed.chunk[0].unsigned["m.relations"]["m.thread"].count, 2);
}

async function relations(camille, dominique, roomId) {
    const { event_id: said } = await camille.sendMessage(roomId, text("at ten"));
    await arrived(dominique, roomId, (room) => room.findEventById(said));
    const annotation = { "m.relates_to": { rel_type: "m.annotation", event_id: said, key: "👍" } };
    const { event_id: thumb } = await dominique.sendEvent(roomId, "m.reaction", annotation);
    const edit = { "m.new_content": text("at eleven"), "m.relates_to": { rel_type: "m.replace", event_id: said } };
    await camille.sendMessage(roomId, text("* at eleven", edit));
    await arrived(dominique, roomId, (room) => room.findEventById(said).getContent().body === "at eleven");
    await arrived(camille, roomId, (room) => room.findEventById(thumb));
    const reactions = await camille.relations(roomId, said, "m.annotation", "m.reaction", { recurse: true });
    assert.deepEqual(reactions.events.map((event) => event.getId()), [thumb]);
    const fetched = await camille.fetchRoomEvent(roomId, said);
    assert.equal(fetched.unsigned["m.relations"]["m.replace"].content["m.new_content"].body, "at eleven");
    await dominique.redactEvent(roomId, thumb);
    await arrived(camille, roomId, (room) => room.findEventById(thumb)?.isRedacted());
    assert.deepEqual((await camille.relations(roomId, said, "m.annotation", "m.reaction")).events, []);
}

async function delayedEvents(camille, dominique, roomId) {
    const later = (delay, body) => camille._unstable_sendDelayedEvent(roomId, { delay }, null, "m.room.message", text(body));
    const { delay_id: never } = await later(600_000, "never");
    const { delay_id: now } = await later(600_000, "sent at once");
    await later(500, "sent by itself");
    const waiting = await camille._unstable_getDelayedEvents();
    assert.ok(JSON.stringify(waiting).includes(never), "the delayed event is not listed");
    await camille._unstable_restartScheduledDelayedEvent(never);
    await camille._unstable_cancelScheduledDelayedEvent(never);
    await camille._unstable_sendScheduledDelayedEvent(now);
    const bodies = (room) => room.getLiveTimeline().getEvents().map((event) => event.getContent().body);
    for (const body of ["sent at once", "sent by itself"])
        await arrived(dominique, roomId, (room) => bodies(room).includes(body));
    assert.ok(!bodies(dominique.getRoom(roomId)).includes("never"));
    await assert.rejects(camille._unstable_cancelScheduledDelayedEvent("no-such-delay"));
}

async function spaces(camille, dominique, roomId) {
    const space = await openRoom(camille, dominique, { name: "Directorate", creation_content: { type: "m.space" } });
    const via = [camille.getDomain()];
    await camille.sendStateEvent(space, "m.space.child", { via, order: "a" }, roomId);
    const hidden = (await camille.createRoom({ preset: "private_chat", name: "For Camille alone" })).room_id;
    await camille.sendStateEvent(space, "m.space.child", { via, order: "b" }, hidden);
    await seen(dominique, ["RoomState.events"], () =>
        dominique.getRoom(space).currentState.getStateEvents("m.space.child", hidden));
    const { rooms } = await dominique.getRoomHierarchy(space, 50, 3, false);
    assert.deepEqual(rooms.map((room) => room.room_id), [space, roomId]);
    assert.deepEqual(rooms[0].children_state.map((child) => child.state_key), [roomId, hidden]);
    assert.deepEqual((await camille.getRoomHierarchy(space)).rooms.map((room) => room.room_id), [space, roomId, hidden]);
}

/** Newest first, page by page, with what was said around each; nobody finds what they may not see. */
async function search(camille, dominique, stranger, roomId) {
    const said = [];
    for (let tower = 0; tower < 7; tower++)
        said.unshift((await camille.sendMessage(roomId, text(`tower ${tower} to Chappe's telegraph`))).event_id);
    const { event_id: after } = await camille.sendMessage(roomId, text("end of transmission"));
    await arrived(dominique, roomId, (room) => room.findEventById(after));
    const ids = (found) => found.results.map((result) => result.context.getEvent().getId());
    const term = "telegraph";
    const found = await dominique.searchRoomEvents({ term, filter: { rooms: [roomId], limit: 3 } });
    assert.equal(found.count, said.length);
    assert.deepEqual(ids(found), said.slice(0, 3));
    assert.deepEqual(found.highlights, [term]);
    const around = found.results[0].context.getTimeline().map((event) => event.getId());
    assert.deepEqual(around, [said[1], said[0], after]);
    while (found.next_batch) await dominique.backPaginateRoomEventsSearch(found);
    assert.deepEqual(ids(found), said);
    await camille.redactEvent(roomId, said[0]);
    await arrived(dominique, roomId, (room) => room.findEventById(said[0])?.isRedacted());
    const { room_events: plain } = (await dominique.searchMessageText({ query: term })).search_categories;
    assert.equal(plain.count, said.length - 1);
    const ofStranger = await stranger.searchRoomEvents({ term, filter: { rooms: [roomId] } });
    assert.deepEqual([ofStranger.count, ofStranger.results], [0, []]);
}

async function main() {
    assert.ok(bases.length >= 1, "which server? give its base URL");
    const method = options.registration;
    const kept = {};
    const [one, two] = await step("sign up and log in", () =>
        Promise.all([
            account(bases[0], "camille", method, options.first),
            account(bases[1] ?? bases[0], "dominique", method, options.second),
        ]));
    const [camille, dominique] = await step("first sync with encryption", async () => [
        await start(one, keeping(kept)),
        await start(two),
    ]);
    await step("cross-signing, secret storage, key backup", () => recovery(camille, one, kept));
    await step("cross-signing of the other", () => crossSign(dominique, two));
    const secret = await step("an encrypted room", async () => {
        const roomId = await encryptedRoom(camille, two.userId);
        await seen(dominique, ["Room", "Room.myMembership"], () => dominique.getRoom(roomId)?.getMyMembership() === "invite");
        await dominique.joinRoom(roomId);
        await seen(camille, ["Room", "RoomState.members", "RoomMember.membership"], () =>
            camille.getRoom(roomId)?.getMember(two.userId)?.membership === "join");
        await arrived(dominique, roomId, (room) => room.getMyMembership() === "join" && room.hasEncryptionStateEvent());
        return roomId;
    });
    const before = await step("a message that is backed up", async () => {
        const event = await say(dominique, camille, secret, "Said before there was another device");
        await backedUp(one);
        return event;
    });
    const second = await step("a new device recovers", () => newDevice(one, kept, secret, before));
    await step("the other sees that it is trusted", () => trusted(dominique, second));
    await step("the new device is talked to", () => say(dominique, second, secret, "Welcome"));
    second.stopClient();
    const roomId = await step("a room in clear", () => openRoom(camille, dominique));
    await step("threads", () => threads(camille, dominique, one, two, roomId));
    await step("reactions, edits, redactions", () => relations(camille, dominique, roomId));
    await step("delayed events", () => delayedEvents(camille, dominique, roomId));
    await step("spaces", () => spaces(camille, dominique, roomId));
    await step("search", async () => {
        const { base: baseUrl, userId, accessToken } = await account(bases[0], "stranger", method, options.third);
        await search(camille, dominique, sdk.createClient({ baseUrl, userId, accessToken }), roomId);
    });
}

await conclude(main);
