//! The thread that writes the log, and the lines that wait for it.
//!
//! Nobody who logs waits for standard error, which may be a pipe that nobody reads, a terminal stopped with Ctrl-S, or
//! a file on a full disk: a line for which there is no room, or which cannot be written, is dropped and counted. The
//! log says how many there were as soon as it can be written again.
//!
//! `tracing-appender` has such a writer as well. It bounds lines instead of bytes, does not count the lines that it
//! fails to write, and tells nobody in the log; and where its queue is full at the end, it prints to standard output.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_micros;
use kv::Metrics;
use tracing_subscriber::fmt::MakeWriter;

use super::format::LogFormat;

/// How many bytes of lines may wait to be written, beside those that are being written.
const MAX_WAITING: usize = 1024 * 1024;

/// A buffer that grew larger than this is not kept.
const KEPT_CAPACITY: usize = 64 * 1024;

/// How long to wait where standard error is non-blocking, as another process may have made it, and takes nothing.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Takes lines and has them written. Clones share the thread.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write.
    filled: Condvar,
    /// There is nothing left to write.
    emptied: Condvar,
    metrics: Option<Metrics>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whole lines.
    waiting: Vec<u8>,
    /// How many lines were dropped after those that wait. As long as there are any, so is every other line: the log
    /// says where lines are missing.
    dropped: u64,
    /// What was taken last is still being written.
    is_writing: bool,
    /// The thread sleeps until it is woken.
    is_asleep: bool,
    /// Somebody waits until everything is written. Without, nobody need be told, which saves a system call.
    is_awaited: bool,
}

impl LogWriter {
    /// Starts the thread. Dropped lines are counted in these metrics too.
    pub(crate) fn start(
        out: impl Write + Send + 'static,
        format: LogFormat,
        metrics: Option<Metrics>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            metrics,
        });
        let output = Output {
            out,
            format,
            lost: 0,
            ends_in_a_line: false,
        };
        let writer = Self {
            shared: Arc::clone(&shared),
        };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shared.write_all(output))?;
        Ok(writer)
    }

    /// Has a line written, with its line feed; or drops it.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        // A line that is longer than all that may wait is taken alone.
        let has_room = queue.waiting.is_empty() || queue.waiting.len() + line.len() <= MAX_WAITING;
        if queue.dropped > 0 || !has_room {
            queue.dropped += 1;
            drop(queue);
            return self.shared.count(1);
        }
        queue.waiting.extend_from_slice(line);
        // To wake it for each line would cost a system call for each.
        let wake = std::mem::take(&mut queue.is_asleep);
        drop(queue);
        if wake {
            self.shared.filled.notify_one();
        }
    }

    /// Waits until everything is written, but no longer than this.
    pub(crate) fn flush(&self, patience: Duration) {
        let mut queue = self.shared.lock();
        queue.is_awaited = true;
        // Whoever has no more patience has no use for the result either.
        drop(
            self.shared
                .emptied
                .wait_timeout_while(queue, patience, |queue| queue.is_busy()),
        );
    }
}

impl Queue {
    fn has_news(&self) -> bool {
        !self.waiting.is_empty() || self.dropped > 0
    }

    fn is_busy(&self) -> bool {
        self.is_writing || self.has_news()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Whoever panicked has left a queue that is no worse for it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, dropped: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.count_dropped_log_lines(dropped);
        }
    }

    /// Writes whatever comes, until the process ends.
    fn write_all(&self, mut output: Output<impl Write>) {
        let mut lines = Vec::new();
        loop {
            let dropped = self.next(&mut lines);
            self.count(output.write(&lines));
            if dropped > 0 {
                // Said now, before the lines that come next.
                output.lost += dropped;
                output.write(b"");
            }
        }
    }

    /// Waits for lines, and gives how many were dropped behind them.
    fn next(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        if lines.capacity() > KEPT_CAPACITY {
            *lines = Vec::new();
        }
        let mut queue = self.lock();
        queue.is_writing = false;
        while !queue.has_news() {
            queue.is_asleep = true;
            if std::mem::take(&mut queue.is_awaited) {
                self.emptied.notify_all();
            }
            queue = self
                .filled
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        queue.is_asleep = false;
        queue.is_writing = true;
        std::mem::swap(&mut queue.waiting, lines);
        std::mem::take(&mut queue.dropped)
    }
}

/// Where the lines go, and what was lost on the way.
struct Output<W> {
    out: W,
    format: LogFormat,
    /// How many lines are missing here, and have not been told.
    lost: u64,
    /// The last thing that was written is a part of a line.
    ends_in_a_line: bool,
}

impl<W: Write> Output<W> {
    /// Writes lines, after a word on those that are missing before them. Gives how many could not be written.
    fn write(&mut self, lines: &[u8]) -> u64 {
        let told = self.tell_lost();
        let unwritten = if told { self.put(lines) } else { lines };
        let lost = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.lost += lost;
        lost
    }

    /// Whether nothing is missing that has not been told.
    fn tell_lost(&mut self) -> bool {
        if self.lost > 0 {
            let line_feed = if self.ends_in_a_line { "\n" } else { "" };
            let notice = format!("{line_feed}{}\n", notice(self.lost, self.format));
            if !self.put(notice.as_bytes()).is_empty() {
                return false;
            }
            self.lost = 0;
        }
        true
    }

