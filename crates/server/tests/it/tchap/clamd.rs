//! A daemon of the test's own that speaks ClamAV's protocol, on loopback.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What the daemon takes for a virus.
pub(super) const VIRUS: &[u8] = b"a virus of these tests";

pub(super) struct Clamd {
    port: u16,
    serving: JoinHandle<()>,
}

impl Clamd {
    #[expect(clippy::disallowed_methods, reason = "a test's own daemon")]
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client));
            }
        });
        Self { port, serving }
    }

    /// The section of the configuration, with more lines in it.
    pub(super) fn section(&self, more: &str) -> String {
        format!("[scanner]\nclamd = \"127.0.0.1:{}\"\n{more}", self.port)
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut client: TcpStream) {
    let mut command = [0; 10];
    client.read_exact(&mut command).await.unwrap();
    assert_eq!(&command, b"zINSTREAM\0");
    let mut seen = Vec::new();
    loop {
        let mut piece = vec![0; client.read_u32().await.unwrap() as usize];
        if piece.is_empty() {
            break;
        }
        client.read_exact(&mut piece).await.unwrap();
        seen.extend(piece);
    }
    let is_found = seen.windows(VIRUS.len()).any(|window| window == VIRUS);
    let answer: &[u8] = if is_found { b"stream: Test.Virus-1 FOUND\0" } else { b"stream: OK\0" };
    client.write_all(answer).await.unwrap();
}
