//! Tables into files and back, by `kvc export` and `kvc import` as they were built: nothing is lost, whatever is stored
//! and however much, and what is wrong with a file is told with the line to go on with.

#![cfg(all(feature = "cli", unix))]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/programs.rs"]
mod programs;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use programs::{Kvs, kvc, stderr};
use tempfile::TempDir;

const FORMATS: [&str; 2] = ["ndjson", "csv"];

fn in_memory() -> (Kvs, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(directory.path(), &["--storage", "memory"]);
    (kvs, directory)
}

/// Imports this text, which kvc finds in a file of that name.
fn import(kvs: &Kvs, name: &str, text: &str, args: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    let mut output = kvs.kvc(&[&["import", path.to_str().unwrap()], args].concat());
    // It is named as it was given.
    let shown = stderr(&output).replace(path.to_str().unwrap(), name);
    output.stderr = shown.into_bytes();
    output
}

/// What kvc says, without how long it took.
fn said(output: &Output) -> Vec<String> {
    let without_pace = |line: &str| match line.split_once(" in ") {
        Some((what, pace)) if pace.contains(" rows/s") => {
            let rest = pace.split_once(';').map_or("", |(_, rest)| rest);
            format!("{what}{}{rest}", if rest.is_empty() { "" } else { ";" })
        }
        _ => line.to_owned(),
    };
    stderr(output).lines().map(without_pace).collect()
}

fn ends(output: &Output, code: i32, lines: &[&str]) {
    assert_eq!(said(output), lines);
    assert_eq!(output.status.code(), Some(code));
    assert_eq!(output.stdout, b"");
}

fn export(kvs: &Kvs, args: &[&str]) -> Vec<u8> {
    let output = kvs.kvc(&[&["export", "--quiet"], args].concat());
    assert_eq!(
        (stderr(&output).as_str(), output.status.code()),
        ("", Some(0))
    );
    output.stdout
}

fn row(table: &str, key: &str, value: &str) -> String {
    format!("{{\"table\":{table:?},\"key\":{key:?},\"value\":{value}}}\n")
}

/// So many rows of the table "t", with integers.
fn rows(numbers: std::ops::Range<u64>) -> String {
    let row = |i| {
        row(
            "t",
            &format!("k{i:06}"),
            &format!("{{\"integer\":\"{i}\"}}"),
        )
    };
    numbers.map(row).collect()
}

