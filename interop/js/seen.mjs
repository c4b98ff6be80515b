// Waiting, in Node and in browsers.

/** Resolves with the first truthy value of `look`, asked now and at each of the events. */
export function seen(emitter, events, look) {
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
