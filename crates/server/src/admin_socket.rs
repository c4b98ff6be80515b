//! The Unix socket of the admin verbs: both ends.

use std::{
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use anyhow::{Context, Result, bail};
use axum::body::Body;
use bytes::Bytes;
use chappe_admin::{Admin, Answer, RUN_PATH, Verb, socket_routes};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};

use crate::{
    connection::serve_connection,
    listen::{Doorman, Refusals},
};

/// Binds the socket, owner-only from its first moment: it is made in a folder nobody else may enter, then moved.
pub(crate) fn bind(socket: &Path) -> Result<UnixListener> {
    let place = || format!("admin socket {}", socket.display());
    let cradle = socket.with_extension("new");
    let _ = std::fs::remove_dir_all(&cradle);
    std::fs::DirBuilder::new().mode(0o700).create(&cradle).with_context(place)?;
    let young = cradle.join("s");
    let listener = UnixListener::bind(&young).with_context(place)?;
    std::fs::set_permissions(&young, std::fs::Permissions::from_mode(0o600)).with_context(place)?;
    std::fs::rename(&young, socket).with_context(place)?;
    std::fs::remove_dir(&cradle).with_context(place)?;
    Ok(listener)
}

/// Answers verbs until the world stops. Callers must be the owner of the socket or root.
pub(crate) async fn attend(doorman: Doorman, listener: UnixListener, admin: Admin) {
    let router = socket_routes(admin);
    let owner = listener.local_addr().ok().and_then(|_| own_uid());
    let mut refusals = Refusals::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = doorman.world.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                refusals.put_up_with(&error, &doorman.world).await;
                continue;
            }
        };
        let caller = stream.peer_cred().map(|caller| caller.uid()).ok();
        if caller.is_none() || (caller != owner && caller != Some(0)) {
            tracing::warn!(?caller, "admin socket: refused");
            continue;
        }
        let (inner, router) = (doorman.clone(), router.clone());
        doorman.world.spawn("admin connection", async move {
            serve_connection(&inner, stream, None, router).await;
        });
    }
}

/// The user this process runs as.
fn own_uid() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|found| found.uid())
}

/// Has a running server do something; `None` when no server listens at `socket`.
pub(crate) async fn ask(socket: &Path, verb: &Verb) -> Result<Option<Answer>> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("admin socket {}", socket.display())),
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("admin socket")?;
    let request = Request::post(RUN_PATH)
        .header(header::HOST, "admin")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(serde_json::to_vec(verb).context("verb")?))
        .context("admin socket")?;
    let exchange = async {
        let response = sender.send_request(request).await.context("admin socket")?;
        let status = response.status();
        let body = response.into_body().collect().await.context("admin socket")?.to_bytes();
        Ok::<_, anyhow::Error>((status, body))
    };
    let (status, body) = tokio::select! {
        answered = exchange => answered?,
        ended = connection => bail!("admin socket: the server hung up {ended:?}"),
    };
    read(status, &body).map(Some)
}

fn read(status: StatusCode, body: &Bytes) -> Result<Answer> {
    if status == StatusCode::OK {
        return serde_json::from_slice(body).context("the server runs another version of chappe");
    }
    let error: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match error["error"].as_str() {
        Some(sentence) => bail!("{sentence}"),
        None => bail!("the server answered {status}: {}", String::from_utf8_lossy(body)),
    }
}
