//! Where a store lies.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::StoreError;
use super::db::{Server, Source, Tls};
use super::folder::Folder;

/// Connections of a store when nothing else is asked for.
pub const POOL_LEN: usize = 150;

/// Where a store lies and how it is reached.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The data folder: the instance key lies there in any case, the database without a URL.
    pub folder: PathBuf,
    /// The PostgreSQL database that takes the place of SQLite's.
    pub url: Option<StoreUrl>,
    /// Most connections at a time; those that were opened are kept.
    pub pool_len: usize,
    /// PEM file of certificates that are trusted beside the web's when the server is reached by TLS.
    pub ca_file: Option<PathBuf>,
}

impl From<&Path> for StoreOptions {
    /// SQLite in a data folder.
    fn from(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), url: None, pool_len: POOL_LEN, ca_file: None }
    }
}

impl From<&PathBuf> for StoreOptions {
    fn from(folder: &PathBuf) -> Self {
        folder.as_path().into()
    }
}

impl From<&Self> for StoreOptions {
    fn from(options: &Self) -> Self {
        options.clone()
    }
}

/// The URL of a PostgreSQL database. It may hold a password, so what is shown of it leaves that out.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// Takes what begins with `postgres://` or `postgresql://` and can be read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let known = text.starts_with("postgres://") || text.starts_with("postgresql://");
        (known && text.parse::<Config>().is_ok()).then(|| Self(text.to_owned()))
    }

    /// The URL with `***` in place of a password.
    #[must_use]
    pub fn shown(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else { return "***".to_owned() };
        // A password may hold all that separates parts elsewhere, so it is taken off first.
        let (login, rest) = rest.split_once('@').map_or(("", rest), |(login, rest)| (login, rest));
        if login.split(':').next().is_some_and(|user| user.contains('?')) {
            // A parameter with an @: what comes around it may be a password's.
            return format!("{scheme}://***");
        }
        let login = match login.split_once(':') {
            Some((user, _)) => format!("{user}:***@"),
            None if login.is_empty() => String::new(),
            None => format!("{login}@"),
        };
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let query = query.map_or_else(String::new, |query| {
            let hidden = |part: &str| match part.split_once('=') {
                Some((name, _)) if name.to_ascii_lowercase().contains("pass") => format!("{name}=***"),
                _ => part.to_owned(),
            };
            format!("?{}", query.split('&').map(hidden).collect::<Vec<_>>().join("&"))
        });
        format!("{scheme}://{login}{rest}{query}")
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl StoreOptions {
    /// Where connections come from; `folder` is the data folder.
    pub(super) fn source(&self, folder: &Folder) -> Result<Source, StoreError> {
        let Some(url) = &self.url else { return Ok(Source::Sqlite(folder.database())) };
        let unusable = |why: String| StoreError::Url { url: url.shown(), why };
        let mut config: Config = url.0.parse().map_err(|e: tokio_postgres::Error| unusable(e.to_string()))?;
        if !url.0.contains("sslmode=") {
            config.ssl_mode(if is_here(&config) { SslMode::Disable } else { SslMode::Require });
        }
        let tls = Tls(Arc::new(self.tls()?));
        let server = Server::new(config, tls, url.shown()).map_err(|e| unusable(e.to_string()))?;
        Ok(Source::Postgres(Arc::new(server)))
    }

    fn tls(&self) -> Result<ClientConfig, StoreError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = &self.ca_file {
            add(&mut roots, path).map_err(|why| StoreError::CaFile { path: path.clone(), why })?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|_| StoreError::NoRandomness)?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| e.to_string())? {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    if roots.len() == before { Err("it holds no certificate".to_owned()) } else { Ok(()) }
}

/// Whether the server can only be on this machine, so that nobody can listen in between.
fn is_here(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://ann:s3cret@db:5432/beast", "postgres://ann:***@db:5432/beast"),
            ("postgres://ann@db/beast", "postgres://ann@db/beast"),
            ("postgres://ann:s3?cret@db/beast", "postgres://ann:***@db/beast"),
            (
                "postgres://ann:s3/c?r&et:=@db/beast?sslmode=require",
                "postgres://ann:***@db/beast?sslmode=require",
            ),
            ("postgresql:///beast?user=ann&password=s3@cret", "postgresql://***"),
            (
                "postgresql:///beast?host=/run/pg&password=s3cret",
                "postgresql:///beast?host=/run/pg&password=***",
            ),
        ] {
            let url = StoreUrl::parse(url).unwrap();
            assert_eq!(url.shown(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
        for wrong in ["", "mysql://db/x", "postgres://db/x?sslmode=perhaps", "beast.sqlite"] {
            assert_eq!(StoreUrl::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_what_leaves_the_machine_must_be_encrypted() {
        for (url, here) in [
            ("postgres://127.0.0.1/x", true),
            ("postgres://localhost/x", true),
            ("postgres://[::1]/x", true),
            ("postgres:///x?host=/run/postgresql", true),
            ("postgres://db.example.com/x", false),
            ("postgres://127.0.0.1,10.0.0.1/x", false),
        ] {
            assert_eq!(is_here(&url.parse().unwrap()), here, "{url}");
        }
    }
}
