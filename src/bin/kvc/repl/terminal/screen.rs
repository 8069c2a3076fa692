//! Text above the prompt while a line is typed: messages, and notes about subscriptions.
//!
//! The line editor prints the text between two keys and draws the line again, for which it has to
//! own the terminal. While a command runs it does not, and text waits for the next prompt, so that
//! the order is kept. If messages come faster than the terminal prints, they fill a short queue
//! here, then the client's mailbox, which counts what it drops.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustyline::ExternalPrinter;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::printing;

/// How many texts may wait for the terminal.
const WAITING: usize = 64;

/// The largest amount drawn at once, in bytes.
const DRAWN_AT_ONCE: usize = 16 * 1024;

/// How long the end of a line waits for a text that is being handed over.
const HANDED_OVER: Duration = Duration::from_millis(5);

pub(super) type Printer = Box<dyn ExternalPrinter + Send>;

/// The handle for printing above the prompt. Cheap to clone.
#[derive(Clone)]
pub(super) struct Screen {
    texts: Sender<Text>,
}

/// Lines to print, unless their token is cancelled first.
struct Text {
    lines: String,
    cancelled: Option<CancellationToken>,
}

/// Whether the editor owns the terminal.
#[derive(Default)]
pub(super) struct Stage {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whether the editor has drawn a prompt and waits for keys.
    open: bool,
    handing_over: bool,
}

impl Screen {
    /// Starts the thread that prints through the editor, or directly if the editor gives no
    /// printer.
    pub(super) fn start(stage: Arc<Stage>, printer: Option<Printer>) -> Self {
        let (texts, waiting) = mpsc::channel(WAITING);
        thread::spawn(move || print_all(waiting, &stage, printer));
        Self { texts }
    }

    /// Prints lines, each of which ends with a line break, unless they are cancelled first.
    pub(super) async fn print(&self, lines: String, cancelled: Option<&CancellationToken>) {
        let cancelled = cancelled.cloned();
        // The receiver lives as long as the program.
        let _ = self.texts.send(Text { lines, cancelled }).await;
    }
}

impl Text {
    /// The lines, unless they were cancelled.
    fn into_lines(self) -> Option<String> {
        let cancelled = self.cancelled.is_some_and(|token| token.is_cancelled());
        (!cancelled).then_some(self.lines)
    }
}

impl Stage {
    /// The editor is drawing its prompt.
    pub(super) fn open(&self) {
        let mut state = self.lock();
        if !state.open {
            state.open = true;
            self.changed.notify_all();
        }
    }

    /// The editor is about to give up the terminal.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        // A text being handed over now is printed first, or waits in the editor for the next
        // prompt.
        let wait = |state: &mut State| state.handing_over;
        let _ = self.changed.wait_timeout_while(state, HANDED_OVER, wait);
    }

    /// Prints these lines once the editor owns the terminal, with what has been queued by then.
    fn print(&self, first: Text, more: &mut Receiver<Text>, printer: &mut Printer) {
        let state = self.lock();
        let wait = self.changed.wait_while(state, |state| !state.open);
        let mut state = wait.unwrap_or_else(PoisonError::into_inner);
        // A command that ran meanwhile may have cancelled some of it.
        let lines = joined(first, more);
        if lines.is_empty() {
            return;
        }
        state.handing_over = true;
        drop(state);
        // If the terminal is gone, the editor ends too.
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

/// The lines of this text and of those queued after it.
fn joined(first: Text, more: &mut Receiver<Text>) -> String {
    let mut lines = first.into_lines().unwrap_or_default();
    while lines.len() < DRAWN_AT_ONCE
        && let Ok(text) = more.try_recv()
    {
        lines += &text.into_lines().unwrap_or_default();
    }
    lines
}
