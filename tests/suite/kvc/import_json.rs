//! JSON rows for the built `kvc import`: what is a valid row, even where JSON parsers are more
//! lenient.

use crate::support::programs::{Kvs, in_memory, kvc};
use crate::support::transfer::{import, row, said};

/// The errors for these rows, from one import that skips them.
fn errors_of(rows: &[&[u8]]) -> Vec<String> {
    let lines = rows.join(&b'\n');
    let args = [
        "import",
        "-",
        "--dry-run",
        "--skip-errors",
        "-q",
        "--format",
        "ndjson",
    ];
    let output = kvc("127.0.0.1:1", &args, &lines);
    let mut said = said(&output);
    let last = said.pop().unwrap_or_default();
    assert_eq!(
        last,
        format!("kvc: skipped {} rows, named above", rows.len())
    );
    assert_eq!(output.status.code(), Some(6));
    let place = |i: usize| format!("kvc: standard input, line {}: ", i + 1);
    let told = said.iter().enumerate();
    told.map(|(i, line)| line.strip_prefix(&place(i)).unwrap_or(line).to_owned())
        .collect()
}

fn malformed(rows: &[(&str, &str)]) {
    let texts: Vec<_> = rows.iter().map(|(row, _)| row.as_bytes()).collect();
    let wanted: Vec<_> = rows.iter().map(|(_, what)| *what).collect();
    assert_eq!(errors_of(&texts), wanted);
}

/// Checks the errors for rows with these values.
fn malformed_values(values: &[(&str, &str)]) {
    let row = |value: &str| row("t", "k", value).trim_end().to_owned();
    let rows: Vec<_> = values.iter().map(|(value, _)| row(value)).collect();
    let pairs = rows.iter().zip(values);
    let pairs: Vec<_> = pairs
        .map(|(row, (_, what))| (row.as_str(), *what))
        .collect();
    malformed(&pairs);
}

/// The value as it was stored.
fn stored(kvs: &Kvs, value: &str) -> String {
    let output = import(kvs, "x.ndjson", &row("t", "k", value), &["-q"]);
    assert_eq!(said(&output), Vec::<String>::new(), "{value}");
    kvs.ask(&["hget", "t", "k", "--output", "ndjson"])
}

#[test]
fn an_array_is_not_an_object() {
    let object = "expected an object with table, key and value";
    let value = "expected an object with a type, such as {\"string\":\"text\"}";
    malformed(&[
        // The first line must not look like an array of rows.
        ("null", &format!("column 4: invalid type: null, {object}")),
        (
            r#"["t","k",{"string":"v"}]"#,
            &format!("column 1: invalid type: sequence, {object}"),
        ),
        (
            r#"["t","k",["v",null,null,null,null]]"#,
            &format!("column 1: invalid type: sequence, {object}"),
        ),
        ("[]", &format!("column 1: invalid type: sequence, {object}")),
        (
            r#"{"table":"t","key":"k","value":["v",null,null,null,null]}"#,
            &format!("column 31: invalid type: sequence, {value}"),
        ),
        (
            r#"{"table":"t","key":"k","value":[]}"#,
            &format!("column 31: invalid type: sequence, {value}"),
        ),
        (
            r#"{"table":"t","key":"k","value":{"string":["v"]}}"#,
            "column 41: invalid type: sequence, expected a string",
        ),
        (
            r#"{"table":"t","key":"k","value":{"binary":[0,255]}}"#,
            "column 41: invalid type: sequence, expected bytes in base64",
        ),
        (
            r#"{"table":"t","key":"k","value":{"integer":[5]}}"#,
            "column 43: invalid type: sequence, expected a 64-bit integer, as a string or as a \
             number without . and e",
        ),
        (
            r#"{"table":"t","key":"k","value":{"float":[5]}}"#,
            "column 41: invalid type: sequence, expected a number, or \"NaN\", \"Infinity\" \
             or \"-Infinity\"",
        ),
        (
            r#"{"table":"t","key":"k","value":{"bool":[true]}}"#,
            "column 39: invalid type: sequence, expected a boolean",
        ),
        (
            r#"{"table":"t","key":["k"],"value":{"bool":true}}"#,
            "column 19: invalid type: sequence, expected a string",
        ),
        (
            r#"{"table":["t"],"key":"k","value":{"bool":true}}"#,
            "column 9: invalid type: sequence, expected a string",
        ),
        (
            r#""t""#,
            &format!("column 3: invalid type: string \"t\", {object}"),
        ),
        (
            "5",
            &format!("column 1: invalid type: integer `5`, {object}"),
        ),
        (
            "true",
            &format!("column 4: invalid type: boolean `true`, {object}"),
        ),
    ]);
}

