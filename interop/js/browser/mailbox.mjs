// A mail relay that keeps what it gets, and knows the links in it.
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { options } from "../agent.mjs";

const links = new Map();
const waiting = new Map();

function keep(to, lines) {
    const text = lines.join("\n").replace(/^\.\./gm, ".").replace(/=\n/g, "").replace(/=3D/g, "=");
    const [link] = text.match(/https:\/\/localhost:\S+/) ?? [];
    const take = waiting.get(to);
    waiting.delete(to);
    if (take) take(link);
    else links.set(to, link);
}

async function converse(socket) {
    let to;
    let lines;
    socket.write("220 mailbox\r\n");
    for await (const line of createInterface(socket)) {
        if (lines && line !== ".") {
            lines.push(line);
            continue;
        }
        if (lines) keep(to, lines);
        lines = line.toUpperCase() === "DATA" ? [] : undefined;
        to = line.match(/^RCPT TO:<(.*)>/i)?.[1] ?? to;
        socket.write(lines ? "354 go on\r\n" : "250 yes\r\n");
    }
}

/** Takes the mails of the server. */
export function open() {
    const server = createServer((socket) => converse(socket).catch(() => {}));
    return new Promise((resolve) => server.listen(Number(options.mail), "127.0.0.1", resolve));
}

/** The first link in the next mail to an address. */
export function link(to) {
    const known = links.get(to);
    links.delete(to);
    return known ?? new Promise((resolve) => waiting.set(to, resolve));
}
