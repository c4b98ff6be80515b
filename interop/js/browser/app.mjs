// What the application does in the browser; the programs call it as `app`.
import * as sdk from "matrix-js-sdk";
import { seen } from "../seen.mjs";

const SESSION = "session";
let client;

const session = () => JSON.parse(localStorage.getItem(SESSION));

function crossSign(password) {
    return client.getCrypto().bootstrapCrossSigning({
        authUploadDeviceSigningKeys: async (upload) => {
            try {
                return await upload(null);
            } catch (error) {
                const identifier = { type: "m.id.user", user: client.getUserId() };
                return upload({ type: "m.login.password", identifier, password, session: error.data.session });
            }
        },
    });
}

/** The base URL of the server behind a name. */
async function discover(name) {
    const { state, error, base_url: base } = (await sdk.AutoDiscovery.findClientConfig(name))["m.homeserver"];
    if (state !== sdk.AutoDiscovery.SUCCESS) throw new Error(`${state}: ${error}`);
    return base;
}

/** Logs in and keeps the session. */
async function logIn(base, user, password) {
    const identifier = { type: "m.id.user", user };
    const answer = await sdk.createClient({ baseUrl: base }).loginRequest({ type: "m.login.password", identifier, password });
    keep(base, answer);
}

/** Logs in by the token that the page was left with. */
async function logInByToken(base) {
    const token = new URLSearchParams(location.search).get("loginToken");
    keep(base, await sdk.createClient({ baseUrl: base }).loginRequest({ type: "m.login.token", token }));
    return session();
}

/** Ends a session, which is confirmed on a page of the server in a window of its own. */
async function endSession(deviceId) {
    const client = sdk.createClient(session());
    const { data } = await client.deleteDevice(deviceId).catch((error) => error);
    const done = new Promise((resolve) => {
        addEventListener("message", (message) => message.data === "authDone" && message.origin === client.baseUrl && resolve());
    });
    window.open(client.getFallbackAuthUrl("m.login.sso", data.session));
    await done;
    await client.deleteDevice(deviceId, { session: data.session });
}

function keep(baseUrl, { user_id: userId, device_id: deviceId, access_token: accessToken }) {
    localStorage.setItem(SESSION, JSON.stringify({ baseUrl, userId, deviceId, accessToken }));
}

/** Syncs with the session that is kept; tells whether there was something in IndexedDB already. */
async function start() {
    const store = new sdk.IndexedDBStore({ indexedDB, localStorage, dbName: "store" });
    client = sdk.createClient({ ...session(), store });
    await store.startup();
    const known = Boolean(await store.getSavedSyncToken());
    await client.initRustCrypto();
    await client.startClient({ initialSyncLimit: 20 });
    await seen(client, ["sync"], () => client.getSyncState() === "SYNCING");
    return known;
}

/** Writes what was synced into IndexedDB. */
const save = () => client.store.save(true);

async function encryptedRoom(invitee) {
    const encryption = { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } };
    const { room_id: roomId } = await client.createRoom({
        preset: "trusted_private_chat",
        name: "Ministry to ministry",
        invite: [invitee],
        initial_state: [encryption],
    });
    return roomId;
}

async function accept(roomId) {
    await seen(client, ["Room", "Room.myMembership"], () => client.getRoom(roomId)?.getMyMembership() === "invite");
    await client.joinRoom(roomId);
}

const joined = (roomId, userId) =>
    seen(client, ["Room", "RoomState.members", "RoomMember.membership"], () =>
        client.getRoom(roomId)?.getMember(userId)?.membership === "join");

async function say(roomId, body) {
    await client.sendMessage(roomId, { msgtype: "m.text", body });
}

/** Waits until a text can be read that travelled encrypted. */
async function read(roomId, body) {
    await seen(client, ["Room.timeline", "Event.decrypted"], () => {
        const events = client.getRoom(roomId)?.getLiveTimeline().getEvents() ?? [];
        return events.some((event) => event.getWireType() === "m.room.encrypted" && event.getContent().body === body);
    });
}

