//! The TLS options, and the connector that they describe.
//!
//! Any of them turns TLS on: whoever names a CA or a certificate wants encryption.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use kv::{TlsClientConnector, TlsError, TlsIdentity, TlsRoots};

use crate::failure::Failure;
use crate::failure::origins::Origins;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
    /// Use TLS, which the flags below imply; --tls=false turns it off regardless of them
    ///
    /// The system's CAs are trusted unless --tls-ca names others. yes, on and 1 mean true, and no,
    /// off and 0 mean false.
    #[arg(long, global = true, env = "KVC_TLS", value_name = "BOOL", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", ignore_case = true,
        value_parser = switch())]
    pub(crate) tls: Option<bool>,

    /// Trust these CAs and no others: a PEM file
    #[arg(long, global = true, env = "KVC_TLS_CA", value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// The certificate for a server that asks for one: a PEM file
    #[arg(long, global = true, env = "KVC_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The private key of that certificate: a PEM file
    #[arg(long, global = true, env = "KVC_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The name in the server's certificate, if it is not the host of the address
    #[arg(long, global = true, env = "KVC_TLS_SERVER_NAME", value_name = "NAME")]
    pub(crate) tls_server_name: Option<String>,

    /// Where these options and the address were written.
    #[arg(skip)]
    pub(crate) origins: Origins,
}

/// The words for true, the first of which is shown, and the digit that scripts use.
const TRUE: [&str; 6] = ["true", "yes", "on", "y", "t", "1"];

const FALSE: [&str; 6] = ["false", "no", "off", "n", "f", "0"];

/// Parses a boolean. A mistake is told to write true or false.
fn switch() -> impl TypedValueParser<Value = bool> {
    let words = [TRUE, FALSE].map(|[name, others @ ..]| PossibleValue::new(name).aliases(others));
    let is_true = |text: String| TRUE.iter().any(|word| word.eq_ignore_ascii_case(&text));
    PossibleValuesParser::new(words).map(is_true)
}

impl TlsArgs {
    /// The connector for TLS, if TLS is on.
    pub(crate) fn connector(&self) -> Result<Option<TlsClientConnector>, Failure> {
        let implied = self.tls_ca.is_some()
            || self.tls_cert.is_some()
            || self.tls_key.is_some()
            || self.tls_server_name.is_some();
        if !self.tls.unwrap_or(implied) {
            return Ok(None);
        }
        let pair = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(self.incomplete("tls_cert", "tls_key")),
            (None, Some(_)) => return Err(self.incomplete("tls_key", "tls_cert")),
        };
        let connector = self.build(pair).map(Some);
        connector.map_err(|error| Failure::from_tls_files(&error, &self.origins, &self.files()))
    }

    /// The options that name files, and the files.
    fn files(&self) -> Vec<(&'static str, &Path)> {
        let files = [
            ("tls_ca", &self.tls_ca),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
        ];
        let named = files.into_iter();
        let named = named.filter_map(|(key, file)| Some((key, file.as_deref()?)));
        named.collect()
    }

    fn build(&self, pair: Option<(&PathBuf, &PathBuf)>) -> Result<TlsClientConnector, TlsError> {
        let roots = match &self.tls_ca {
            Some(path) => TlsRoots::from_file(path)?,
            None => TlsRoots::system()?,
        };
        let identity = pair.map(|(certificate, key)| TlsIdentity::from_files(certificate, key));
        let connector = TlsClientConnector::new(roots, identity.transpose()?)?;
        match &self.tls_server_name {
            Some(name) => connector.with_server_name(name),
            None => Ok(connector),
        }
    }

    /// One option of a pair is missing.
    fn incomplete(&self, given: &str, missing: &str) -> Failure {
        let (given, missing) = self.origins.pair_row(given, missing);
        Failure::usage(format!(
            "{given} is given and {missing} is not; give both the certificate and its key"
        ))
    }
}
