//! A mail relay that delivers to nobody: it prints what it gets. For development and tests.

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// Longest mail kept, in bytes.
const MAX_MAIL: usize = 1 << 20;

/// A mail as it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// `RCPT TO` addresses.
    pub to: Vec<String>,
    /// Head and body, with quoted-printable undone.
    pub text: String,
}

/// Receives mails on 127.0.0.1 and prints them until the process ends.
pub(crate) async fn run(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.context("mail sink")?;
    let (sender, mut mails) = mpsc::channel(16);
    let printing = async {
        while let Some(mail) = mails.recv().await {
            print(&mail)?;
        }
        Ok(())
    };
    tokio::select! {
        () = receive(listener, sender) => Ok(()),
        printed = printing => printed,
    }
}

fn print(mail: &Received) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "----- mail to {}\n{}", mail.to.join(", "), mail.text).context("standard output")?;
    out.flush().context("standard output")
}

/// Receives mails, one connection after another, until nobody wants them any more.
pub async fn receive(listener: TcpListener, mails: mpsc::Sender<Received>) {
    while !mails.is_closed() {
        let Ok((stream, _)) = listener.accept().await else { return };
        for mail in converse(stream).await.unwrap_or_default() {
            if mails.send(mail).await.is_err() {
                return;
            }
        }
    }
}

/// Speaks just enough SMTP (RFC 5321) with one client.
async fn converse(stream: TcpStream) -> std::io::Result<Vec<Received>> {
    let mut stream = BufReader::new(stream);
    let (mut mails, mut mail) = (Vec::new(), Received::default());
    stream.write_all(b"220 mail sink\r\n").await?;
    loop {
        let Some(line) = line(&mut stream).await? else { return Ok(mails) };
        let upper = line.to_ascii_uppercase();
        let answer: &[u8] = if upper.starts_with("RCPT TO:") {
            mail.to.push(line[8..].trim().trim_matches(['<', '>']).to_owned());
            b"250 ok\r\n"
        } else if upper == "DATA" {
            stream.write_all(b"354 end with a dot\r\n").await?;
            mail.text = data(&mut stream).await?;
            mails.push(std::mem::take(&mut mail));
            b"250 kept\r\n"
        } else if upper == "QUIT" {
            stream.write_all(b"221 bye\r\n").await?;
            return Ok(mails);
        } else {
            b"250 ok\r\n"
        };
        stream.write_all(answer).await?;
    }
}

async fn line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if stream.read_until(b'\n', &mut bytes).await? == 0 || bytes.len() > MAX_MAIL {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned()))
}

async fn data(
    stream: &mut (impl AsyncRead + AsyncWrite + AsyncBufReadExt + Unpin),
) -> std::io::Result<String> {
    let mut raw = String::new();
    while let Some(line) = line(stream).await? {
        if line == "." || raw.len() > MAX_MAIL {
            break;
        }
        raw.push_str(line.strip_prefix('.').unwrap_or(&line));
        raw.push('\n');
    }
    Ok(unquoted(&raw))
}

/// Undoes quoted-printable (RFC 2045 §6.7), so that links can be read and clicked.
fn unquoted(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex =
            || std::str::from_utf8(tail.get(..2)?).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = match (byte, tail.first()) {
            (b'=', Some(b'\n')) => &tail[1..],
            (b'=', _) if let Some(decoded) = hex() => {
                bytes.push(decoded);
                &tail[2..]
            }
            _ => {
                bytes.push(byte);
                tail
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::unquoted;

    #[test]
    fn quoted_printable_is_undone() {
        assert_eq!(unquoted("a=C3=A9=\nb c=3Dd = e"), "aéb c=d = e");
    }
}
