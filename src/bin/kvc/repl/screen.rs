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

/// How many texts wait for the terminal.
const WAITING: usize = 64;

/// How much is drawn in one go, in bytes.
const DRAWN_AT_ONCE: usize = 16 * 1024;

/// How long the end of a line waits for a text that is just being handed over.
const HANDED_OVER: Duration = Duration::from_millis(5);

/// The way to the place above the prompt. Cheap to clone.
#[derive(Clone)]
pub(super) struct Screen {
    texts: Sender<String>,
}

/// Whether the editor has the terminal.
#[derive(Default)]
pub(super) struct Stage {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    handing_over: bool,
}

impl Screen {
    /// Prints by way of the editor's printer. Without one, as on a terminal that can do nothing, it prints at once.
    pub(super) fn start(
        printer: Option<impl ExternalPrinter + Send + 'static>,
        stage: Arc<Stage>,
    ) -> Self {
        let (texts, waiting) = mpsc::channel(WAITING);
        thread::spawn(move || match printer {
            Some(printer) => above_the_prompt(waiting, printer, &stage),
            None => at_once(waiting),
        });
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
        let _ = self
            .changed
            .wait_timeout_while(state, HANDED_OVER, |state| state.handing_over);
    }

    fn begin(&self) {
        let state = self.lock();
        let wait = self.changed.wait_while(state, |state| !state.open);
        wait.unwrap_or_else(PoisonError::into_inner).handing_over = true;
    }

    fn end(&self) {
        self.lock().handing_over = false;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn above_the_prompt(
    mut waiting: Receiver<String>,
    mut printer: impl ExternalPrinter,
    stage: &Stage,
) {
    while let Some(mut text) = waiting.blocking_recv() {
        stage.begin();
        while text.len() < DRAWN_AT_ONCE
            && let Ok(more) = waiting.try_recv()
        {
            text += &more;
        }
        let printed = printer.print(text);
        stage.end();
        if printed.is_err() {
            // The terminal is gone, and the editor with it.
            return;
        }
    }
}

fn at_once(mut waiting: Receiver<String>) {
    while let Some(text) = waiting.blocking_recv() {
        print!("{text}");
    }
}
