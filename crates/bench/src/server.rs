//! The measured process: started on an empty folder, watched through `/proc`, stopped by its pid.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::client::Client;

/// How often a server is started that finds its ports taken.
const STARTS: usize = 3;

/// A running server. Killed when dropped.
pub struct Server {
    child: Child,
    folder: TempDir,
    /// The server name.
    pub name: String,
    /// Where its client API listens.
    pub client: SocketAddr,
}

/// A certificate authority for the federation scenarios.
pub struct Authority {
    folder: TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    /// A new authority; its file lives as long as it does.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        fs::write(folder.path().join("ca.pem"), certificate.pem())?;
        Ok(Self { folder, issuer: rcgen::Issuer::new(params, key) })
    }

    /// Its certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes a certificate for `ip` and its key into `folder`.
    pub fn issue(&self, ip: IpAddr, folder: &Path) -> Result<()> {
        let params = rcgen::CertificateParams::new(vec![ip.to_string()])?;
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::write(folder.join("tls.pem"), certificate.pem())?;
        fs::write(folder.join("tls.key"), key.serialize_pem())?;
        Ok(())
    }
}

impl Server {
    /// A server without federation.
    pub async fn start(binary: &Path) -> Result<Self> {
        Self::launch(binary, None).await
    }

    /// A server that federates on loopback, trusted through `authority`.
    pub async fn start_federating(binary: &Path, authority: &Authority) -> Result<Self> {
        Self::launch(binary, Some(authority)).await
    }

    async fn launch(binary: &Path, authority: Option<&Authority>) -> Result<Self> {
        Self::start_with(binary, tempfile::tempdir()?, authority).await
    }

    /// A server on a folder that another one has left.
    pub async fn start_in(binary: &Path, folder: TempDir) -> Result<Self> {
        Self::start_with(binary, folder, None).await
    }

    /// A port that was free may be taken when the server listens: then it is started again on others.
    async fn start_with(binary: &Path, folder: TempDir, authority: Option<&Authority>) -> Result<Self> {
        let mut server = Self::spawn(binary, folder, authority)?;
        for _ in 1..STARTS {
            match server.wait_until_ready().await {
                Err(error) if error.to_string().contains("Address already in use") => {}
                ready => return ready.map(|()| server),
            }
            // A server that federates has a port in its name, and its data are under that name.
            let folder = if authority.is_some() { tempfile::tempdir()? } else { server.folder };
            server = Self::spawn(binary, folder, authority)?;
        }
        server.wait_until_ready().await?;
        Ok(server)
    }

    fn spawn(binary: &Path, folder: TempDir, authority: Option<&Authority>) -> Result<Self> {
        let ip: IpAddr = "127.0.0.1".parse()?;
        let client = SocketAddr::new(ip, free_port()?);
        let federation = SocketAddr::new(ip, free_port()?);
        let name = if authority.is_some() { federation.to_string() } else { "bench.example".to_owned() };
        let mut config = format!(
            "server_name = \"{name}\"\ndata_dir = \"{data}\"\npublic_baseurl = \"http://{client}\"\n\
             [[listeners]]\nport = {port}\napis = [\"client\", \"media\", \"admin\", \"metrics\", \"health\"]\n",
            data = folder.path().join("data").display(),
            port = client.port(),
        );
        let mut outbound = "allowed_ranges = [\"127.0.0.0/8\"]\n".to_owned();
        if let Some(authority) = authority {
            authority.issue(ip, folder.path())?;
            let dir = folder.path().display();
            write!(
                config,
                "[[listeners]]\nport = {port}\napis = [\"federation\"]\n\
                 tls = {{ certificate = \"{dir}/tls.pem\", key = \"{dir}/tls.key\" }}\n",
                port = federation.port(),
            )?;
            writeln!(outbound, "certificate_authorities = [\"{}\"]", authority.file().display())?;
        }
        write!(config, "{}", SECTIONS.replace("{outbound}", &outbound))?;
        let file = folder.path().join("chappe.toml");
        fs::write(&file, config)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let child = Command::new(binary)
            .args(["serve", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        Ok(Self { child, folder, name, client })
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let client = Client::new(self.client);
        for _ in 0..300 {
            if client.get("/_matrix/client/versions").await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.folder.path().join("log"))?;
                anyhow::bail!("the server ended with {status}: {log}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("the server did not get ready within 30 s")
    }

    fn proc(&self, file: &str) -> Result<String> {
        let pid = self.child.id().context("the server has ended")?;
        Ok(fs::read_to_string(format!("/proc/{pid}/{file}"))?)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// Processor time used so far, user and system.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        let fields: Vec<&str> = stat.rsplit(") ").next().context("no stat")?.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // Linux reports in hundredths of a second on every supported architecture.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Processor time used since [`Self::cpu`] said `earlier`.
    pub fn cpu_since(&self, earlier: Duration) -> Result<Duration> {
        Ok(self.cpu()?.saturating_sub(earlier))
    }

    /// Kills the server at once, as a power cut would end it, and gives its folder.
    pub async fn kill(mut self) -> Result<TempDir> {
        self.child.kill().await?;
        Ok(self.folder)
    }

    /// Stops the server politely and gives its folder.
    pub async fn stop(mut self) -> Result<TempDir> {
        if let Some(pid) = self.child.id() {
            Command::new("kill").arg(pid.to_string()).status().await?;
        }
        tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await??;
        Ok(self.folder)
    }
}

/// What every scenario sets: registration open, no limits, the cheapest password hash, durable commits.
const SECTIONS: &str = r#"
[log]
level = "warn"

[process]
max_connections_per_address = 0

[outbound]
{outbound}
[accounts.password]
memory_kib = 8
passes = 1

[federation.rates]
requests = { per_second = 0, burst = 1 }
key_lookups = { per_second = 0, burst = 1 }

[client]
user_directory = "everybody"

[client.registration]
open = true

[client.rates]
request = { per_second = 0, burst = 1 }
login_by_ip = { per_second = 0, burst = 1 }
login_by_account = { per_second = 0, burst = 1 }
registration = { per_second = 0, burst = 1 }
message = { per_second = 0, burst = 1 }
join = { per_second = 0, burst = 1 }
invite = { per_second = 0, burst = 1 }
search = { per_second = 0, burst = 1 }
upload = { per_second = 0, burst = 1 }
"#;

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
