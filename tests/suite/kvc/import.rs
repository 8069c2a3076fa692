//! Files for the built `kvc import`: the rows that it finds, and the mistakes. After a mistake it
//! names the line to go on with, and stores nothing further.

use crate::support::chance::Chance;
use crate::support::programs::{Kvs, in_memory, kvc};
use crate::support::transfer::{ends, export, import, row, rows};

#[test]
fn a_malformed_row_ends_the_import_which_can_resume_at_its_line() {
    let (kvs, _directory) = in_memory();
    let whole = rows(1..3001);
    let mut lines: Vec<_> = whole.lines().collect();
    lines[1499] = r#"{"table":"t","key":"k001500","value":{"integer":"many"}}"#;
    let broken = lines.join("\n");
    let hint = "or skip such rows with --skip-errors";
    ends(
        &import(&kvs, "rows.ndjson", &broken, &[]),
        6,
        &[&format!(
            "kvc: rows.ndjson, line 1500: column 54: \"many\" is not a 64-bit integer; \
             1499 rows before it are stored; fix it and continue with --from-line 1500, {hint}"
        )],
    );
    assert_eq!(export(&kvs, &["t"]), rows(1..1500).as_bytes());
    let goes_on = import(&kvs, "rows.ndjson", &whole, &["--from-line", "1500"]);
    ends(&goes_on, 0, &["kvc: imported 1501 rows into 1 table"]);
    assert_eq!(export(&kvs, &["t"]), whole.as_bytes());
    kvs.stop();
}

