//! kvc in a terminal: a pseudo-terminal, an emulator that shows what a person would see, and keys.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};

use super::programs::PATIENCE;

const ROWS: u16 = 50;
const COLUMNS: u16 = 110;

/// A terminal with kvc in it. kvc is killed when this is dropped.
pub(crate) struct Terminal {
    pty: Arc<Pty>,
    child: Child,
    seen: Arc<Seen>,
    reader: Option<JoinHandle<()>>,
    /// The prompt of a connected session.
    prompt: String,
}

#[derive(Default)]
struct Seen {
    state: Mutex<State>,
    more: Condvar,
}

struct State {
    parser: vt100::Parser,
    raw: Vec<u8>,
    ended: bool,
}

impl Default for State {
    fn default() -> Self {
        let size = |cells| NonZeroU16::new(cells).unwrap();
        Self {
            parser: vt100::Parser::new(size(ROWS), size(COLUMNS), 0),
            raw: Vec::new(),
            ended: false,
        }
    }
}

impl Terminal {
    /// Starts kvc without settings from the environment of the tests. It keeps a history only if a
    /// variable names a home directory.
    pub(crate) fn start(address: &str, variables: &[(&str, &str)]) -> Self {
        Self::start_with(address, variables, |command| command)
    }

    /// Starts kvc with changes to the command: arguments, or another standard output.
    pub(crate) fn start_with(
        address: &str,
        variables: &[(&str, &str)],
        with: impl FnOnce(Command) -> Command,
    ) -> Self {
        Self::spawn(address, env!("CARGO_BIN_EXE_kvc"), variables, with)
    }

    /// Starts another program that runs kvc.
    pub(crate) fn run_by(
        address: &str,
        program: &str,
        with: impl FnOnce(Command) -> Command,
    ) -> Self {
        Self::spawn(address, program, &[], with)
    }

