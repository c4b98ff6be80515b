//! Programs of the operator's own that the configuration names: daemons behind a socket, commands.
//!
//! Nobody but the operator chooses them, so the guard of outbound connections is not asked.

use std::{
    ffi::OsStr,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, de::Error as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    process::Command,
};

use crate::World;

/// Where a daemon of the operator's own listens: the path of a Unix socket, or `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A Unix socket.
    Unix(PathBuf),
    /// A host name or address (without brackets) and a port.
    Tcp(String, u16),
}

impl FromStr for Socket {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parts.ok_or("neither the path of a socket nor host:port")?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() { Err("the host is missing") } else { Ok(Self::Tcp(host.to_owned(), port)) }
    }
}

impl<'de> Deserialize<'de> for Socket {
    fn deserialize<D: Deserializer<'de>>(written: D) -> Result<Self, D::Error> {
        String::deserialize(written)?.parse().map_err(D::Error::custom)
    }
}

/// A connection both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl World {
    /// Connects to a daemon of the operator's own. There is no deadline: the caller sets one.
    pub async fn connect(&self, to: &Socket) -> io::Result<Box<dyn Duplex>> {
        let (host, port) = match to {
            Socket::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Socket::Tcp(host, port) => (host, *port),
        };
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.dns().addresses(host).await.map_err(io::Error::other)?,
        };
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in addresses {
            #[expect(clippy::disallowed_methods, reason = "this is where connections are made")]
            match TcpStream::connect(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Runs a program of the operator's own and waits for it; its exit code, none if a signal ended it. What it says goes
    /// nowhere. It is ended when this is dropped.
    pub async fn run(&self, program: &Path, arguments: &[&OsStr]) -> io::Result<Option<i32>> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.kill_on_drop(true).status().await?.code())
    }
}

#[cfg(test)]
mod tests {
    use super::Socket;

    #[test]
    fn sockets_are_paths_or_hosts_with_ports() {
        let tcp = |host: &str| Ok(Socket::Tcp(host.to_owned(), 3310));
        assert_eq!("/run/clamav/clamd.ctl".parse(), Ok(Socket::Unix("/run/clamav/clamd.ctl".into())));
        assert_eq!("clamd.example:3310".parse(), tcp("clamd.example"));
        assert_eq!("[::1]:3310".parse(), tcp("::1"));
        for wrong in ["", "clamd", ":3310", "clamd:x", "run/clamd.ctl"] {
            assert!(wrong.parse::<Socket>().is_err(), "{wrong}");
        }
    }
}
