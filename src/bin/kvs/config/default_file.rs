//! The file that `--print-default-config` prints: every setting with its help and its default.
//!
//! It is generated from clap's definition. So it says what `--help` says, and a server that reads
//! it runs with the same settings as one without a file.

use clap::Arg;

use super::settings::Settings;

/// Narrow enough for any terminal.
const WIDTH: usize = 80;

const HEAD: &str = "\
The settings of kvs with their defaults. To use this file, start the server with --config FILE or \
KVS_CONFIG=FILE; add --check-config to check the file only. Settings are read once, at startup.

A variable overrides this file, and a flag overrides the variable: threads = 4 here, \
KVS_THREADS=4, --threads 4.

A size is a whole number of bytes or has a unit: KiB, MiB and GiB are powers of 1024; kB, MB and \
GB are powers of 1000. A time has a unit: 500ms, 30s, 5m, 1h, 1m 30s.";

/// The text of the file.
pub(crate) fn text() -> String {
    let command = Settings::command();
    let mut file = String::new();
    comment(&mut file, HEAD);
    let mut heading = None;
    for setting in command.get_arguments() {
        if setting.get_help_heading() != heading {
            heading = setting.get_help_heading();
            let rule = format!("{:-<width$}", "", width = WIDTH - 2);
            file += &format!("\n\n# {}\n# {rule}\n", heading.unwrap_or_default());
        }
        file.push('\n');
        add(&mut file, setting);
    }
    file
}

fn add(file: &mut String, setting: &Arg) {
    let help = setting.get_long_help().or(setting.get_help());
    comment(file, &help.map(ToString::to_string).unwrap_or_default());
    let values = setting.get_default_values().iter();
    let value: String = values.map(|value| value.to_string_lossy()).collect();
    *file += &format!("{} = {}\n", setting.get_id(), toml(&value));
}

/// The value as a person would write it in TOML: a number bare, everything else in quotes.
fn toml(value: &str) -> String {
    match value.parse::<u64>() {
        Ok(number) => number.to_string(),
        Err(_) => format!("{value:?}"),
    }
}

/// Adds paragraphs as comment lines of at most [`WIDTH`] columns.
fn comment(file: &mut String, text: &str) {
    for (index, paragraph) in text.split("\n\n").enumerate() {
        if index > 0 {
            file.push_str("#\n");
        }
        let mut line = "#".to_owned();
        for word in paragraph.split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH {
                file.push_str(&line);
                file.push('\n');
                "#".clone_into(&mut line);
            }
            line.push(' ');
            line.push_str(word);
        }
        file.push_str(&line);
        file.push('\n');
    }
}
