//! CSV rows for the built `kvc import`: the line where each begins, the effect of quotation marks,
//! and the value of its text.

use crate::support::programs::in_memory;
use crate::support::transfer::{ends, import, row};

/// The line end of the header does not decide those of the rows: a file may be put together from
/// several.
#[test]
fn names_a_row_by_the_line_where_it_begins() {
    let broken = [
        "table,key,type,value",
        "t,a,string,\"two",
        "lines\"",
        "",
        "t,b,integer,1",
        "t,c,integer,1.5",
        "t,d,integer,4",
    ];
    let malformed = "kvc: rows.csv, line 6: column value: \"1.5\" is not a 64-bit integer; \
        2 rows before it are stored; fix it and continue with --from-line 6, \
        or skip such rows with --skip-errors";
    for ends_of_lines in [
        ["\n", "\n"],
        ["\r\n", "\r\n"],
        ["\r\n", "\n"],
        ["\n", "\r\n"],
    ] {
        let (kvs, _directory) = in_memory();
        let [of_header, of_rows] = ends_of_lines;
        let text = |lines: &[&str]| lines[0].to_owned() + of_header + &lines[1..].join(of_rows);
        let output = import(&kvs, "rows.csv", &text(&broken), &[]);
        ends(&output, 6, &[malformed]);
        // Once fixed, the import resumes exactly at the row that was named.
        let mut mended = broken;
        mended[5] = "t,c,integer,15";
        let output = import(&kvs, "rows.csv", &text(&mended), &["--from-line", "6"]);
        ends(&output, 0, &["kvc: imported 2 rows into 1 table"]);
        assert_eq!(kvs.ask(&["hmget", "t", "b", "c", "d"]), "1\n15\n4\n");
        assert_eq!(
            kvs.kvc(&["hget", "t", "a", "--output", "raw"]).stdout,
            format!("two{of_rows}lines").as_bytes()
        );
        kvs.stop();
    }
}

#[test]
fn a_misplaced_quotation_mark_never_merges_two_rows() {
    let (kvs, _directory) = in_memory();
    let hint = "fix it and continue with --from-line 3, or skip such rows with --skip-errors";
    let within = "a quotation mark in an unquoted field; \
        quote the field, and write each mark in it twice";
    let behind = "text behind the quotation mark that ends the field; write each mark in it twice";
    for (rows, what) in [
        (
            "t,b,string,\"abc\nt,c,string,d\"ef\n",
            format!("in line 4, field 4: {behind}"),
        ),
        ("t,b,string,\"a\"b\n", format!("field 4: {behind}")),
        ("t,b,string,5\" disk\n", format!("field 4: {within}")),
        ("t,b,string,5\" disk", format!("field 4: {within}")),
        ("t,\"b\", \"string\",v\n", format!("field 3: {within}")),
        (
            "t,b,string,a\rt,c,string,d\r",
            "field 4: quote a carriage return that does not end the line".to_owned(),
        ),
    ] {
        let text = format!("table,key,type,value\nt,a,string,v\n{rows}");
        let output = import(&kvs, "x.csv", &text, &[]);
        let line = format!("kvc: x.csv, line 3: {what}; 1 row before it is stored; {hint}");
        ends(&output, 6, &[&line]);
        let next = text + "\nt,d,string,\"5\"\" disk\"";
        let output = import(&kvs, "x.csv", &next, &["--skip-errors", "-q"]);
        let left_out = "kvc: skipped 1 row, named above";
        ends(
            &output,
            6,
            &[&format!("kvc: x.csv, line 3: {what}"), left_out],
        );
        assert_eq!(kvs.ask(&["hgetall", "t"]), "a\tv\nd\t5\" disk\n");
        kvs.ask(&["hmdel", "t", "a", "d"]);
    }
    kvs.stop();
}

#[test]
fn a_number_out_of_range_is_not_changed_silently() {
    let (kvs, _directory) = in_memory();
    let csv = |float: &str| format!("table,key,type,value\nt,k,float,{float}\n");
    let json = |float: &str| row("t", "k", &format!("{{\"float\":\"{float}\"}}"));
    for float in ["1e999", "-1e999", "infinity", "INF", "+inf", "-nan"] {
        for (name, text) in [("x.csv", csv(float)), ("x.ndjson", json(float))] {
            let output = import(&kvs, name, &text, &["--dry-run"]);
            assert_eq!(output.status.code(), Some(6), "{float}: {output:?}");
        }
    }
    let output = import(&kvs, "x.csv", &csv("1e999"), &["--skip-errors", "-q"]);
    let what = "column value: \"1e999\" is out of range for a 64-bit float";
    ends(
        &output,
        6,
        &[
            &format!("kvc: x.csv, line 2: {what}"),
            "kvc: skipped 1 row, named above",
        ],
    );
    for (float, stored) in [
        ("Infinity", "inf"),
        ("-Infinity", "-inf"),
        ("inf", "inf"),
        ("-inf", "-inf"),
        ("NaN", "NaN"),
        ("1.7976931348623157e308", "1.7976931348623157e308"),
        ("+5", "5.0"),
    ] {
        for (name, text) in [("x.csv", csv(float)), ("x.ndjson", json(float))] {
            ends(&import(&kvs, name, &text, &["-q"]), 0, &[]);
            assert_eq!(
                kvs.ask(&["hget", "t", "k"]),
                format!("{stored}\n"),
                "{float}"
            );
        }
    }
    kvs.stop();
}

#[test]
fn accepts_booleans_in_capitals_as_spreadsheets_write_them() {
    let (kvs, _directory) = in_memory();
    let text = "table,key,type,value\nt,a,bool,TRUE\nt,b,bool,FALSE\n";
    ends(&import(&kvs, "x.csv", text, &["-q"]), 0, &[]);
    let stored = kvs.ask(&["hgetall", "t", "--output", "ndjson"]);
    assert_eq!(
        stored,
        "{\"key\":\"a\",\"value\":{\"bool\":true}}\n{\"key\":\"b\",\"value\":{\"bool\":false}}\n"
    );
    kvs.stop();
}

#[test]
fn detects_the_format_and_accepts_a_table_name() {
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