/** A picture that no encoder makes small, as PNG. */
async function painted(width, height) {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(width, height);
    for (let n = 0; n < pixels.data.length; n += 65_536) crypto.getRandomValues(pixels.data.subarray(n, n + 65_536));
    for (let n = 3; n < pixels.data.length; n += 4) pixels.data[n] = 255;
    context.putImageData(pixels, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Uploads a picture; gives its address, its size, and how far the upload was each time that it was told. */
async function upload(width, height) {
    const picture = await painted(width, height);
    const progress = [];
    const { content_uri: uri } = await client.uploadContent(picture, {
        name: "portrait.png",
        progressHandler: ({ loaded, total }) => progress.push([loaded, total]),
    });
    await client.setAvatarUrl(uri);
    return { uri, size: picture.size, progress };
}

/** Shows a picture, or a thumbnail of it; gives its kind and its size on the page. */
async function show(uri, width, height) {
    const address = client.mxcUrlToHttp(uri, width, height, width && "scale", false, true, true);
    const response = await fetch(address, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
    if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
    const image = document.body.appendChild(document.createElement("img"));
    image.src = URL.createObjectURL(await response.blob());
    await image.decode();
    return { type: response.headers.get("Content-Type"), width: image.naturalWidth, height: image.naturalHeight };
}

/** What a page can read of an answer. `body` is text, or a number of bytes. */
async function ask(method, address, body, headers = {}) {
    const sent = typeof body === "number" ? new Blob([new Uint8Array(body)]) : body;
    const response = await fetch(address, { method, headers, body: sent });
    const { errcode } = await response.json();
    return { status: response.status, errcode, retryAfter: response.headers.get("Retry-After") };
}

/** As many changes of the name as the server takes; gives the answer to the one too many. */
async function hurry() {
    const { baseUrl, userId, accessToken } = session();
    const address = `${baseUrl}/_matrix/client/v3/profile/${encodeURIComponent(userId)}/displayname`;
    for (let n = 0; n < 50; n++) {
        const headers = { Authorization: `Bearer ${accessToken}` };
        const answer = await ask("PUT", address, JSON.stringify({ displayname: `Camille ${n}` }), headers);
        if (answer.status !== 200) return answer;
    }
    throw new Error("fifty changes of a name were taken");
}

/** Leaves for the server's pages, to log in or to sign up there (OAuth 2.0, authorization code grant). */
async function depart(base, prompt) {
    const metadata = await sdk.createClient({ baseUrl: base }).getAuthMetadata();
    const back = `${location.origin}/back`;
    const clientId = await sdk.OAuth2.registerClient(metadata, {
        client_name: "Application d'essai",
        client_uri: `${location.origin}/`,
        redirect_uris: [back],
        application_type: "web",
    });
    const grant = new sdk.OAuth2(metadata, { clientId });
    const state = crypto.randomUUID();
    sessionStorage.setItem(state, JSON.stringify({ base, metadata, context: grant.context }));
    location.assign(await grant.generateAuthorizationCodeGrantUrl(state, back, "fragment", prompt));
}

/** Comes back with a code: has tokens, other tokens for those, and uses them. */
async function arrive() {
    const answer = new URLSearchParams(location.hash.slice(1));
    const { base, metadata, context } = JSON.parse(sessionStorage.getItem(answer.get("state")));
    if (answer.get("iss") !== metadata.issuer) throw new Error(`the answer comes from ${answer.get("iss")}`);
    const grant = new sdk.OAuth2(metadata, context);
    const first = await grant.completeAuthorizationCodeGrant(answer.get("code"), `${location.origin}/back`);
    const { access_token: accessToken } = await grant.performRefreshTokenGrant(first.refresh_token);
    const whoami = await sdk.createClient({ baseUrl: base, accessToken }).whoami();
    keep(base, { ...whoami, access_token: accessToken });
    return { ...whoami, accessToken, account: metadata.account_management_uri };
}

Object.assign(window, {
    app: {
        ...{ discover, logIn, logInByToken, endSession, start, save, crossSign },
        ...{ encryptedRoom, accept, joined, say, read, upload, show, ask, hurry, depart, arrive },
    },
});