/// Rows that are hard to keep: every type at its limits, and names and texts that mean something to one format or other.
fn hard_rows() -> String {
    let values = [
        r#"{"string":""}"#,
        r#"{"string":"two\nlines\r\nand \r one, \"quoted\"; \\ \t\u0000\u001b[2J\u007f"}"#,
        r#"{"string":" spaces at both ends "}"#,
        r#"{"string":"=1+1"}"#,
        "{\"string\":\"é\u{10ffff}\u{feff}\"}",
        r#"{"binary":""}"#,
        r#"{"binary":"AP8K"}"#,
        r#"{"integer":"0"}"#,
        r#"{"integer":"9223372036854775807"}"#,
        r#"{"integer":"-9223372036854775808"}"#,
        r#"{"float":0.0}"#,
        r#"{"float":-0.0}"#,
        r#"{"float":0.1}"#,
        r#"{"float":5e-324}"#,
        r#"{"float":1.7976931348623157e+308}"#,
        r#"{"float":9007199254740993.0}"#,
        r#"{"float":2.2250738585072011e-308}"#,
        r#"{"float":"NaN"}"#,
        r#"{"float":"Infinity"}"#,
        r#"{"float":"-Infinity"}"#,
        r#"{"bool":true}"#,
        r#"{"bool":false}"#,
    ];
    let names = [
        "",
        "\\u0000",
        "\\n",
        "\\r",
        "\\\"",
        ",",
        "a",
        "a,\\\"b\\\"\\r\\n",
        "{",
        "é",
        "\u{ffff}",
    ];
    let keyed =
        |i: usize, value: &&str| format!(r#"{{"table":"t","key":"{i:02}","value":{value}}}"#);
    let named = |name: &&str| {
        format!(r#"{{"table":"t","key":"name {name}","value":{{"string":"{name}"}}}}"#)
    };
    let mut rows: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(i, value)| keyed(i, value))
        .collect();
    rows.extend(names.iter().map(named));
    rows.extend(
        names.map(|name| format!(r#"{{"table":"{name}","key":"{name}","value":{{"bool":true}}}}"#)),
    );
    rows.join("\n") + "\n"
}

const HARD_TABLES: [&str; 11] = [
    "t",
    "",
    "\n",
    "\r",
    "\"",
    ",",
    "a",
    "a,\"b\"\r\n",
    "{",
    "é",
    "\u{ffff}",
];

#[test]
fn whatever_is_stored_comes_back_and_is_exported_again_byte_for_byte() {
    let (kvs, directory) = in_memory();
    let stored = "kvc: imported 44 rows into 12 tables";
    ends(
        &import(&kvs, "rows.ndjson", &hard_rows(), &[]),
        0,
        &[stored],
    );
    for format in FORMATS {
        let args = [&HARD_TABLES[..], &["--format", format]].concat();
        let exported = export(&kvs, &args);
        for storage in ["memory", "sled:data"] {
            let directory = directory.path().join(format);
            fs::create_dir_all(&directory).unwrap();
            let other = Kvs::start(&directory, &["--storage", storage]);
            let imported = kvc(&other.address, &["import", "-"], &exported);
            ends(&imported, 0, &["kvc: imported 43 rows into 11 tables"]);
            assert!(export(&other, &args) == exported, "{format}, {storage}");
            // And it is what was there: one is compared with the other in the first format.
            assert_eq!(export(&other, &HARD_TABLES), export(&kvs, &HARD_TABLES));
            other.stop();
        }
    }
    let float = kvs.ask(&["hget", "t", "14"]);
    assert_eq!(float, "1.7976931348623157e308\n");
    assert_eq!(kvs.ask(&["hget", "t", "16"]), "2.225073858507201e-308\n");
    assert_eq!(kvs.ask(&["hget", "t", "11"]), "-0.0\n");
    kvs.stop();
}

#[test]
fn tables_come_as_they_are_named_and_keys_in_their_order() {
    let (kvs, _directory) = in_memory();
    kvs.ask(&[
        "hmset", "b", "z", "1", "é", "int:2", "", "hex:00", "a,b", "float:1",
    ]);
    kvs.ask(&["hset", "a", "k", "v\n"]);
    let rows = [
        row("b", "", r#"{"binary":"AA=="}"#),
        row("b", "a,b", r#"{"float":1.0}"#),
        row("b", "z", r#"{"string":"1"}"#),
        row("b", "é", r#"{"integer":"2"}"#),
        row("a", "k", r#"{"string":"v\n"}"#),
    ];
    let exported = kvs.kvc(&["export", "b", "a"]);
    assert_eq!(
        String::from_utf8(exported.stdout.clone()).unwrap(),
        rows.concat()
    );
    assert_eq!(said(&exported), ["kvc: exported 5 rows of 2 tables"]);
    let csv = "table,key,type,value\na,k,string,\"v\n\"\nb,,binary,AA==\nb,\"a,b\",float,1.0\nb,z,string,1\nb,é,integer,2\n";
    let exported = export(&kvs, &["a", "b", "--format", "csv"]);
    assert_eq!(String::from_utf8(exported).unwrap(), csv);
    kvs.stop();
}

#[test]
fn a_table_that_is_not_there_is_said_to_be_so_and_the_others_are_written() {
    let (kvs, _directory) = in_memory();
    kvs.ask(&["hset", "t", "k", "bool:true"]);
    let output = kvs.kvc(&["export", "no", "t", "none"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, row("t", "k", r#"{"bool":true}"#).as_bytes());
    assert_eq!(
        said(&output),
        [
            "kvc: exported 1 row of 1 table",
            "kvc: there is no table \"no\", \"none\""
        ]
    );
    let see = "see kvc export --help";
    ends(
        &kvs.kvc(&["export"]),
        2,
        &[&format!(
            "kvc: name the tables to export; the server cannot list them; {see}"
        )],
    );
    ends(
        &kvs.kvc(&["export", "t", "u", "t"]),
        2,
        &[&format!("kvc: the table \"t\" is named twice; {see}")],
    );
    kvs.stop();
}

/// 24 MiB, where an answer has 16.
fn large(kvs: &Kvs) -> String {
    let row = |i: u64| {
        let text = format!("{i:08}").repeat(if i.is_multiple_of(100) { 16 * 1024 } else { 16 });
        row(
            "large",
            &format!("{i:05}"),
            &format!("{{\"string\":\"{text}\"}}"),
        )
    };
    let rows: String = (0..16_000).map(row).collect();
    let imported = kvc(&kvs.address, &["import", "-", "-q"], rows.as_bytes());
    ends(&imported, 0, &[]);
    rows
}

#[test]
fn a_table_that_is_larger_than_any_answer_is_exported_whole() {
    for storage in ["memory", "sled:data"] {
        let directory = tempfile::tempdir().unwrap();
        let kvs = Kvs::start(directory.path(), &["--storage", storage]);
        let rows = large(&kvs);
        assert_eq!(kvs.kvc(&["hgetall", "large"]).status.code(), Some(3));
        assert!(export(&kvs, &["large"]) == rows.as_bytes(), "{storage}");
        kvs.stop();
    }
}

#[test]
fn who_has_read_enough_of_an_export_may_go() {
    let (kvs, _directory) = in_memory();
    large(&kvs);
    for format in FORMATS {
        let mut child = start(&kvs, &["export", "large", "--format", format]);
        let mut first = [0; 10];
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut first).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        ends(&output, 0, &[]);
    }
    kvs.stop();
}

#[test]
fn one_server_is_copied_to_another_through_a_pipe() {
    let ((from, _one), (to, _two)) = (in_memory(), in_memory());
    let rows = rows(0..5000);
    ends(
        &kvc(&from.address, &["import", "-", "-q"], rows.as_bytes()),
        0,
        &[],
    );
    let mut export = start(&from, &["export", "t", "-q"]);
    let import = command(&to, &["import", "-", "--table", "copy"])
        .stdin(export.stdout.take().unwrap())
        .output()
        .unwrap();
    ends(&import, 0, &["kvc: imported 5000 rows into 1 table"]);
    assert!(export.wait().unwrap().success());
    let copied = self::export(&to, &["copy"]);
    assert_eq!(
        String::from_utf8(copied).unwrap(),
        rows.replace("\"t\"", "\"copy\"")
    );
    from.stop();
    to.stop();
}

#[test]
fn a_malformed_row_ends_the_import_and_it_goes_on_from_its_line() {
    let (kvs, _directory) = in_memory();
    let whole = rows(1..3001);
    let mut lines: Vec<_> = whole.lines().collect();
    lines[1499] = r#"{"table":"t","key":"k001500","value":{"integer":"many"}}"#;
    let broken = lines.join("\n");
    let hint = "or leave such rows out with --skip-errors";
    ends(
        &import(&kvs, "rows.ndjson", &broken, &[]),
        6,
        &[&format!(
            "kvc: rows.ndjson, line 1500: column 54: \"many\" is no integer of 64 bits; \
             1499 rows before it stored; mend it and go on with --from-line 1500, {hint}"
        )],
    );
    assert_eq!(export(&kvs, &["t"]), rows(1..1500).as_bytes());
    let goes_on = import(&kvs, "rows.ndjson", &whole, &["--from-line", "1500"]);
    ends(&goes_on, 0, &["kvc: imported 1501 rows into 1 table"]);
    assert_eq!(export(&kvs, &["t"]), whole.as_bytes());
    kvs.stop();
}

#[test]
fn rows_of_csv_are_named_by_the_line_that_they_begin_in() {
    for end in ["\n", "\r\n"] {
        let (kvs, _directory) = in_memory();
        let broken = [
            "table,key,type,value",
            "t,a,string,\"two",
            "lines\"",
            "t,b,integer,1",
            "t,c,integer,1.5",
            "t,d,integer,4",
            "",
        ];
        let output = import(&kvs, "rows.csv", &broken.join(end), &[]);
        ends(
            &output,
            6,
            &[
                "kvc: rows.csv, line 5: column value: \"1.5\" is no integer of 64 bits; 2 rows before it stored; \
               mend it and go on with --from-line 5, or leave such rows out with --skip-errors",
            ],
        );
        let output = import(&kvs, "rows.csv", &broken.join(end), &["--from-line", "6"]);
        ends(&output, 0, &["kvc: imported 1 row into 1 table"]);
        assert_eq!(kvs.ask(&["hmget", "t", "b", "d"]), "1\n4\n");
        assert_eq!(
            kvs.kvc(&["hget", "t", "a", "--output", "raw"]).stdout,
            format!("two{end}lines").as_bytes()
        );
        kvs.stop();
    }
}

#[test]
fn each_mistake_is_named() {
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
            "the value has no type, one of string, binary, integer, float, bool",
        ),
        (
            "x.ndjson",
            r#"{"table":"t","key":"k","value":{"string":"","bool":true}}"#,
            "the value has several types",
        ),
        (
            "x.ndjson",
            r#"{"table":"t","key":"k","value":"v"}"#,
            "column 34: invalid type: string \"v\", expected an object with a type, such as {\"string\":\"text\"}",
        ),
        (
            "x.ndjson",
            r#"{"table":"t","key":"k","value":{"binary":"A"}}"#,
            "malformed base64: invalid length at 0",
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
            "column type: \"text\" is none of string, binary, integer, float, bool",
        ),
        (
            "x.csv",
            "t,k,bool,yes",
            "column value: \"yes\" is neither true nor false",
        ),
        (
            "x.csv",
            "t,k,float,x",
            "column value: \"x\" is no floating-point number",
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
        let end =
            "0 rows before it would be stored; mend it, or leave such rows out with --skip-errors";
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
        ("table,key,value,key\n", "the column key comes twice"),
        ("table,key,value,ttl\n", "\"ttl\" is none of the columns"),
    ] {
        let output = import(&kvs, "x.csv", text, &[]);
        ends(
            &output,
            6,
            &[&format!(
                "kvc: x.csv, line 1: {what}; {header}; 0 rows before it stored"
            )],
        );
    }
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
            "kvc: x.csv, line 3: a quotation mark has no end; 1 row before it stored; go on with --from-line 3",
        ],
    );
    let output = import(&kvs, "x.ndjson", &rows(0..3), &["--from-line", "9"]);
    ends(
        &output,
        6,
        &[
            "kvc: x.ndjson, line 3: the file ends here, before line 9 that --from-line names; 0 rows before it stored",
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
fn malformed_rows_are_left_out_where_that_is_asked_for() {
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
            "kvc: left out 2 rows, named above",
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
fn a_row_that_has_no_end_is_not_read_to_it() {
    let output = kvc(
        "127.0.0.1:1",
        &["import", "/dev/zero", "--dry-run", "--format", "ndjson"],
        b"",
    );
    ends(
        &output,
        6,
        &[
            "kvc: /dev/zero, line 1: the row has more than 101711872 bytes, so that no message can carry it; \
           0 rows before it would be stored; mend it, or leave such rows out with --skip-errors",
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
            "kvc: standard input, line 3: the row has more than 101711872 bytes, so that no message can carry it; \
           1 row before it would be stored",
        ],
    );
}

#[test]
fn the_format_is_found_and_tables_can_be_named() {
    let (kvs, _directory) = in_memory();
    let json = "\u{feff}{\"key\":\"a\",\"value\":{\"integer\":7}}\n\n";
    let csv = "\u{feff}value,key\none,a\r\n\"two, or\nthree\",b\r\n";
    for (name, text, args) in [
        ("rows.jsonl", json, &[][..]),
        ("rows", json, &[]),
        ("rows.csv", csv, &[]),
        ("rows", csv, &[]),
        ("rows.txt", csv, &["--format", "csv"]),
    ] {
        let args = [args, &["--table", "people", "--quiet"]].concat();
        ends(&import(&kvs, name, text, &args), 0, &[]);
        let stored = kvs.ask(&["hgetall", "people"]);
        let wanted = if text == json {
            "a\t7\n"
        } else {
            "a\tone\nb\ttwo, or\nthree\n"
        };
        assert_eq!(stored, wanted, "{name}");
        kvs.ask(&["hmdel", "people", "a", "b"]);
    }
    let output = import(&kvs, "rows.ndjson", "", &[]);
    ends(&output, 0, &["kvc: imported 0 rows into 0 tables"]);
    kvs.stop();
}

#[test]
fn of_a_key_that_comes_twice_the_later_row_stays() {
    let (kvs, _directory) = in_memory();
    let twice = |i: u64| row("t", "k", &format!("{{\"integer\":\"{i}\"}}"));
    let text: String = (0..1000).map(twice).collect();
    let output = import(&kvs, "rows.ndjson", &text, &["--batch", "7"]);
    ends(&output, 0, &["kvc: imported 1000 rows into 1 table"]);
    assert_eq!(kvs.ask(&["hget", "t", "k"]), "999\n");
    kvs.stop();
}

#[test]
fn a_row_that_the_server_refuses_is_found() {
    let (kvs, _directory) = in_memory();
    let long = row("t", &"k".repeat(70_000), r#"{"bool":true}"#);
    let text = [rows(1..300), long, rows(301..2501)].concat();
    let refused = "kvc: the server answered 400: key of 70000 bytes exceeds the limit of 65536 bytes (line 300)";
    let output = import(&kvs, "rows.ndjson", &text, &[]);
    ends(
        &output,
        3,
        &[&format!(
            "{refused}; 299 rows stored, go on with --from-line 300"
        )],
    );
    let output = import(&kvs, "rows.ndjson", &text, &["--skip-errors"]);
    ends(
        &output,
        6,
        &[
            refused,
            "kvc: imported 2499 rows into 1 table",
            "kvc: left out 1 row, named above",
        ],
    );
    let stored = [rows(1..300), rows(301..2501)].concat();
    assert_eq!(export(&kvs, &["t"]), stored.as_bytes());
    kvs.stop();
}

/// The answer to a write has what was replaced, which may be far more than what is stored.
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

/// An import of which each row is stored as soon as it is written to its standard input.
fn trickle(kvs: &Kvs) -> Child {
    let mut child = start(kvs, &["import", "-", "--batch", "1"]);
    let mut input = child.stdin.as_ref().unwrap();
    input.write_all(rows(1..12).as_bytes()).unwrap();
    // The eleventh may still wait to be in a batch.
    while kvs.kvc(&["hexist", "t", "k000010"]).status.code() != Some(0) {}
    child.stdin.as_mut().unwrap().flush().unwrap();
    child
}

#[test]
fn where_the_server_is_gone_it_says_in_which_line_to_go_on() {
    let (kvs, _directory) = in_memory();
    let mut child = trickle(&kvs);
    kvs.stop();
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(rows(12..2000).as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(4), "{said:?}");
    let [line] = &said[..] else {
        panic!("{said:?}")
    };
    goes_on(line);
}

#[test]
fn ctrl_c_ends_it_with_the_line_to_go_on_with() {
    let (kvs, _directory) = in_memory();
    let child = trickle(&kvs);
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(130), "{said:?}");
    assert!(said[0].starts_with("kvc: stopped; "), "{said:?}");
    goes_on(&said[0]);
    kvs.stop();
}

/// What is said after the first ten rows were stored, and perhaps not yet known to be.
fn goes_on(line: &str) {
    let (stored, next) = line.split_once(" stored, go on with --from-line ").unwrap();
    let stored = stored.rsplit_once("; ").unwrap().1;
    let stored: u64 = stored.split_once(" row").unwrap().0.parse().unwrap();
    assert_eq!(next, (stored + 1).to_string());
    assert!((9..=11).contains(&stored), "{line}");
}

/// As many bytes as are stored would not fit what it may allocate.
#[test]
#[cfg(target_os = "linux")]
fn it_needs_little_memory_however_much_there_is() {
    const MIB: usize = 1024 * 1024;
    let limit = format!("--data={}", 64 * MIB);
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(directory.path(), &["--storage", "memory"]);
    let path = directory.path().join("rows.ndjson");
    let mut file = fs::File::create(&path).unwrap();
    let text = "x".repeat(32 * 1024);
    for i in 0..2560 {
        let row = row(
            "t",
            &format!("{i:05}"),
            &format!("{{\"string\":\"{text}\"}}"),
        );
        file.write_all(row.as_bytes()).unwrap();
    }
    assert!(file.metadata().unwrap().len() > 80 * MIB as u64);
    let limited = |args: &[&str]| {
        let mut command = Command::new("prlimit");
        command
            .arg(&limit)
            .arg(env!("CARGO_BIN_EXE_kvc"))
            .args(args);
        command.env("KVC_ADDR", &kvs.address);
        command
    };
    let output = limited(&["import", path.to_str().unwrap()])
        .output()
        .unwrap();
    ends(&output, 0, &["kvc: imported 2560 rows into 1 table"]);
    let exported = directory.path().join("exported.ndjson");
    let mut export = limited(&["export", "t", "-q"]);
    let output = export
        .stdout(fs::File::create(&exported).unwrap())
        .output()
        .unwrap();
    ends(&output, 0, &[]);
    assert!(same(&path, &exported));

    // Nor does it read on where the server takes nothing.
    kvs.signal("STOP");
    let mut import = limited(&["import", path.to_str().unwrap(), "--timeout", "2s"]);
    let output = import.output().unwrap();
    kvs.signal("CONT");
    let end = "check --addr, or allow more with --timeout; 0 rows stored, go on with --from-line 1";
    let late = format!("kvc: no answer from {} within 2s; {end}", kvs.address);
    ends(&output, 4, &[&late]);
    kvs.stop();
}

fn same(one: &Path, other: &Path) -> bool {
    let [mut one, mut other] =
        [one, other].map(|path| BufReader::new(fs::File::open(path).unwrap()));
    loop {
        let (a, b) = (one.fill_buf().unwrap(), other.fill_buf().unwrap());
        let len = a.len().min(b.len());
        if a[..len] != b[..len] || len == 0 {
            return a.len() == b.len();
        }
        one.consume(len);
        other.consume(len);
    }
}

fn command(kvs: &Kvs, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvc"));
    command
        .args(args)
        .env("KVC_ADDR", &kvs.address)
        .env_remove("KVC_TIMEOUT");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn start(kvs: &Kvs, args: &[&str]) -> Child {
    command(kvs, args).spawn().unwrap()
}