#[test]
fn refuses_duplicate_fields_and_trailing_text() {
    let whole = r#"{"table":"t","key":"k","value":{"bool":true}}"#;
    malformed(&[
        (&format!("{whole}{whole}"), "column 46: trailing characters"),
        (
            &format!("{whole} {whole}"),
            "column 47: trailing characters",
        ),
        (&format!("{whole},"), "column 46: trailing characters"),
        (&format!("{whole}]"), "column 46: trailing characters"),
        (&format!("{whole} # why"), "column 47: trailing characters"),
        (&format!("{whole}\u{c}"), "column 46: trailing characters"),
        (&format!("\u{c}{whole}"), "column 1: expected value"),
        (&format!("{whole}\u{a0}"), "column 46: trailing characters"),
        ("\u{c}", "column 1: expected value"),
        (&format!("\u{feff}{whole}"), "column 1: expected value"),
        (
            r#"{"table":"t","table":"t","key":"k","value":{"bool":true}}"#,
            "column 20: duplicate field `table`",
        ),
        (
            r#"{"table":null,"table":"t","key":"k","value":{"bool":true}}"#,
            "column 21: duplicate field `table`",
        ),
        (
            r#"{"table":"t","key":"k","k\u0065y":"k","value":{"bool":true}}"#,
            "column 33: duplicate field `key`",
        ),
        (
            r#"{"table":"t","key":"k","value":{"bool":true},"value":{}}"#,
            "column 52: duplicate field `value`",
        ),
        (
            r#"{"table":"t","key":"k","value":{"bool":true,"bool":true}}"#,
            "column 50: duplicate field `bool`",
        ),
        (
            r#"{"table":"t","key":"k","value":{"bool":true,"string":""}}"#,
            "column 56: the value has several types",
        ),
        (
            r#"{"table":"t","key":"k","value":{"bool":true,"int":5}}"#,
            "column 49: unknown field `int`, expected one of `string`, `binary`, `integer`, \
             `float`, `bool`",
        ),
        (
            r#"{"table":"t","key":"k","value":{"Bool":true}}"#,
            "column 38: unknown field `Bool`, expected one of `string`, `binary`, `integer`, \
             `float`, `bool`",
        ),
        (
            r#"{"table":"t","Key":"k","value":{"bool":true}}"#,
            "column 18: unknown field `Key`, expected one of `table`, `key`, `value`",
        ),
        (
            r#"{"table":"t","key":"k","value":{"bool":true},"":1}"#,
            "column 47: unknown field ``, expected one of `table`, `key`, `value`",
        ),
        (
            r#"{"table":"t","key":"k","value":{"bool":true},}"#,
            "column 46: trailing comma",
        ),
        (
            r#"{"table":"t","key":"k" "value":{"bool":true}}"#,
            "column 24: expected `,` or `}`",
        ),
        (
            r#"{"table":"t",'key':"k","value":{"bool":true}}"#,
            "column 14: key must be a string",
        ),
        (
            r#"{table:"t","key":"k","value":{"bool":true}}"#,
            "column 2: key must be a string",
        ),
        (
            r#"{"table":"t","key":"k","value":{"bool":true}"#,
            "column 44: EOF while parsing an object",
        ),
        (
            r#"{"table":"t","key":null,"value":{"bool":true}}"#,
            "column 23: invalid type: null, expected a string",
        ),
        (
            r#"{"table":"t","key":5,"value":{"bool":true}}"#,
            "column 20: invalid type: integer `5`, expected a string",
        ),
        (
            r#"{"table":5,"key":"k","value":{"bool":true}}"#,
            "column 10: invalid type: integer `5`, expected a string",
        ),
        (
            r#"{"table":"t","key":"k","value":null}"#,
            "column 35: invalid type: null, expected an object with a type, such as \
             {\"string\":\"text\"}",
        ),
        (
            r#"{"table":"t","key":"k","value":{}}"#,
            "column 33: the value needs a type: string, binary, integer, float or bool",
        ),
        (
            r#"{"table":"t","key":"k","value":{"string":null}}"#,
            "column 46: the value needs a type: string, binary, integer, float or bool",
        ),
        (
            r#"{"table":null,"key":"k","value":{"bool":true}}"#,
            "missing field `table`; --table NAME gives one for all rows",
        ),
    ]);
}

