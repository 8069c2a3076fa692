//! The thread that writes the log, and its queue of lines.
//!
//! Logging never waits for standard error, which may be a pipe that nobody reads, a terminal
//! stopped with Ctrl-S, or a file on a full disk. A line that does not fit the queue or cannot be
//! written is dropped and counted, and the log says how many are missing as soon as it can be
//! written again.
//!
//! Characters that nobody sees are escaped here, because the names that clients choose are logged:
//! Rust's escapes leave some of them as they are.
//!
//! `tracing-appender` has a similar writer, but bounds lines instead of bytes, does not count lines
//! that it fails to write, does not report dropped lines in the log, and prints to standard output
//! if its queue is full at the end.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_micros;
use kv::Metrics;
use tracing_subscriber::fmt::MakeWriter;

use super::format::LogFormat;
use crate::hidden::{escape, is_hidden, push_escaped, push_json};

/// The most bytes in the queue, not counting the lines being written.
const MAX_QUEUED: usize = 1024 * 1024;

/// A larger buffer is freed after use.
const KEPT_CAPACITY: usize = 64 * 1024;

/// How long to wait if standard error is non-blocking and full. Another process may have made it
/// non-blocking.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Queues lines for the thread. Clones share the thread.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
    format: LogFormat,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signals that there is something to write.
    filled: Condvar,
    /// Signals that everything is written.
    emptied: Condvar,
    metrics: Option<Metrics>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whole lines.
    lines: Vec<u8>,
    /// The number of lines dropped after those in `lines`. While it is not 0, further lines are
    /// dropped too, so that the notice stands where lines are missing.
    dropped: u64,
    /// The thread is writing lines that it has taken from the queue.
    is_writing: bool,
    /// The thread sleeps until it is woken.
    is_asleep: bool,
    /// Somebody waits until everything is written. Otherwise nobody needs to be woken, which saves
    /// a system call.
    is_awaited: bool,
}

impl LogWriter {
    /// Starts the thread. Dropped lines are counted in `metrics` too.
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
            missing: 0,
            is_mid_line: false,
        };
        let writer = Self {
            shared: Arc::clone(&shared),
            format,
        };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shared.write_all(output))?;
        Ok(writer)
    }

    /// Queues a line, which includes its line feed, or drops it.
    pub(crate) fn push(&self, line: &[u8]) {
        let line = &*visible(line, self.format);
        let mut queue = self.shared.lock();
        // A line longer than the queue is accepted if the queue is empty.
        let fits = queue.lines.is_empty() || queue.lines.len() + line.len() <= MAX_QUEUED;
        if queue.dropped > 0 || !fits {
            queue.dropped += 1;
            drop(queue);
            return self.shared.count_dropped(1);
        }
        queue.lines.extend_from_slice(line);
        // Waking the thread for every line would cost a system call each time.
        let wake = std::mem::take(&mut queue.is_asleep);
        drop(queue);
        if wake {
            self.shared.filled.notify_one();
        }
    }

    /// Waits until everything is written, but no longer than `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let mut queue = self.shared.lock();
        queue.is_awaited = true;
        // Nothing can be done about lines that are not written in time.
        drop(
            self.shared
                .emptied
                .wait_timeout_while(queue, timeout, |queue| queue.is_busy()),
        );
    }
}

impl Queue {
    fn has_work(&self) -> bool {
        !self.lines.is_empty() || self.dropped > 0
    }

    fn is_busy(&self) -> bool {
        self.is_writing || self.has_work()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic cannot leave the queue in an invalid state.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_dropped(&self, dropped: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.count_dropped_log_lines(dropped);
        }
    }

    /// Writes lines as they come, until the process ends.
    fn write_all(&self, mut output: Output<impl Write>) {
        let mut lines = Vec::new();
        loop {
            let dropped = self.take(&mut lines);
            self.count_dropped(output.write(&lines));
            if dropped > 0 {
                // The notice must come before the lines that follow.
                output.missing += dropped;
                output.write(b"");
            }
        }
    }

