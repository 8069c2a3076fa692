//! Tables into files and back with the built `kvc export` and `kvc import`: nothing is lost,
//! whatever is stored and however much.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Command;

use crate::support::MIB;
use crate::support::programs::{Kvs, in_memory, kvc};
use crate::support::transfer::{
    command, ends, export, import, large, narrow_way, row, rows, said, start,
};

const FORMATS: [&str; 2] = ["ndjson", "csv"];

/// Rows that are hard to preserve: every type at its limits, and names and texts that are special
/// in some format.
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
fn every_stored_row_survives_and_exports_again_byte_for_byte() {
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
            // And it is what was there before: compare both servers in the first format.
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

/// Commands that print the pairs of a table as csv print them as an export does.
#[test]
fn imports_a_table_printed_as_csv() {
    let (kvs, _directory) = in_memory();
    ends(&import(&kvs, "rows.ndjson", &hard_rows(), &["-q"]), 0, &[]);
    let printed = kvs.ask(&["hgetall", "t", "--output", "csv"]);
    let imported = kvc(
        &kvs.address,
        &["import", "-", "--table", "copy", "-q"],
        printed.as_bytes(),
    );
    ends(&imported, 0, &[]);
    for format in FORMATS {
        let [table, copy] = ["t", "copy"].map(|table| export(&kvs, &[table, "--format", format]));
        let [table, copy] = [table, copy].map(|rows| String::from_utf8(rows).unwrap());
        let renamed = match format {
            "csv" => copy.replace("copy,", "t,"),
            _ => copy.replace("\"copy\"", "\"t\""),
        };
        assert_eq!(renamed, table);
        assert!(
            table.contains("Infinity") && !table.contains("inf"),
            "{table}"
        );
        let rows = table.replace("\nt,", "\n").replace("table,", "");
        assert!(format == "ndjson" || rows == printed, "{rows}{printed}");
    }
    kvs.stop();
}

#[test]
fn exports_tables_as_named_and_keys_in_order() {
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
    let csv = "table,key,type,value\na,k,string,\"v\n\"\nb,,binary,AA==\n\
               b,\"a,b\",float,1.0\nb,z,string,1\nb,é,integer,2\n";
    let exported = export(&kvs, &["a", "b", "--format", "csv"]);
    assert_eq!(String::from_utf8(exported).unwrap(), csv);
    kvs.stop();
}

#[test]
fn names_a_missing_table_and_exports_the_others() {
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

#[test]
fn exports_a_table_larger_than_any_answer() {
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
fn a_closed_reader_of_an_export_is_no_error() {
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
fn copies_one_server_to_another_through_a_pipe() {
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

/// The stored bytes exceed the memory that kvc may allocate.
#[test]
#[cfg(target_os = "linux")]
fn needs_little_memory_for_large_tables() {
    let limit = format!("--data={}", 64 * MIB);
    let (kvs, directory) = in_memory();
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
    let limited = |address: &str, args: &[&str]| {
        let mut command = Command::new("prlimit");
        command
            .arg(&limit)
            .arg(env!("CARGO_BIN_EXE_kvc"))
            .args(args);
        command.env("KVC_ADDR", address);
        command
    };
    let output = limited(&kvs.address, &["import", path.to_str().unwrap()])
        .output()
        .unwrap();
    ends(&output, 0, &["kvc: imported 2560 rows into 1 table"]);
    let exported = directory.path().join("exported.ndjson");
    let mut export = limited(&kvs.address, &["export", "t", "-q"]);
    let output = export
        .stdout(fs::File::create(&exported).unwrap())
        .output()
        .unwrap();
    ends(&output, 0, &[]);
    assert!(same(&path, &exported));

    // It does not read ahead either if the server takes nothing.
    let (address, _way) = narrow_way(&kvs.address, 100);
    let mut import = limited(
        &address,
        &["import", path.to_str().unwrap(), "--timeout", "2s"],
    );
    let output = import.output().unwrap();
    let end = "check KVC_ADDR, or allow more with --timeout; 0 rows stored, continue with \
               --from-line 1; ";
    let late = format!("kvc: no answer from {address} within 2s; {end}");
    let said = said(&output);
    assert!(said[0].starts_with(&late), "{said:?}");
    let behind = said[0].split_once("--from-line 1; ").unwrap().1;
    let rows: usize = behind.split_once(" row").unwrap().0.parse().unwrap();
    assert!(rows * text.len() < 8 * MIB, "{said:?}");
    assert_eq!(output.status.code(), Some(4));
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
