//! Certificates and keys as PEM, from a file or from memory.
//!
//! Errors never show any part of the text: it may be a private key, even where a certificate was
//! expected. So the parser's own errors, which quote their input, are dropped.

use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{PemError, TlsError};
use crate::bounded_file;

/// More than a bundle of all CAs needs, and little enough to read any file named by mistake.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The UTF-8 byte order mark, which some editors put at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The maximum length of a section's label, in bytes. The longest one in use has 21.
const MAX_LABEL_LEN: usize = 40;

/// Reads a file and parses its contents.
pub(super) fn read<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, PemError>,
) -> Result<T, TlsError> {
    // It may be a key: do not show it as the path of a missing file.
    if path.to_string_lossy().contains("-----BEGIN") {
        return Err(TlsError::NotAPath);
    }
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let Some(bytes) = bounded_file::read(path, MAX_FILE_BYTES).map_err(failed)? else {
        return Err(TlsError::TooLong {
            path: path.to_owned(),
            limit: MAX_FILE_BYTES,
        });
    };
    parse(&bytes).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

/// Parses every certificate; there is at least one.
pub(super) fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let bytes = without_mark(bytes);
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let certificates = certificates.map_err(|_| malformed(bytes))?;
    match (certificates.is_empty(), indented(bytes)) {
        // Even if there are others: the parser would silently skip this one.
        (_, Some(line)) => Err(PemError::Indented { line }),
        (false, None) => Ok(certificates),
        (true, None) if is_der(bytes) => Err(PemError::Der),
        (true, None) => Err(PemError::NoCertificate {
            found: labels(bytes),
        }),
    }
}

/// Parses the first private key.
pub(super) fn key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    let bytes = without_mark(bytes);
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted(bytes) => Err(PemError::EncryptedKey),
        Err(pem::Error::NoItemsFound) if is_der(bytes) => Err(PemError::Der),
        Err(pem::Error::NoItemsFound) => Err(match indented(bytes) {
            Some(line) => PemError::Indented { line },
            None => PemError::NoKey {
                found: labels(bytes),
            },
        }),
        Err(_) => Err(malformed(bytes)),
    }
}

/// Whether this is one DER sequence, as certificates and keys are: the tag, the length in its short
/// or its long form, and as many bytes.
fn is_der(bytes: &[u8]) -> bool {
    let [0x30, form, rest @ ..] = bytes else {
        return false;
    };
    match (*form, rest) {
        (0..=0x7f, content) => usize::from(*form) == content.len(),
        (0x81, [len, content @ ..]) => usize::from(*len) == content.len(),
        (0x82, [high, low, content @ ..]) => {
            usize::from(u16::from_be_bytes([*high, *low])) == content.len()
        }
        // No certificate or key has 64 KiB.
        _ => false,
    }
}

fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Whether the key is encrypted: in PKCS #8, or in openssl's older form with a header line.
fn is_encrypted(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.contains("BEGIN ENCRYPTED ") || text.contains("\nProc-Type: 4,ENCRYPTED")
}

fn malformed(bytes: &[u8]) -> PemError {
    match indented(bytes) {
        Some(line) => PemError::Indented { line },
        None => PemError::Malformed {
            one_line: bytes.trim_ascii().iter().all(|byte| *byte != b'\n'),
        },
    }
}

/// The first line that is indented, or that has something before `-----BEGIN`, as when a PEM was
/// copied out of YAML. Text between the sections may look like anything.
fn indented(bytes: &[u8]) -> Option<usize> {
    let mut is_inside = false;
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let begins = contains(line, b"-----BEGIN ");
        is_inside |= begins;
        let is_blank = line.trim_ascii().is_empty();
        let is_indented = line.first().is_some_and(u8::is_ascii_whitespace);
        let is_late = begins && !line.starts_with(b"-----BEGIN ");
        if is_late || is_inside && is_indented && !is_blank {
            return Some(number);
        }
        is_inside &= !contains(line, b"-----END ");
    }
    None
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}