    /// Waits for lines and takes them. Returns the number of lines dropped after them.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        if lines.capacity() > KEPT_CAPACITY {
            *lines = Vec::new();
        }
        let mut queue = self.lock();
        queue.is_writing = false;
        while !queue.has_work() {
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
        std::mem::swap(&mut queue.lines, lines);
        std::mem::take(&mut queue.dropped)
    }
}

/// Standard error, and the lines that are missing in it.
struct Output<W> {
    out: W,
    format: LogFormat,
    /// The number of missing lines that the log does not report yet.
    missing: u64,
    /// The last write ended in the middle of a line.
    is_mid_line: bool,
}

impl<W: Write> Output<W> {
    /// Writes lines, after a notice about lines missing before them. Returns the number of lines
    /// that could not be written.
    fn write(&mut self, lines: &[u8]) -> u64 {
        let unwritten = match self.report_missing() {
            true => self.write_bytes(lines),
            false => lines,
        };
        let lost = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.missing += lost;
        lost
    }

    /// Writes the notice about missing lines, if there are any. Returns false if that fails.
    fn report_missing(&mut self) -> bool {
        if self.missing > 0 {
            let line_feed = if self.is_mid_line { "\n" } else { "" };
            let notice = format!("{line_feed}{}\n", notice(self.missing, self.format));
            if !self.write_bytes(notice.as_bytes()).is_empty() {
                return false;
            }
            self.missing = 0;
        }
        true
    }

