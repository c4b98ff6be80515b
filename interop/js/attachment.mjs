// Encrypted attachments, as the specification describes them (AES-CTR, SHA-256).
import { webcrypto as crypto } from "node:crypto";

const unpadded = (bytes) => Buffer.from(bytes).toString("base64").replace(/=+$/, "");

/** Encrypts bytes; gives the ciphertext and the `file` object without its `url`. */
export async function encrypt(bytes) {
    const key = await crypto.subtle.generateKey({ name: "AES-CTR", length: 256 }, true, ["encrypt", "decrypt"]);
    const counter = new Uint8Array(16);
    crypto.getRandomValues(counter.subarray(0, 8));
    const ciphertext = await crypto.subtle.encrypt({ name: "AES-CTR", counter, length: 64 }, key, bytes);
    const hash = await crypto.subtle.digest("SHA-256", ciphertext);
    const file = {
        v: "v2",
        key: { ...(await crypto.subtle.exportKey("jwk", key)), ext: true },
        iv: unpadded(counter),
        hashes: { sha256: unpadded(hash) },
    };
    return { ciphertext: new Uint8Array(ciphertext), file };
}

/** Checks the hash and decrypts. */
export async function decrypt(ciphertext, file) {
    const hash = await crypto.subtle.digest("SHA-256", ciphertext);
    if (unpadded(hash) !== file.hashes.sha256) throw new Error("the attachment's hash is wrong");
    const key = await crypto.subtle.importKey("jwk", file.key, { name: "AES-CTR" }, false, ["decrypt"]);
    const counter = Buffer.from(file.iv, "base64");
    return new Uint8Array(await crypto.subtle.decrypt({ name: "AES-CTR", counter, length: 64 }, key, ciphertext));
}
