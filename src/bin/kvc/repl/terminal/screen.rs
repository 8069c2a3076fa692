//! What appears above the prompt while a line is typed: messages, and what is said about subscriptions.
//!
//! The line editor prints it between two keys and draws the line again. It must have the terminal then: what comes while
//! it has not, because a command runs, waits for the next prompt, so that nothing overtakes anything. Who publishes
//! faster than a terminal prints fills a short queue, then the client's mailbox, which counts what it drops.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustyline::ExternalPrinter;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::printing;

/// How many texts wait for the terminal.
const WAITING: usize = 64;

/// How much is drawn in one go, in bytes.
const DRAWN_AT_ONCE: usize = 16 * 1024;

/// How long the end of a line waits for a text that is just being handed over.
const HANDED_OVER: Duration = Duration::from_millis(5);

pub(super) type Printer = Box<dyn ExternalPrinter + Send>;

/// The way to the place above the prompt. Cheap to clone.
#[derive(Clone)]
pub(super) struct Screen {
    texts: Sender<Text>,
}

/// Lines, which nobody wants any more once their token is cancelled.
struct Text {
    lines: String,
    cancelled: Option<CancellationToken>,
}

/// Who has the terminal.
#[derive(Default)]
pub(super) struct Stage {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether the editor has drawn a prompt, and waits for keys.
    open: bool,
    handing_over: bool,
}

impl Screen {
    /// Texts go to the terminal by way of the editor, if it gives a printer for that.
    pub(super) fn start(stage: Arc<Stage>, printer: Option<Printer>) -> Self {
        let (texts, waiting) = mpsc::channel(WAITING);
        thread::spawn(move || print_all(waiting, &stage, printer));
        Self { texts }
    }

    /// Has lines printed, each of which ends with a line break, unless they are cancelled before
    /// that.
    pub(super) async fn print(&self, lines: String, cancelled: Option<&CancellationToken>) {
        let cancelled = cancelled.cloned();
        // The other end goes with the program.
        let _ = self.texts.send(Text { lines, cancelled }).await;
    }
}

impl Text {
    /// What is to be printed now.
    fn into_lines(self) -> Option<String> {
        let cancelled = self.cancelled.is_some_and(|token| token.is_cancelled());
        (!cancelled).then_some(self.lines)
    }
}

impl Stage {
    /// The editor has drawn its prompt, or draws it.
    pub(super) fn open(&self) {
        let mut state = self.lock();
        if !state.open {
            state.open = true;
            self.changed.notify_all();
        }
    }

    /// The editor is about to leave the terminal to others.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        // What is handed over now gets in, or waits in the editor for the next prompt.
        let wait = |state: &mut State| state.handing_over;
        let _ = self.changed.wait_timeout_while(state, HANDED_OVER, wait);
    }

    /// Prints these lines once the terminal can be had, with what follows them by then.
    fn print(&self, first: Text, more: &mut Receiver<Text>, printer: &mut Printer) {
        let state = self.lock();
        let wait = self.changed.wait_while(state, |state| !state.open);
        let mut state = wait.unwrap_or_else(PoisonError::into_inner);
        // Only now is it known what a command that ran meanwhile has left of it.
        let lines = joined(first, more);
        if lines.is_empty() {
            return;
        }
        state.handing_over = true;
        drop(state);
        // Where the terminal is gone, the editor ends too.
        let _ = printer.print(lines);
        self.lock().handing_over = false;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn print_all(mut texts: Receiver<Text>, stage: &Stage, mut printer: Option<Printer>) {
    while let Some(first) = texts.blocking_recv() {
        match &mut printer {
            Some(printer) => stage.print(first, &mut texts, printer),
            None => {
                let _ = printing::say(&joined(first, &mut texts));
            }
        }
    }
}

/// The lines of this text, and of those that wait behind it.
fn joined(first: Text, more: &mut Receiver<Text>) -> String {
    let mut lines = first.into_lines().unwrap_or_default();
    while lines.len() < DRAWN_AT_ONCE
        && let Ok(text) = more.try_recv()
    {
        lines += &text.into_lines().unwrap_or_default();
    }
    lines
}
