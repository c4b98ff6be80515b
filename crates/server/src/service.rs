//! What the service manager hears: that the server is up (`sd_notify(3)`).

use std::os::unix::net::UnixDatagram;

/// Tells systemd, where it asked for that with `Type=notify`, that the server answers.
pub(crate) fn say_ready() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = UnixDatagram::unbound().and_then(|own| own.send_to(b"READY=1", &socket));
    if let Err(error) = told {
        tracing::warn!(%error, ?socket, "cannot tell the service manager that the server is up");
    }
}