#[test]
fn names_each_mistake() {
    let (kvs, _directory) = in_memory();
    let value = r#""value":{"bool":true}}"#;
    for (name, row, what) in [
        ("x.ndjson", "{}", "column 2: missing field `key`"),
        (
            "x.ndjson",
            r#"{"table":"t","key":"k"}"#,
            "column 23: missing field `value`",
        ),
        (
            "x.ndjson",
            &format!(r#"{{"key":"k",{value}"#),
            "missing field `table`; --table NAME gives one for all rows",
        ),
        (
            "x.ndjson",
            &format!(r#"{{"table":"t","key":"k","ttl":1,{value}"#),
            "column 28: unknown field `ttl`, expected one of `table`, `key`, `value`",
        ),
        (
            "x.ndjson",
            r#"{"table":"t","key":"k","value":{}}"#,
            "column 33: the value needs a type: string, binary, integer, float or bool",
        ),
        (
            "x.ndjson",
            r#"{"table":"t","key":"k","value":{"string":"","bool":true}}"#,
            "column 56: the value has several types",
        ),
        (
            "x.ndjson",
            r#"{"table":"t","key":"k","value":"v"}"#,
            "column 34: invalid type: string \"v\", expected an object with a type, such as \
             {\"string\":\"text\"}",
        ),
        (
            "x.ndjson",
            r#"{"table":"t","key":"k","value":{"binary":"A"}}"#,
            "column 44: malformed base64: invalid length at 0",
        ),
        (
            "x.ndjson",
            r#"{"table":"t","key":"k""#,
            "column 22: EOF while parsing an object",
        ),
        ("x.ndjson", "t,k,string,v", "column 2: expected ident"),
        ("x.csv", "t,k,string", "3 columns, where the header has 4"),
        (
            "x.csv",
            "t,k,text,v",
            "column type: \"text\" is not string, binary, integer, float or bool",
        ),
        (
            "x.csv",
            "t,k,bool,yes",
            "column value: \"yes\" is neither true nor false",
        ),
        (
            "x.csv",
            "t,k,float,x",
            "column value: \"x\" is not a floating-point number such as 1.5 or -2e10",
        ),
        (
            "x.csv",
            "t,k,binary,?",
            "column value: malformed base64: invalid length at 0",
        ),
    ] {
        let header = if name == "x.csv" {
            "table,key,type,value\n"
        } else {
            "\n"
        };
        let output = import(&kvs, name, &format!("{header}{row}\n"), &["--dry-run"]);
        let end = "0 rows before it would be stored; fix it, or skip such rows with --skip-errors";
        ends(
            &output,
            6,
            &[&format!("kvc: {name}, line 2: {what}; {end}")],
        );
    }
    let header = "the first line of CSV has to be table,key,type,value";
    for (text, what) in [
        ("", "the file is empty"),
        (
            "key,value\n",
            "there is no column table; --table NAME names one for all rows",
        ),
        ("table,key,type\n", "there is no column value"),
        ("table,key,value,key\n", "the column key occurs twice"),
        ("table,key,value,ttl\n", "\"ttl\" is not one of the columns"),
        (
            "table;key;value\nt;k;v\n",
            "the columns are separated by semicolons, not by commas",
        ),
        (
            "key\tvalue\n",
            "the columns are separated by tabs, not by commas",
        ),
    ] {
        let output = import(&kvs, "x.csv", text, &[]);
        ends(
            &output,
            6,
            &[&format!(
                "kvc: x.csv, line 1: {what}; {header}; 0 rows before it are stored"
            )],
        );
    }
    let output = import(&kvs, "x.csv", "name,value\n", &["--table", "t"]);
    ends(
        &output,
        6,
        &[&format!(
            "kvc: x.csv, line 1: \"name\" is not one of the columns; {header}, or key,value; 0 \
             rows before it are stored"
        )],
    );
    let output = import(
        &kvs,
        "x.csv",
        "table,key,value\nt,a,1\nt,\"b,2\nt,c,3\n",
        &[],
    );
    ends(
        &output,
        6,
        &[
            "kvc: x.csv, line 3: a quotation mark is never closed; 1 row before it is stored; \
             continue with --from-line 3",
        ],
    );
    let output = import(&kvs, "x.ndjson", &rows(0..3), &["--from-line", "9"]);
    ends(
        &output,
        6,
        &[
            "kvc: x.ndjson, line 3: the file ends here, before line 9 of --from-line; 0 rows \
             before it are stored",
        ],
    );
    let output = kvs.kvc(&["import", "nowhere.csv"]);
    ends(
        &output,
        6,
        &["kvc: cannot read nowhere.csv: No such file or directory (os error 2)"],
    );
    kvs.stop();
}

#[test]
fn names_files_that_are_not_text_with_rows() {
    for (bytes, what) in [
        (
            &b"\x1f\x8b\x08\0"[..],
            "this is gzip; write gunzip -c FILE | kvc import -",
        ),
        (b"\xff\xfek\0e\0", "this is UTF-16; save it as UTF-8"),
        (
            b"[{\"table\":\"t\"}]",
            "this is a JSON array; write an object per line, as jq -c '.[]' does",
        ),
        (
            b"\xef\xbb\xbf[\n  {",
            "this is a JSON array; write an object per line, as jq -c '.[]' does",
        ),
        (
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            "this is neither NDJSON nor CSV; the first line of CSV has to be table,key,type,value",
        ),
        (
            b"\x7fELF\x02\x01",
            "this is neither NDJSON nor CSV; the first line of CSV has to be table,key,type,value",
        ),
    ] {
        let output = kvc("127.0.0.1:1", &["import", "-", "--dry-run"], bytes);
        let line = format!("kvc: standard input, line 1: {what}; 0 rows before it would be stored");
        ends(&output, 6, &[&line]);
    }
}

#[test]
fn rows_of_csv_may_have_control_characters() {
    for header in ["table,key,type,value", "\"table\",key,type,value"] {
        let text = format!("{header}\nt,nul\0,string,\x1b[1m\n");
        let output = kvc(
            "127.0.0.1:1",
            &["import", "-", "--dry-run"],
            text.as_bytes(),
        );
        ends(
            &output,
            0,
            &["kvc: checked 1 row of 1 table; nothing was stored"],
        );
    }
}

/// A line with an array is a malformed row, even if it is the first line.
#[test]
fn skips_a_line_with_an_array_anywhere() {
    let array = "[\"t\",\"k\",{\"string\":\"v\"}]\n";
    let what = "column 1: invalid type: sequence, expected an object with table, key and value";
    let run = |text: &str, args: &[&str]| {
        let args = [&["import", "-", "--dry-run"], args].concat();
        kvc("127.0.0.1:1", &args, text.as_bytes())
    };
    let checked = "kvc: checked 2 rows of 1 table; nothing was stored";
    for (text, line) in [
        (array.to_owned() + &rows(0..2), 1),
        (rows(0..1) + array + &rows(1..2), 2),
    ] {
        let output = run(&text, &["--skip-errors"]);
        let left_out = format!("kvc: standard input, line {line}: {what}");
        let sum = "kvc: skipped 1 row, named above";
        ends(&output, 6, &[&left_out, checked, sum]);
    }
    let text = array.to_owned() + &rows(0..2);
    ends(&run(&text, &["--from-line", "2"]), 0, &[checked]);
    // If the format is given, the error names the line that does not have it.
    let text = "[{}]\n".to_owned() + &rows(0..2);
    let output = run(&text, &["--format", "ndjson", "--from-line", "2"]);
    ends(&output, 0, &[checked]);
}

#[test]
fn skips_malformed_rows_on_request() {
    let (kvs, _directory) = in_memory();
    let text = rows(1..3) + "no row\n" + &rows(4..5) + "{}\n" + &rows(6..7);
    let output = import(&kvs, "rows.ndjson", &text, &["--skip-errors"]);
    ends(
        &output,
        6,
        &[
            "kvc: rows.ndjson, line 3: column 2: expected ident",
            "kvc: rows.ndjson, line 5: column 2: missing field `key`",
            "kvc: imported 4 rows into 1 table",
            "kvc: skipped 2 rows, named above",
        ],
    );
    let stored = [rows(1..3), rows(4..5), rows(6..7)].concat();
    assert_eq!(export(&kvs, &["t"]), stored.as_bytes());
    kvs.stop();
}

#[test]
fn a_dry_run_needs_no_server_and_stores_nothing() {
    let address = "127.0.0.1:1";
    let output = kvc(
        address,
        &["import", "-", "--dry-run"],
        rows(0..2500).as_bytes(),
    );
    ends(
        &output,
        0,
        &["kvc: checked 2500 rows of 1 table; nothing was stored"],
    );
    let (kvs, _directory) = in_memory();
    let output = import(&kvs, "rows.ndjson", &rows(0..10), &["--dry-run"]);
    ends(
        &output,
        0,
        &["kvc: checked 10 rows of 1 table; nothing was stored"],
    );
    assert_eq!(kvs.kvc(&["export", "t"]).status.code(), Some(1));
    kvs.stop();
}

#[test]
#[cfg(target_os = "linux")]
fn stops_reading_an_endless_row() {
    let output = kvc(
        "127.0.0.1:1",
        &["import", "/dev/zero", "--dry-run", "--format", "ndjson"],
        b"",
    );
    ends(
        &output,
        6,
        &[
            "kvc: /dev/zero, line 1: the row has more than 101711872 bytes, more than a message \
             can carry; \
           0 rows before it would be stored; fix it, or skip such rows with --skip-errors",
        ],
    );
    let csv = format!("key,value\na,1\n{}", "x".repeat(98 << 20));
    let output = kvc(
        "127.0.0.1:1",
        &["import", "-", "--dry-run", "--table", "t"],
        csv.as_bytes(),
    );
    ends(
        &output,
        6,
        &[
            "kvc: standard input, line 3: the row has more than 101711872 bytes, more than a \
             message can carry; \
           1 row before it would be stored",
        ],
    );
}

#[test]
fn the_later_row_of_a_repeated_key_wins() {
    let (kvs, _directory) = in_memory();
    let twice = |i: u64| row("t", "k", &format!("{{\"integer\":\"{i}\"}}"));
    let text: String = (0..1000).map(twice).collect();
    let output = import(&kvs, "rows.ndjson", &text, &["--batch", "7"]);
    ends(&output, 0, &["kvc: imported 1000 rows into 1 table"]);
    assert_eq!(kvs.ask(&["hget", "t", "k"]), "999\n");
    kvs.stop();
}

#[test]
fn a_name_too_long_is_found_before_later_rows_are_stored() {
    let (kvs, _directory) = in_memory();
    let value = r#"{"bool":true}"#;
    let key = row("t", &"k".repeat(65_537), value);
    let table = row(&"t".repeat(65_537), "k", value);
    let hint = "or skip such rows with --skip-errors";
    for (long, noun) in [(key, "key"), (table, "table name")] {
        let what = format!("{noun} of 65537 bytes exceeds the limit of 65536 bytes");
        let line = format!("kvc: rows.ndjson, line 300: {what}");
        let text = [rows(1..300), long, rows(301..2501)].concat();
        let args = ["--batch", "1", "--dry-run"];
        ends(
            &import(&kvs, "rows.ndjson", &text, &args),
            6,
            &[&format!(
                "{line}; 299 rows before it would be stored; fix it, {hint}"
            )],
        );
        ends(
            &import(&kvs, "rows.ndjson", &text, &args[..2]),
            6,
            &[&format!(
                "{line}; 299 rows before it are stored; fix it and continue with --from-line 300, \
                 {hint}"
            )],
        );
        assert_eq!(export(&kvs, &["t"]), rows(1..300).as_bytes());
        ends(
            &import(&kvs, "rows.ndjson", &text, &["--skip-errors"]),
            6,
            &[
                &line,
                "kvc: imported 2499 rows into 1 table",
                "kvc: skipped 1 row, named above",
            ],
        );
        let stored = [rows(1..300), rows(301..2501)].concat();
        assert_eq!(export(&kvs, &["t"]), stored.as_bytes());
        for keys in (1..2501).collect::<Vec<_>>().chunks(1000) {
            let keys: Vec<_> = keys.iter().map(|i| format!("k{i:06}")).collect();
            let keys = keys.iter().map(String::as_str);
            kvs.kvc(&["hmdel", "t"].into_iter().chain(keys).collect::<Vec<_>>());
        }
    }
    kvs.stop();
}

#[test]
fn uses_the_limits_of_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let limits = ["--max-key-size", "100KiB", "--max-table-name-size", "2"];
    let small = [
        "--max-message-size",
        "128KiB",
        "--max-frame-size",
        "16KiB",
        "--max-elements",
        "700",
    ];
    let kvs = Kvs::start(
        directory.path(),
        &[&["--storage", "memory"], &limits[..], &small[..]].concat(),
    );
    let long = |key: usize| row("t", &"k".repeat(key), r#"{"bool":true}"#);
    ends(&import(&kvs, "x.ndjson", &long(100 << 10), &["-q"]), 0, &[]);
    let wide = row(
        "t",
        "k",
        &format!("{{\"string\":\"{}\"}}", "v".repeat(128 << 10)),
    );
    for (text, what) in [
        (
            long((100 << 10) + 1),
            "key of 102401 bytes exceeds the limit of 102400 bytes",
        ),
        (
            row("ttt", "k", r#"{"bool":true}"#),
            "table name of 3 bytes exceeds the limit of 2 bytes",
        ),
        (
            wide,
            "the row is too large: message of 131094 bytes exceeds the limit of 131072 bytes",
        ),
    ] {
        let output = import(&kvs, "x.ndjson", &text, &["--skip-errors", "-q"]);
        let line = format!("kvc: x.ndjson, line 1: {what}");
        ends(&output, 6, &[&line, "kvc: skipped 1 row, named above"]);
    }
    // Batches fit its limits too, whether of many rows or of a few incompressible ones.
    let output = import(
        &kvs,
        "rows.ndjson",
        &rows(0..10_000),
        &["--batch", "100000"],
    );
    ends(&output, 0, &["kvc: imported 10000 rows into 1 table"]);
    let mut chance = Chance(9);
    let random = |i: u64| {
        let text: String = (0..60).map(|_| format!("{:016x}", chance.next())).collect();
        row("t", &format!("r{i}"), &format!("{{\"string\":\"{text}\"}}"))
    };
    let random: String = (0..500).map(random).collect();
    let output = import(&kvs, "rows.ndjson", &random, &[]);
    ends(&output, 0, &["kvc: imported 500 rows into 1 table"]);
    kvs.stop();
}

#[test]
fn accepts_any_timeout() {
    let (kvs, _directory) = in_memory();
    for timeout in ["500000000000y", "18446744073709551615s"] {
        let output = import(&kvs, "x.ndjson", &rows(0..3), &["--timeout", timeout]);
        ends(&output, 0, &["kvc: imported 3 rows into 1 table"]);
    }
    kvs.stop();
}

/// The answer to a write contains the previous values, which may be far larger than the new ones.
#[test]
fn small_values_replace_large_ones() {
    let (kvs, _directory) = in_memory();
    let text = "x".repeat(100 * 1024);
    let large = |i: u64| {
        row(
            "t",
            &format!("k{i:06}"),
            &format!("{{\"string\":\"{text}\"}}"),
        )
    };
    let before: String = (0..400).map(large).collect();
    ends(&import(&kvs, "rows.ndjson", &before, &["-q"]), 0, &[]);
    let output = import(&kvs, "rows.ndjson", &rows(0..2000), &[]);
    ends(&output, 0, &["kvc: imported 2000 rows into 1 table"]);
    assert_eq!(export(&kvs, &["t"]), rows(0..2000).as_bytes());
    kvs.stop();
}