    /// Writes as much as possible, and returns the rest.
    fn write_bytes<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => break,
                Ok(written) => {
                    let (written, rest) = bytes.split_at_checked(written).unwrap_or((bytes, b""));
                    self.is_mid_line = written.last() != Some(&b'\n');
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

/// The line without hidden characters, except control characters: those that clients choose are
/// escaped before, and others are line breaks and colours.
fn visible(line: &[u8], format: LogFormat) -> Cow<'_, [u8]> {
    let text = match std::str::from_utf8(line) {
        // By far the most lines.
        Ok(text) if text.is_ascii() => return line.into(),
        Ok(text) => Cow::from(text),
        Err(_) => String::from_utf8_lossy(line),
    };
    let push = match format {
        LogFormat::Text => push_escaped,
        LogFormat::Json => push_json,
    };
    let is_invisible = |c: char| is_hidden(c) && !c.is_control();
    escape(&text, is_invisible, push)
        .into_owned()
        .into_bytes()
        .into()
}

/// The line that stands in place of missing lines.
fn notice(lines: u64, format: LogFormat) -> String {
    const MESSAGE: &str = "lines are missing here: the log was not read, or could not be written";
    const TARGET: &str = module_path!();
    let time = format_rfc3339_micros(SystemTime::now());
    match format {
        LogFormat::Text => format!("{time}  WARN {TARGET}: {MESSAGE} lines={lines}"),
        LogFormat::Json => {
            let event = format!(r#""timestamp":"{time}","level":"WARN","message":"{MESSAGE}""#);
            format!(r#"{{{event},"lines":{lines},"target":"{TARGET}"}}"#)
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { writer: self }
    }
}

/// Writes one whole line.
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

    /// Answers each write as the test says.
    struct Scripted {
        answers: Receiver<io::Result<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without an answer, block like a pipe that nobody reads.
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

        /// Waits until the thread has taken all lines from the queue.
        fn wait_until_taken(&self) {
            while !self.writer.shared.lock().lines.is_empty() {
                thread::yield_now();
            }
        }

        fn allow_writes(&self, writes: usize) {
            for _ in 0..writes {
                self.answers.send(Ok(usize::MAX)).unwrap();
            }
        }

        fn fail_write(&self, kind: io::ErrorKind) {
            self.answers.send(Err(kind.into())).unwrap();
        }

        fn dropped(&self) -> u64 {
            self.metrics.dropped_log_lines()
        }
    }

    fn missing(lines: u64) -> String {
        format!(
            "  WARN kvs::log::writer: lines are missing here: the log was not read, or could not \
             be written lines={lines}\n"
        )
    }

    #[test]
    fn drops_lines_while_the_log_is_not_read_and_reports_them_in_place() {
        let log = start(LogFormat::Text);
        log.writer.push(b"first\n");
        log.wait_until_taken();
        let long = [b"x".repeat(MAX_QUEUED / 4 - 1), b"\n".to_vec()].concat();
        for _ in 0..6 {
            log.writer.push(&long);
        }
        // This line would fit, but is dropped: it came after lines that are missing.
        log.writer.push(b"short\n");
        assert_eq!(log.dropped(), 3);
        log.writer.flush(Duration::ZERO);
        log.allow_writes(2);
        assert_eq!(log.next(), "first\n");
        assert_eq!(log.next().len(), MAX_QUEUED);
        log.writer.push(b"after\n");
        log.allow_writes(2);
        let notice = log.next();
        assert!(notice.ends_with(&missing(3)), "{notice}");
        assert_eq!(log.next(), "after\n");
        log.writer.flush(PATIENCE);
        assert!(!log.writer.shared.lock().is_busy());
    }

    #[test]
    fn reports_lines_that_could_not_be_written_once_writing_works_again() {
        let log = start(LogFormat::Text);
        log.answers.send(Ok(3)).unwrap();
        log.fail_write(io::ErrorKind::StorageFull);
        log.writer.push(b"half a line\n");
        assert_eq!(log.next(), "hal");
        log.writer.flush(PATIENCE);
        assert_eq!(log.dropped(), 1);
        // Writing the notice fails too.
        log.fail_write(io::ErrorKind::StorageFull);
        log.writer.push(b"second\n");
        log.writer.flush(PATIENCE);
        assert_eq!(log.dropped(), 2);
        log.fail_write(io::ErrorKind::Interrupted);
        log.fail_write(io::ErrorKind::WouldBlock);
        log.allow_writes(2);
        log.writer.push(b"third\n");
        let notice = log.next();
        assert!(
            notice.starts_with("\n20") && notice.ends_with(&missing(2)),
            "{notice}"
        );
        assert_eq!(log.next(), "third\n");
        log.allow_writes(1);
        log.writer.push(b"fourth\n");
        assert_eq!(log.next(), "fourth\n");
        assert_eq!(log.dropped(), 2);
    }

    #[test]
    fn writes_a_line_that_is_longer_than_the_queue() {
        let log = start(LogFormat::Text);
        log.allow_writes(1);
        log.writer.push(&b"x".repeat(2 * MAX_QUEUED));
        assert_eq!(log.next().len(), 2 * MAX_QUEUED);
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn escapes_what_nobody_sees_and_leaves_colours_and_line_breaks() {
        let hidden: String = ('\0'..=char::MAX)
            .filter(|c| is_hidden(*c) && !c.is_control())
            .collect();
        let line = |format| {
            let line = format!("\u{1b}[32m\"é{hidden}\"\u{1b}[0m\nat x\n");
            String::from_utf8(visible(line.as_bytes(), format).into_owned()).unwrap()
        };
        let text = line(LogFormat::Text);
        assert!(text.starts_with("\u{1b}[32m\"é\\u{ad}\\u{34f}"), "{text}");
        assert!(text.ends_with("\\u{e0fff}\"\u{1b}[0m\nat x\n"), "{text}");
        let json = line(LogFormat::Json);
        for escaped in [&text, &json] {
            assert!(!escaped.contains(|c| is_hidden(c) && !c.is_control()));
        }
        let string = json.split(['m', '\u{1b}']).find(|part| part.contains('é'));
        let read: String = serde_json::from_str(string.unwrap()).unwrap();
        assert_eq!(read, format!("é{hidden}"));
    }

    #[test]
    fn reports_missing_lines_in_json_if_the_log_is_json() {
        let line = notice(7, LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["lines"], 7);
        assert_eq!(line["target"], "kvs::log::writer");
    }
}
