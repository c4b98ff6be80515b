//! One device of somebody: a client that syncs in the background, as Element X does.

use anyhow::{Context, Result, ensure};
use matrix_sdk::{
    Client, Room, ThreadingSupport,
    encryption::{BackupDownloadStrategy, EncryptionSettings},
    reqwest::Url,
    ruma::{OwnedUserId, RoomId, api::error::ErrorKind},
    sliding_sync::VersionBuilder,
};
use matrix_sdk_ui::sync_service::{State, SyncService};
use tempfile::TempDir;

use crate::steps::until_true;

/// A logged-in device, its sync, and where it keeps what it knows.
pub(crate) struct Person {
    pub(crate) client: Client,
    pub(crate) sync: SyncService,
    _folder: TempDir,
}

impl Person {
    /// Logs in with a password: a new device, which makes cross-signing keys where there are none, and syncs.
    pub(crate) async fn log_in(at: &Url) -> Result<Self> {
        let mut base = at.clone();
        let password = at.password().context("no password")?;
        base.set_username("").ok().context("no user name")?;
        base.set_password(None).ok().context("no password")?;
        let folder = tempfile::tempdir()?;
        let client = Client::builder()
            .homeserver_url(base)
            .sliding_sync_version_builder(VersionBuilder::DiscoverNative)
            .sqlite_store(folder.path(), None)
            .with_threading_support(ThreadingSupport::Enabled { with_subscriptions: true })
            .with_encryption_settings(EncryptionSettings {
                auto_enable_cross_signing: true,
                backup_download_strategy: BackupDownloadStrategy::AfterDecryptionFailure,
                auto_enable_backups: false,
            })
            .build()
            .await?;
        let login = client.matrix_auth().login_username(at.username(), password);
        login.initial_device_display_name("matrix-rust-sdk").send().await?;
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        let sync = SyncService::builder(client.clone()).with_offline_mode().build().await?;
        sync.start().await;
        Ok(Self { client, sync, _folder: folder })
    }

    /// Ends the sync and logs out; afterwards the token is worth nothing.
    pub(crate) async fn log_out(self) -> Result<()> {
        ensure!(matches!(self.sync.state().get(), State::Running), "the sync did not run to the end");
        self.sync.stop().await;
        self.client.matrix_auth().logout().await?;
        let error = self.client.whoami().await.err().context("the token still works")?;
        ensure!(matches!(error.client_api_error_kind(), Some(ErrorKind::UnknownToken { .. })), "{error}");
        Ok(())
    }

    /// Whose device this is.
    pub(crate) fn user_id(&self) -> OwnedUserId {
        self.client.user_id().expect("logged in").to_owned()
    }

    /// A room that the sync has told of.
    pub(crate) fn room(&self, room_id: &RoomId) -> Result<Room> {
        self.client.get_room(room_id).with_context(|| format!("{room_id} is not known"))
    }

    /// Waits until the sync tells of a room in a certain way.
    pub(crate) async fn sees(&self, room_id: &RoomId, look: impl Fn(&Room) -> bool) -> Result<Room> {
        until_true(async || Ok(self.client.get_room(room_id).is_some_and(|room| look(&room)))).await?;
        self.room(room_id)
    }
}