    fn spawn(
        address: &str,
        program: &str,
        variables: &[(&str, &str)],
        with: impl FnOnce(Command) -> Command,
    ) -> Self {
        let (pty, pts) = open().unwrap();
        pty.resize(Size::new(ROWS, COLUMNS)).unwrap();
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_str().unwrap_or_default();
            if name.starts_with("KVC_") || name == "NO_COLOR" {
                command = command.env_remove(name);
            }
        }
        if !variables.iter().any(|(name, _)| *name == "XDG_STATE_HOME") {
            command = command.env("KVC_HISTORY", "");
        }
        let command = command
            .env("KVC_ADDR", address)
            .env("TERM", "xterm-256color")
            .envs(variables.iter().copied());
        let child = with(command).spawn(pts).unwrap();
        let (pty, seen) = (Arc::new(pty), Arc::<Seen>::default());
        let reader = thread::spawn({
            let (pty, seen) = (Arc::clone(&pty), Arc::clone(&seen));
            move || seen.follow(&pty)
        });
        Self {
            pty,
            child,
            seen,
            reader: Some(reader),
            prompt: format!("{address}>"),
        }
    }

    /// Presses keys.
    pub(crate) fn press(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    /// Types ASCII text at a prompt.
    pub(crate) fn type_in(&self, text: &str) {
        let address = self.prompt.trim_end_matches('>');
        self.wait("a prompt", |_, line| {
            line.starts_with(address) && line.ends_with('>')
        });
        self.type_on(text);
    }

    /// Types ASCII text key by key, and waits for the cursor to move past each.
    pub(crate) fn type_on(&self, text: &str) {
        let begin = self.cursor();
        for (index, c) in text.char_indices() {
            self.press(c.encode_utf8(&mut [0; 4]));
            let column = begin + u16::try_from(index).unwrap() + 1;
            self.wait_until(&format!("{c:?} of {text:?}"), |state| {
                cursor(state) == column
            });
        }
    }

    /// Types a command, and returns the output until the next prompt.
    pub(crate) fn run(&self, command: &str) -> String {
        self.wait_for_prompt();
        self.type_in(command);
        self.press("\r");
        self.wait_for_prompt();
        let screen = self.screen();
        let line = format!("{} {command}", self.prompt);
        let (_, after) = screen.rsplit_once(&line).unwrap();
        let (_, after) = after.split_once('\n').unwrap();
        after.strip_suffix(&self.prompt).unwrap().to_owned()
    }

    /// Waits until a command can be typed.
    pub(crate) fn wait_for_prompt(&self) {
        self.wait("a prompt", |_, line| line == self.prompt);
    }

    /// Waits until the screen shows this text, and returns the whole screen.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait(&format!("{text:?}"), |screen, _| screen.contains(text))
    }

    /// Does something, and waits until this text goes to the terminal after it, even if the screen
    /// no longer shows it.
    pub(crate) fn wait_for_raw(&self, after: impl FnOnce(), text: &str) {
        let begin = self.seen.state.lock().unwrap().raw.len();
        after();
        self.wait_until(&format!("{text:?}"), |state| {
            let written = &state.raw[begin..];
            written
                .windows(text.len())
                .any(|seen| seen == text.as_bytes())
        });
    }

    /// Waits until a progress bar contains this text and the cursor is back at its beginning.
    /// Before that, the terminal would echo `^C` on the line below.
    pub(crate) fn wait_for_bar(&self, text: &str) {
        self.wait_until(&format!("a bar with {text:?}"), |state| {
            cursor(state) == 0 && line(state).contains(text)
        });
    }

    /// Waits until this is the last line.
    pub(crate) fn wait_for_line(&self, line: &str) {
        self.wait(&format!("the line {line:?}"), |_, last| last == line);
    }

    /// The screen as a person sees it.
    pub(crate) fn screen(&self) -> String {
        shown(&self.seen.state.lock().unwrap())
    }

    /// Everything that went to the terminal.
    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.state.lock().unwrap().raw).into_owned()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the terminal can get no more output.
    pub(crate) fn wait_until_ended(&self) {
        let state = self.seen.state.lock().unwrap();
        let waiting = |state: &mut State| !state.ended;
        let waited = self.seen.more.wait_timeout_while(state, PATIENCE, waiting);
        let (state, _) = waited.unwrap();
        assert!(state.ended, "it has not ended in time:\n{}", shown(&state));
    }

    /// Waits until kvc has ended. Returns its status and the screen.
    pub(crate) fn wait_for_end(mut self) -> (ExitStatus, String) {
        self.wait_until_ended();
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let screen = self.screen();
        (status, screen)
    }

    /// Leaves with Ctrl-D, which must succeed.
    pub(crate) fn leave(self) {
        self.wait_for_prompt();
        self.press("\u{4}");
        let (status, screen) = self.wait_for_end();
        assert_eq!(status.code(), Some(0), "{screen}");
    }

    /// Waits for a condition on the screen and the line with the cursor.
    fn wait(&self, what: &str, done: impl Fn(&str, &str) -> bool) -> String {
        self.wait_until(what, |state| done(&shown(state), &line(state)))
    }

    fn wait_until(&self, what: &str, done: impl Fn(&State) -> bool) -> String {
        let state = self.seen.state.lock().unwrap();
        let waiting = |state: &mut State| !state.ended && !done(state);
        let waited = self.seen.more.wait_timeout_while(state, PATIENCE, waiting);
        let (state, _) = waited.unwrap();
        let (screen, done) = (shown(&state), done(&state));
        drop(state);
        assert!(done, "{what} does not come:\n{screen}");
        screen
    }

    fn cursor(&self) -> u16 {
        cursor(&self.seen.state.lock().unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // kvc may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Seen {
    fn follow(&self, mut pty: &Pty) {
        let mut bytes = [0; 4096];
        loop {
            // Reading fails once kvc has ended.
            let read = pty.read(&mut bytes).unwrap_or(0);
            let mut state = self.state.lock().unwrap();
            state.parser.process(&bytes[..read]);
            state.raw.extend_from_slice(&bytes[..read]);
            state.ended = read == 0;
            self.more.notify_all();
            if state.ended {
                return;
            }
        }
    }
}

fn shown(state: &State) -> String {
    let contents = state.parser.screen().contents();
    let lines = contents.trim_end().lines();
    lines.map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn cursor(state: &State) -> u16 {
    state.parser.screen().cursor_position().1
}

/// The line with the cursor.
fn line(state: &State) -> String {
    let screen = state.parser.screen();
    let row = usize::from(screen.cursor_position().0);
    let line = screen.rows(0, COLUMNS).nth(row).unwrap_or_default();
    line.trim_end().to_owned()
}
