//! Base64, read by one rule everywhere: in values and keys on the command line, and in rows of CSV
//! and JSON.

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, DecodeError, DecodeKind};

/// Decodes the standard or the URL-safe alphabet, with full padding or none.
///
/// Anything else is malformed: white space, leftover bits, padding in the middle.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, DecodeError> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 2 || padding > 0 && !text.len().is_multiple_of(4) {
        return Err(DecodeError {
            position: digits.len(),
            kind: DecodeKind::Padding,
        });
    }
    let alphabet = match digits.contains(['-', '_']) {
        true => &BASE64URL_NOPAD,
        false => &BASE64_NOPAD,
    };
    alphabet.decode(digits.as_bytes())
}

/// Decodes a key, which has to be UTF-8.
pub(crate) fn key(text: &str) -> Result<String, String> {
    let wrong = |error| format!("{error}; base64 looks like dGFiCQ==");
    let bytes = decode(text).map_err(wrong)?;
    String::from_utf8(bytes).map_err(|error| format!("the key is not UTF-8: {error}"))
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE64, BASE64URL};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn either_alphabet_is_decoded_with_padding_or_without(bytes: Vec<u8>) {
            for encoding in [&BASE64, &BASE64_NOPAD, &BASE64URL, &BASE64URL_NOPAD] {
                prop_assert_eq!(decode(&encoding.encode(&bytes)), Ok(bytes.clone()));
            }
        }

        #[test]
        fn decodes_only_what_an_encoder_writes(text in "[AQgwR+/_= -]{0,12}") {
            if let Ok(bytes) = decode(&text) {
                let encodings = [&BASE64, &BASE64_NOPAD, &BASE64URL, &BASE64URL_NOPAD];
                let mut written = encodings.iter().map(|encoding| encoding.encode(&bytes));
                prop_assert!(written.any(|written| written == text), "{}", text);
            }
        }
    }
}