/// The labels of the sections.
fn labels(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let sections = text.split("-----BEGIN ").skip(1);
    let labels = sections.filter_map(|section| section.split("-----").next());
    let is_label = |label: &&str| {
        let known = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ';
        label.len() <= MAX_LABEL_LEN && label.chars().all(known)
    };
    let mut labels: Vec<_> = labels.filter(is_label).map(str::to_owned).collect();
    labels.dedup();
    labels
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    const BODY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSECRET";

    /// Everything that an error can show.
    fn shown(error: &PemError) -> String {
        let mut shown = format!("{error} {error:?}");
        let mut cause = error.source();
        while let Some(error) = cause {
            shown += &format!(" {error} {error:?}");
            cause = error.source();
        }
        shown
    }

    #[test]
    fn recognises_der_of_any_length() {
        // An Ed25519 key has 48 bytes, a key for P-256 138, a certificate more than 255.
        for (header, len) in [
            (&[0x30, 0x2e][..], 0x2e),
            (&[0x30, 0x81, 0x87], 0x87),
            (&[0x30, 0x82, 0x01, 0x23], 0x123),
        ] {
            let der = [header, &vec![7; len]].concat();
            assert!(matches!(key(&der), Err(PemError::Der)), "{len}");
            assert!(matches!(certificates(&der), Err(PemError::Der)), "{len}");
            for other in [&der[..der.len() - 1], &[&der[..], &[7]].concat()] {
                assert!(matches!(key(other), Err(PemError::NoKey { .. })), "{len}");
            }
        }
    }

    #[test]
    fn errors_never_show_a_damaged_key() {
        let key = format!("-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----\n");
        for damaged in [
            // Damaged as keys in environment variables and secrets often are.
            key.replace('\n', ""),
            key.replace('\n', "\\n"),
            key.replace('\n', " "),
            key.replace('\n', "\n  ")
                .replace("-----BEGIN", "  -----BEGIN"),
            key.replace("-----END PRIVATE KEY-----\n", ""),
            key.replace("-----END PRIVATE KEY-----", "-----END"),
            key.replace(BODY, &format!("{BODY}!")),
            format!("-----BEGIN {BODY}-----\n{BODY}\n-----END {BODY}-----\n"),
        ] {
            for error in [
                super::key(damaged.as_bytes()).err(),
                certificates(damaged.as_bytes()).err(),
            ] {
                let shown = error.as_ref().map(shown).unwrap_or_default();
                for part in BODY.as_bytes().windows(8) {
                    let text = std::str::from_utf8(part).unwrap();
                    let numbers = format!("{part:?}");
                    assert!(!shown.contains(text), "{shown}");
                    assert!(!shown.contains(numbers.trim_matches(['[', ']'])), "{shown}");
                }
            }
            assert!(certificates(damaged.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_key_in_place_of_a_path_is_not_shown() {
        let key = format!("-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----\n");
        let error = read(Path::new(&key), super::key).unwrap_err();
        assert_eq!(
            error.to_string(),
            "got PEM text instead of the path of a PEM file"
        );
    }

    #[test]
    fn errors_say_what_is_wrong_and_what_to_do() {
        let encrypted = "-----BEGIN EC PRIVATE KEY-----\n\
                         Proc-Type: 4,ENCRYPTED\nDEK-Info: AES\n\nAA==\n\
                         -----END EC PRIVATE KEY-----\n";
        assert!(matches!(
            key(encrypted.as_bytes()),
            Err(PemError::EncryptedKey)
        ));
        let flat = "-----BEGIN CERTIFICATE-----AAAA-----END CERTIFICATE-----\n";
        assert_eq!(
            certificates(flat.as_bytes()).unwrap_err().to_string(),
            "it is not valid PEM: all of it is on one line"
        );
        for (before, line) in [("  ", 1), ("\t", 1), ("key: \"", 1), ("text\n  ", 2)] {
            let indented = format!("{before}-----BEGIN EC PRIVATE KEY-----\n  AAAA\n");
            let error = key(indented.as_bytes()).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "line {line} of the PEM is indented or has something before -----BEGIN; \
                     remove everything that precedes the PEM on each line"
                )
            );
        }
        // No certificate of a bundle is skipped silently, and text between them is ignored.
        let sound = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let bundle = format!("  a CA\n{sound}\n  another\n  {sound}");
        assert!(matches!(
            certificates(bundle.as_bytes()),
            Err(PemError::Indented { line: 7 })
        ));
        let bundle = format!("  a CA\n{sound}\n  another\n{sound}");
        assert_eq!(certificates(bundle.as_bytes()).unwrap().len(), 2);
        let body = sound.replace("AAAA", "  AAAA");
        assert!(matches!(
            certificates(body.as_bytes()),
            Ok(_) | Err(PemError::Indented { line: 2 })
        ));
        let marked = "\u{feff}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(marked.as_bytes()).unwrap().len(), 1);
    }
}
