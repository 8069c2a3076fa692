//! What appears above the prompt while a line is typed: messages, and what is said about subscriptions.
//!
//! The line editor prints it between two keys and draws the line again. It must have the terminal then: what comes while
//! it has not, because a command runs, waits for the next prompt, so that nothing overtakes anything. Who publishes
//! faster than a terminal prints fills a short queue, then the client's mailbox, which counts what it drops.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustyline::ExternalPrinter;
use tokio::sync::mpsc::{self, Receiver, Sender};

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
    texts: Sender<String>,
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

    /// Has lines printed, each of which ends with a line break.
    pub(super) async fn print(&self, text: String) {
        // The other end goes with the program.
        let _ = self.texts.send(text).await;
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

    fn print(&self, text: String, printer: &mut Printer) {
        let state = self.lock();
        let wait = self.changed.wait_while(state, |state| !state.open);
        let mut state = wait.unwrap_or_else(PoisonError::into_inner);
        state.handing_over = true;
        drop(state);
        // Where the terminal is gone, the editor ends too.
        let _ = printer.print(text);
        self.lock().handing_over = false;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn print_all(mut waiting: Receiver<String>, stage: &Stage, mut printer: Option<Printer>) {
    while let Some(mut text) = waiting.blocking_recv() {
        while text.len() < DRAWN_AT_ONCE
            && let Ok(more) = waiting.try_recv()
        {
            text += &more;
        }
        match &mut printer {
            Some(printer) => stage.print(text, printer),
            None => {
                let _ = io::stdout().write_all(text.as_bytes());
            }
        }
    }
}