#[test]
fn text_must_be_valid_unicode() {
    malformed_values(&[
        (
            r#"{"string":"\ud800"}"#,
            "column 49: unexpected end of hex escape",
        ),
        (
            r#"{"string":"\udc00"}"#,
            "column 48: lone leading surrogate in hex escape",
        ),
        (
            r#"{"string":"\ud800\ud800"}"#,
            "column 54: lone leading surrogate in hex escape",
        ),
        (
            r#"{"string":"\ud800x"}"#,
            "column 49: unexpected end of hex escape",
        ),
        (r#"{"string":"\u12"}"#, "column 48: invalid escape"),
        (r#"{"string":"\x41"}"#, "column 44: invalid escape"),
        (
            "{\"string\":\"a\tb\"}",
            "column 44: control character (\\u0000-\\u001F) found while parsing a string",
        ),
        (
            "{\"string\":\"a\0b\"}",
            "column 44: control character (\\u0000-\\u001F) found while parsing a string",
        ),
        (
            r#"{"string":5}"#,
            "column 42: invalid type: integer `5`, expected a string",
        ),
        (
            r#"{"string":true}"#,
            "column 45: invalid type: boolean `true`, expected a string",
        ),
    ]);
    let row = b"{\"table\":\"t\",\"key\":\"k\",\"value\":{\"string\":\"\xff\"}}";
    let key = b"{\"table\":\"t\",\"key\":\"\xed\xa0\x80\",\"value\":{\"string\":\"\"}}";
    let what = [
        "column 43: invalid unicode code point",
        "column 21: invalid unicode code point",
    ];
    assert_eq!(errors_of(&[row, key]), what);
    let (kvs, _directory) = in_memory();
    let emoji = stored(&kvs, r#"{"string":"\ud83d\ude00\u0000"}"#);
    assert_eq!(emoji, "{\"string\":\"😀\\u0000\"}\n");
    kvs.stop();
}

#[test]
fn a_number_must_fit_its_type_exactly() {
    malformed_values(&[
        (
            r#"{"integer":1e3}"#,
            "column 45: invalid type: floating point `1000.0`, expected a 64-bit integer, as a \
             string or as a number without . and e",
        ),
        (
            r#"{"integer":5.0}"#,
            "column 45: invalid type: floating point `5.0`, expected a 64-bit integer, as a string \
             or as a number without . and e",
        ),
        (
            r#"{"integer":-0}"#,
            "column 44: invalid type: floating point `-0.0`, expected a 64-bit integer, as a \
             string or as a number without . and e",
        ),
        (
            r#"{"integer":9223372036854775808}"#,
            "column 61: \"9223372036854775808\" is not a 64-bit integer",
        ),
        (
            r#"{"integer":-9223372036854775809}"#,
            "column 62: invalid type: floating point `-9.223372036854776e+18`, expected a 64-bit \
             integer, as a string or as a number without . and e",
        ),
        (
            r#"{"integer":18446744073709551616}"#,
            "column 62: invalid type: floating point `1.8446744073709552e+19`, expected a 64-bit \
             integer, as a string or as a number without . and e",
        ),
        (
            r#"{"integer":"9223372036854775808"}"#,
            "column 63: \"9223372036854775808\" is not a 64-bit integer",
        ),
        (
            r#"{"integer":"1e3"}"#,
            "column 47: \"1e3\" is not a 64-bit integer",
        ),
        (
            r#"{"integer":"5.0"}"#,
            "column 47: \"5.0\" is not a 64-bit integer",
        ),
        (
            r#"{"integer":" 5"}"#,
            "column 46: \" 5\" is not a 64-bit integer",
        ),
        (
            r#"{"integer":""}"#,
            "column 44: \"\" is not a 64-bit integer",
        ),
        (
            r#"{"integer":"0x5"}"#,
            "column 47: \"0x5\" is not a 64-bit integer",
        ),
        (
            r#"{"integer":"1_000"}"#,
            "column 49: \"1_000\" is not a 64-bit integer",
        ),
        (
            r#"{"integer":"NaN"}"#,
            "column 47: \"NaN\" is not a 64-bit integer",
        ),
        (
            r#"{"integer":true}"#,
            "column 46: invalid type: boolean `true`, expected a 64-bit integer, as a string or as \
             a number without . and e",
        ),
        (r#"{"integer":05}"#, "column 44: invalid number"),
        (r#"{"integer":+5}"#, "column 43: expected value"),
        (r#"{"float":NaN}"#, "column 41: expected value"),
        (r#"{"float":Infinity}"#, "column 41: expected value"),
        (r#"{"float":1e999}"#, "column 45: number out of range"),
        (
            r#"{"float":"1e999"}"#,
            "column 47: \"1e999\" is out of range for a 64-bit float",
        ),
        (
            r#"{"float":"Inf"}"#,
            "column 45: \"Inf\" is not a floating-point number such as 1.5 or -2e10",
        ),
        (
            r#"{"float":""}"#,
            "column 42: \"\" is not a floating-point number such as 1.5 or -2e10",
        ),
        (
            r#"{"float":" 1"}"#,
            "column 44: \" 1\" is not a floating-point number such as 1.5 or -2e10",
        ),
        (r#"{"float":.5}"#, "column 41: expected value"),
        (r#"{"float":1.}"#, "column 43: invalid number"),
        (
            r#"{"float":true}"#,
            "column 44: invalid type: boolean `true`, expected a number, or \"NaN\", \"Infinity\" \
             or \"-Infinity\"",
        ),
        (
            r#"{"bool":"true"}"#,
            "column 45: invalid type: string \"true\", expected a boolean",
        ),
        (
            r#"{"bool":1}"#,
            "column 40: invalid type: integer `1`, expected a boolean",
        ),
        (r#"{"bool":True}"#, "column 40: expected value"),
    ]);
    let (kvs, _directory) = in_memory();
    for (value, as_stored) in [
        (
            r#"{"integer":-9223372036854775808}"#,
            r#"{"integer":"-9223372036854775808"}"#,
        ),
        (
            r#"{"integer":9223372036854775807}"#,
            r#"{"integer":"9223372036854775807"}"#,
        ),
        (r#"{"integer":"-0"}"#, r#"{"integer":"0"}"#),
        (r#"{"float":5}"#, r#"{"float":5.0}"#),
        (r#"{"float":1e3}"#, r#"{"float":1000.0}"#),
        (r#"{"float":-0}"#, r#"{"float":-0.0}"#),
        (r#"{"float":1e-999}"#, r#"{"float":0.0}"#),
        (r#"{"float":"NaN"}"#, r#"{"float":"NaN"}"#),
        (r#"{"float":"1e3"}"#, r#"{"float":1000.0}"#),
        // A null field counts as missing, as in protobuf.
        (r#"{"string":null,"bool":true}"#, r#"{"bool":true}"#),
    ] {
        assert_eq!(stored(&kvs, value).trim_end(), as_stored, "{value}");
    }
    kvs.stop();
}

/// Base64 is read by one rule everywhere: either alphabet, with full padding or none.
#[test]
fn reads_base64_by_one_rule_everywhere() {
    let (kvs, _directory) = in_memory();
    for (text, what) in [
        ("AP8=AP8=", "invalid symbol at 3"),
        ("AP8=AP8", "invalid symbol at 3"),
        ("AA==AA==", "invalid symbol at 2"),
        ("AP8==", "invalid padding length at 3"),
        ("AP8=====", "invalid padding length at 3"),
        ("AA=", "invalid padding length at 2"),
        ("AA===", "invalid padding length at 2"),
        ("AAA==", "invalid padding length at 3"),
        ("AAAA=", "invalid padding length at 4"),
        ("AAAA====", "invalid padding length at 4"),
        ("=", "invalid padding length at 0"),
        ("====", "invalid padding length at 0"),
        ("A", "invalid length at 0"),
        ("AAAAA", "invalid length at 4"),
        ("AR", "non-zero trailing bits at 1"),
        ("AR==", "non-zero trailing bits at 1"),
        ("AP9=", "non-zero trailing bits at 2"),
        ("+_8=", "invalid symbol at 0"),
        ("-/8=", "invalid symbol at 1"),
        ("AP 8", "invalid symbol at 2"),
        ("AP8= ", "invalid length at 4"),
        ("AP8=\\n", "invalid length at 4"),
        ("\\nAP8=", "invalid padding length at 4"),
        ("AP.8", "invalid symbol at 2"),
    ] {
        let json = row("t", "k", &format!("{{\"binary\":\"{text}\"}}"));
        let column = json.len() - 3;
        let shown = text.replace("\\n", "\n");
        let csv = format!("table,key,type,value\nt,k,binary,\"{shown}\"\n");
        for (name, file, place) in [
            ("x.ndjson", &json, format!("line 1: column {column}: ")),
            ("x.csv", &csv, "line 2: column value: ".to_owned()),
        ] {
            let output = import(&kvs, name, file, &["-q", "--skip-errors"]);
            let line = format!("kvc: {name}, {place}malformed base64: {what}");
            let lines = [line, "kvc: skipped 1 row, named above".to_owned()];
            assert_eq!(said(&output), lines, "{text}");
        }
        let output = kvs.kvc(&["hset", "t", "k", &format!("b64:{shown}")]);
        let literal = format!("malformed value \"b64:{text}\": {what}; base64 looks like");
        assert!(said(&output)[0].contains(&literal), "{:?}", said(&output));
        assert_eq!(output.status.code(), Some(6));
    }
    for (text, bytes) in [
        ("", ""),
        ("AP8=", "00ff"),
        ("AP8", "00ff"),
        ("AA==", "00"),
        ("AA", "00"),
        ("+/8=", "fbff"),
        ("-_8=", "fbff"),
        ("-_8", "fbff"),
        ("AAAA", "000000"),
    ] {
        kvs.ask(&["hset", "t", "k", &format!("hex:{bytes}")]);
        let wanted = kvs.ask(&["hget", "t", "k", "--output", "ndjson"]);
        let json = format!("{{\"binary\":\"{text}\"}}");
        assert_eq!(stored(&kvs, &json), wanted, "{text}");
        let csv = format!("key,type,value\nk,binary,{text}\n");
        let output = import(&kvs, "x.csv", &csv, &["-q", "--table", "t"]);
        assert_eq!(said(&output), Vec::<String>::new());
        assert_eq!(kvs.ask(&["hget", "t", "k", "--output", "ndjson"]), wanted);
        kvs.ask(&["hset", "t", "k", &format!("b64:{text}")]);
        assert_eq!(kvs.ask(&["hget", "t", "k", "--output", "ndjson"]), wanted);
    }
    kvs.stop();
}
