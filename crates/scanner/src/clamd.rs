//! ClamAV's daemon: a file is sent to it in pieces (command `INSTREAM`), it says what it thinks.

use std::{io, time::Duration};

use chappe_world::{Duplex, Socket, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Error, engine::Outcome, source::Source};

/// Bytes of an answer that are read.
const LONGEST: u64 = 4 << 10;
/// How long the daemon has to take a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Sends a file to the daemon.
pub(crate) async fn scan(world: &World, at: &Socket, source: &mut Source<'_>) -> Result<Outcome, Error> {
    let reached = world.timeout(CONNECT, world.connect(at)).await;
    let reached = reached.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
    let mut daemon = reached.map_err(|error| Error::Away(format!("clamd is not reached: {error}")))?;
    source.rewind().await?;
    let sent = send(&mut daemon, source).await;
    let mut answer = Vec::new();
    // A daemon that has seen enough answers before the end and hangs up: what it says counts.
    let heard = daemon.take(LONGEST).read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    let answer = answer.split('\0').next().unwrap_or_default().trim();
    match (outcome(answer), sent, heard) {
        (Some(Outcome::Clean) | None, Err(error), _) | (None, _, Err(error)) => {
            Err(Error::Engine(format!("clamd hung up: {error}")))
        }
        (Some(outcome), ..) => Ok(outcome),
        (None, Ok(()), Ok(_)) => Err(Error::Engine(format!("clamd said {answer:?}"))),
    }
}

async fn send(daemon: &mut Box<dyn Duplex>, source: &mut Source<'_>) -> io::Result<()> {
    daemon.write_all(b"zINSTREAM\0").await?;
    while let Some(piece) = source.next().await? {
        let length = u32::try_from(piece.len()).map_err(io::Error::other)?;
        daemon.write_all(&length.to_be_bytes()).await?;
        daemon.write_all(&piece).await?;
    }
    daemon.write_all(&0_u32.to_be_bytes()).await?;
    daemon.flush().await
}

/// What an answer means; none for errors.
fn outcome(answer: &str) -> Option<Outcome> {
    if answer == "stream: OK" {
        return Some(Outcome::Clean);
    }
    if let Some(name) = answer.strip_prefix("stream: ").and_then(|rest| rest.strip_suffix(" FOUND")) {
        return Some(Outcome::Found(name.to_owned()));
    }
    answer.contains("size limit exceeded").then_some(Outcome::TooLarge)
}