    /// Writes as much as can be written, and gives the rest.
    fn put<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => break,
                Ok(written) => {
                    let (written, rest) = bytes.split_at_checked(written).unwrap_or((bytes, b""));
                    self.ends_in_a_line = written.last() != Some(&b'\n');
                    bytes = rest;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(RETRY_PAUSE);
                }
                Err(_) => break,
            }
        }
        bytes
    }
}

/// What the log says in place of the lines that are missing.
fn notice(lines: u64, format: LogFormat) -> String {
    const MESSAGE: &str = "lines are missing here: the log was not read, or could not be written";
    const TARGET: &str = module_path!();
    let time = format_rfc3339_micros(SystemTime::now());
    match format {
        LogFormat::Text => format!("{time}  WARN {TARGET}: {MESSAGE} lines={lines}"),
        LogFormat::Json => format!(
            r#"{{"timestamp":"{time}","level":"WARN","message":"{MESSAGE}","lines":{lines},"target":"{TARGET}"}}"#
        ),
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { writer: self }
    }
}

/// One line, which is written as a whole.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    writer: &'a LogWriter,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.writer.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Does with each write what it is told to.
    struct Scripted {
        answers: Receiver<io::Result<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without an answer it is a pipe that nobody reads.
            let answer = self.answers.recv().unwrap_or_else(|_| {
                loop {
                    thread::park();
                }
            })?;
            let written = answer.min(bytes.len());
            self.written.send(bytes[..written].to_vec()).unwrap();
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Fixture {
        writer: LogWriter,
        answers: Sender<io::Result<usize>>,
        written: Receiver<Vec<u8>>,
        metrics: Metrics,
    }

    fn start(format: LogFormat) -> Fixture {
        let (answers, asked) = channel();
        let (sender, written) = channel();
        let metrics = Metrics::new();
        let out = Scripted {
            answers: asked,
            written: sender,
        };
        Fixture {
            writer: LogWriter::start(out, format, Some(metrics.clone())).unwrap(),
            answers,
            written,
            metrics,
        }
    }

    impl Fixture {
        fn next(&self) -> String {
            let written = self.written.recv_timeout(PATIENCE);
            String::from_utf8(written.unwrap()).unwrap()
        }

        /// Waits until the thread is writing what came before.
        fn until_taken(&self) {
            while !self.writer.shared.lock().waiting.is_empty() {
                thread::yield_now();
            }
        }

        fn allow(&self, writes: usize) {
            for _ in 0..writes {
                self.answers.send(Ok(usize::MAX)).unwrap();
            }
        }

        fn fail(&self, kind: io::ErrorKind) {
            self.answers.send(Err(kind.into())).unwrap();
        }

        fn dropped(&self) -> u64 {
            self.metrics.dropped_log_lines()
        }
    }

    fn missing(lines: u64) -> String {
        format!(
            "  WARN kvs::log::writer: lines are missing here: the log was not read, or could not be written lines={lines}\n"
        )
    }

    #[test]
    fn nobody_waits_for_a_log_that_is_not_read_and_what_is_missing_is_told_in_its_place() {
        let log = start(LogFormat::Text);
        log.writer.push(b"first\n");
        log.until_taken();
        let long = [b"x".repeat(MAX_WAITING / 4 - 1), b"\n".to_vec()].concat();
        for _ in 0..6 {
            log.writer.push(&long);
        }
        // It would fit, and would stand before those that are missing.
        log.writer.push(b"short\n");
        assert_eq!(log.dropped(), 3);
        log.writer.flush(Duration::ZERO);
        log.allow(2);
        assert_eq!(log.next(), "first\n");
        assert_eq!(log.next().len(), MAX_WAITING);
        log.writer.push(b"after\n");
        log.allow(2);
        let notice = log.next();
        assert!(notice.ends_with(&missing(3)), "{notice}");
        assert_eq!(log.next(), "after\n");
        log.writer.flush(PATIENCE);
        assert!(!log.writer.shared.lock().is_busy());
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_once_there_is_room() {
        let log = start(LogFormat::Text);
        log.answers.send(Ok(3)).unwrap();
        log.fail(io::ErrorKind::StorageFull);
        log.writer.push(b"half a line\n");
        assert_eq!(log.next(), "hal");
        log.writer.flush(PATIENCE);
        assert_eq!(log.dropped(), 1);
        // The notice fails.
        log.fail(io::ErrorKind::StorageFull);
        log.writer.push(b"second\n");
        log.writer.flush(PATIENCE);
        assert_eq!(log.dropped(), 2);
        log.fail(io::ErrorKind::Interrupted);
        log.fail(io::ErrorKind::WouldBlock);
        log.allow(2);
        log.writer.push(b"third\n");
        let notice = log.next();
        assert!(
            notice.starts_with("\n20") && notice.ends_with(&missing(2)),
            "{notice}"
        );
        assert_eq!(log.next(), "third\n");
        log.allow(1);
        log.writer.push(b"fourth\n");
        assert_eq!(log.next(), "fourth\n");
        assert_eq!(log.dropped(), 2);
    }

    #[test]
    fn a_line_that_is_longer_than_all_that_may_wait_is_written_too() {
        let log = start(LogFormat::Text);
        log.allow(1);
        log.writer.push(&b"x".repeat(2 * MAX_WAITING));
        assert_eq!(log.next().len(), 2 * MAX_WAITING);
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn what_is_missing_is_told_in_json_where_the_log_is() {
        let line = notice(7, LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["lines"], 7);
        assert_eq!(line["target"], "kvs::log::writer");
    }
}
