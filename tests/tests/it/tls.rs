//! The wire between the planes under TLS, with certificates on both sides, and that to Postgres.

use crate::scene::{CLAUDE, Scene};
use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use testkit::fleet::{self, Fleet};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

/// An authority that signs, and where its certificate lies.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    name: &'static str,
}

impl Authority {
    fn new(folder: &Path, name: &'static str) -> Result<Self> {
        let mut params = CertificateParams::new([])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { issuer, folder: folder.to_owned(), name };
        std::fs::write(authority.file("ca"), authority.issuer.pem())?;
        Ok(authority)
    }

    fn file(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}-{what}.pem", self.name))
    }

    fn text(&self, what: &str) -> String {
        self.file(what).to_string_lossy().into_owned()
    }

    /// A certificate for 127.0.0.1 with its key.
    fn sign(&self, purpose: ExtendedKeyUsagePurpose) -> Result<()> {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        std::fs::write(self.file("cert"), params.signed_by(&key, &self.issuer)?.pem())?;
        std::fs::write(self.file("key"), key.serialize_pem())?;
        Ok(())
    }
}

#[tokio::test]
async fn proxies_and_the_control_plane_show_each_other_certificates() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ours = Authority::new(folder.path(), "ours")?;
    ours.sign(ExtendedKeyUsagePurpose::ServerAuth)?;
    let theirs = Authority::new(folder.path(), "theirs")?;
    theirs.sign(ExtendedKeyUsagePurpose::ClientAuth)?;
    let plan = Fleet::plan()
        .grpc_over_tls()
        .control_env("GRPC_CERT_FILE", &ours.text("cert"))
        .control_env("GRPC_KEY_FILE", &ours.text("key"))
        .control_env("GRPC_CLIENT_CA_FILE", &theirs.text("ca"))
        .proxy_env("CONTROL_CA_FILE", &ours.text("ca"))
        .proxy_env("CONTROL_CERT_FILE", &theirs.text("cert"))
        .proxy_env("CONTROL_KEY_FILE", &theirs.text("key"));
    let mut scene = Scene::open(plan).await?;
    for at in [0, 1] {
        assert_eq!(scene.alice(at).status(CLAUDE).await?, 200);
    }
    scene.fleet.expect_records("true", 2).await?;

    // Another authority's certificate is no entry, however good the token is: the proxy goes on with its table of
    // before, and its records wait.
    let stranger = Authority::new(folder.path(), "stranger")?;
    stranger.sign(ExtendedKeyUsagePurpose::ClientAuth)?;
    for what in ["cert", "key"] {
        std::fs::copy(stranger.file(what), theirs.file(what))?;
    }
    scene.fleet.proxies[1].kill();
    scene.fleet.start_proxy(1).await?;
    assert_eq!(scene.alice(1).status(CLAUDE).await?, 200);
    let fleet = scene.fleet.admin.fleet().await?;
    let proxies = fleet["proxies"].as_array().context("proxies")?;
    let connected =
        |name: &str| proxies.iter().any(|proxy| proxy["proxyId"] == name && proxy["connected"] == true);
    ensure!(connected("proxy-0") && !connected("proxy-1"), "{fleet}");
    scene.fleet.expect_records("true", 2).await
}

/// What a Postgres with a certificate does, in front of one that has none.
async fn secured(mut outside: TcpStream, tls: TlsAcceptor, socket: PathBuf) -> Result<()> {
    let mut asked = [0; 8];
    outside.read_exact(&mut asked).await?;
    ensure!(asked == *b"\0\0\0\x08\x04\xd2\x16\x2f", "no SSLRequest: {asked:?}");
    outside.write_all(b"S").await?;
    let (mut outside, mut inside) = (tls.accept(outside).await?, UnixStream::connect(socket).await?);
    copy_bidirectional(&mut outside, &mut inside).await?;
    Ok(())
}

#[tokio::test]
async fn postgres_is_reached_over_tls_by_whom_its_authority_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ours = Authority::new(folder.path(), "ours")?;
    ours.sign(ExtendedKeyUsagePurpose::ServerAuth)?;
    let stranger = Authority::new(folder.path(), "stranger")?;
    let database = fleet::database()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("postgres://test@{}/{}?sslmode=verify-full", listener.local_addr()?, database.name);
    let certificate = CertificateDer::from_pem_file(ours.file("cert"))?;
    let key = PrivateKeyDer::from_pem_file(ours.file("key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let (tls, socket) = (TlsAcceptor::from(Arc::new(config)), database.socket.clone());
    let front = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((outside, _)) = listener.accept().await {
            tokio::spawn(secured(outside, tls.clone(), socket.clone()));
        }
    }));

    let plan = |authority: &Authority| {
        let plan = Fleet::plan().proxies(0).without_redis().database_through(database.clone(), url.clone());
        plan.control_env("DATABASE_CA_FILE", &authority.text("ca"))
            .control_env("DATABASE_START_WAIT_SECONDS", "1")
    };
    let fleet = plan(&ours).start().await?;
    fleet.admin.action("users/getUsers", serde_json::json!({})).await?;
    drop(fleet);
    let refused = plan(&stranger).start().await.err().context("started")?;
    let said = format!("{refused:#}");
    ensure!(said.contains("invalid peer certificate"), "{said}");
    drop(front);
    Ok(())
}
