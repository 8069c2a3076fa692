//! The line editor, in a thread of its own: it waits for keys while the connection goes on.
//!
//! It is given a prompt and returns a line, with the terminal restored.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use rustyline::completion::Completer;
use rustyline::config::BellStyle;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{ColorMode, CompletionType, Config, Context, Helper};
use tokio::sync::oneshot;

use super::complete::{Completions, Shown};
use super::history;
use super::screen::{Printer, Screen, Stage};
use crate::failure::Failure;
use crate::repl::lines;
use crate::repl::names::Names;

type Rustyline = rustyline::Editor<Assistant, FileHistory>;

/// The outcome of reading a line.
pub(super) enum Input {
    /// One line, or several that were pasted.
    Text(String),
    /// Ctrl-C.
    Cancelled,
    /// Ctrl-D, or the terminal is gone.
    End,
}

/// A prompt, plain and in colour, and where to send the input.
struct ReadRequest {
    prompt: (String, String),
    input: oneshot::Sender<Input>,
}

/// The handle of the editor.
pub(super) struct Editor {
    requests: mpsc::Sender<ReadRequest>,
    pub(super) screen: Screen,
    /// Why the history is not kept, if it is not.
    pub(super) complaint: Option<Failure>,
}

impl Editor {
    /// Takes over the terminal.
    pub(super) fn start(names: Names, colour: bool) -> Result<Self, Failure> {
        let stage = Arc::new(Stage::default());
        let cannot = |error: ReadlineError| Failure::Local(format!("cannot edit lines: {error}"));
        let mut editor = Rustyline::with_config(config().map_err(cannot)?).map_err(cannot)?;
        editor.set_helper(Some(Assistant {
            completions: Completions::new(names, colour),
            stage: Arc::clone(&stage),
            colour,
        }));
        let (history, complaint) = load(&mut editor);
        let screen = Screen::start(Arc::clone(&stage), printer(&mut editor));
        let (requests, received) = mpsc::channel();
        thread::spawn(move || run(editor, &received, &stage, history));
        Ok(Self {
            requests,
            screen,
            complaint,
        })
    }

    /// Reads a line. Messages are printed above it meanwhile.
    pub(super) async fn read(&self, prompt: (String, String)) -> Input {
        let (input, typed) = oneshot::channel();
        let ask = ReadRequest { prompt, input };
        if self.requests.send(ask).is_err() {
            return Input::End;
        }
        typed.await.unwrap_or(Input::End)
    }
}

fn config() -> rustyline::Result<Config> {
    let builder = Config::builder()
        .max_history_size(history::MAX_LINES)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .completion_show_all_if_ambiguous(true)
        .bell_style(BellStyle::None)
        // Without this, the highlighter is not asked. It chooses the colours.
        .color_mode(ColorMode::Forced);
    Ok(builder.build())
}

/// Loads the history. Returns the file to append to, or why there is none.
fn load(editor: &mut Rustyline) -> (Option<PathBuf>, Option<Failure>) {
    let path = match history::file() {
        Ok(Some(path)) => path,
        Ok(None) => return (None, None),
        Err(failure) => return (None, Some(failure)),
    };
    match editor.load_history(&path) {
        Ok(()) => (Some(path), None),
        Err(error) => {
            let failure = history::not_kept(&path, &error);
            (None, Some(failure))
        }
    }
}

fn run(
    mut editor: Rustyline,
    received: &mpsc::Receiver<ReadRequest>,
    stage: &Stage,
    mut history: Option<PathBuf>,
) {
    while let Ok(ask) = received.recv() {
        let ReadRequest { prompt, input } = ask;
        let line = editor.readline(&prompt);
        stage.close();
        let typed = match line {
            Ok(text) => {
                keep(&mut editor, &text, &mut history);
                Input::Text(text)
            }
            Err(ReadlineError::Interrupted) => Input::Cancelled,
            Err(_) => Input::End,
        };
        if input.send(typed).is_err() {
            return;
        }
    }
}

/// The printer for text above the prompt, unless the terminal is too simple.
fn printer(editor: &mut Rustyline) -> Option<Printer> {
    let printer = editor.create_external_printer().ok()?;
    Some(Box::new(printer))
}

/// Adds a line to the history. If the file cannot be written any more, the session goes on without
/// it: the line matters more.
fn keep(editor: &mut Rustyline, text: &str, history: &mut Option<PathBuf>) {
    let text = text.trim_end();
    if text.is_empty() || text.len() > history::MAX_LINE_LEN {
        return;
    }
    let added = editor.add_history_entry(text);
    if let (Ok(true), Some(path)) = (added, history.as_ref())
        && editor.append_history(path).is_err()
    {
        *history = None;
    }
}

/// What the editor consults while a line is typed.
struct Assistant {
    completions: Completions,
    stage: Arc<Stage>,
    colour: bool,
}

impl Helper for Assistant {}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..position).unwrap_or(line);
        Ok(self.completions.complete(before))
    }
}

impl Hinter for Assistant {
    type Hint = Shown;

    fn hint(&self, line: &str, position: usize, _: &Context<'_>) -> Option<Shown> {
        // This is called when the prompt is drawn.
        self.stage.open();
        (position == line.len()).then(|| self.completions.hint(line))?
    }
}

impl Highlighter for Assistant {
    /// A pasted line may contain anything. Control characters are shown as pictures of themselves.
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        visible(line)
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        prompt.into()
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        match self.colour {
            true => format!("\u{1b}[90m{hint}\u{1b}[0m").into(),
            false => hint.into(),
        }
    }

    fn highlight_char(&self, line: &str, _: usize, kind: CmdKind) -> bool {
        kind != CmdKind::ForcedRefresh && line.contains(is_dangerous)
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        if lines::is_incomplete(context.input()) {
            return Ok(ValidationResult::Incomplete);
        }
        self.stage.close();
        Ok(ValidationResult::Valid(None))
    }
}

fn is_dangerous(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

fn visible(line: &str) -> Cow<'_, str> {
    if !line.contains(is_dangerous) {
        return line.into();
    }
    let picture = |c: char| match c {
        '\0'..='\u{1f}' if is_dangerous(c) => {
            char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}')
        }
        _ if is_dangerous(c) => '\u{fffd}',
        _ => c,
    };
    line.chars().map(picture).collect::<String>().into()
}
