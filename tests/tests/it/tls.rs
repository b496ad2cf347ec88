//! The wire between the planes under TLS, with certificates on both sides.

use crate::scene::{CLAUDE, Scene};
use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use std::path::{Path, PathBuf};
use testkit::fleet::Fleet;

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
