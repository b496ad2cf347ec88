//! Log lines on their way to standard output, by a thread of their own: a traffic thread copies its line into
//! memory and goes on, also while whoever reads the log has stopped reading. Bounded: what does not fit is
//! dropped and counted in the next line that does.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait, in bytes.
const BOUND: usize = 4 << 20;
/// Lines are gathered so long before they are written together.
const GATHER: Duration = Duration::from_millis(5);
/// How long the end waits for a reader that has stopped.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    writing: bool,
    closing: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes lines. Clones share it.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

/// Writes what waits when dropped.
#[derive(Debug)]
pub(super) struct Writing {
    lines: Lines,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    /// Starts the thread that writes to `out`.
    pub(super) fn to(out: impl Write + Send + 'static) -> io::Result<(Self, Writing)> {
        let lines = Self(Arc::default());
        let shared = Arc::clone(&lines.0);
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || run(&shared, out))?;
        Ok((lines.clone(), Writing { lines, thread: Some(thread) }))
    }

    fn add(&self, line: &[u8]) {
        let mut state = self.0.state();
        if state.waiting.len() + line.len() > BOUND {
            state.dropped += 1;
            return;
        }
        let first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        drop(state);
        // Later lines find the thread awake.
        if first {
            self.0.changed.notify_all();
        }
    }
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lines")
    }
}

fn run(shared: &Shared, mut out: impl Write) {
    let mut batch = Vec::new();
    loop {
        let mut state = shared.state();
        while state.waiting.is_empty() && !state.closing {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.closing {
            drop(state);
            thread::sleep(GATHER);
            state = shared.state();
        }
        mem::swap(&mut batch, &mut state.waiting);
        let (dropped, closing) = (mem::take(&mut state.dropped), state.closing);
        state.writing = true;
        drop(state);
        if dropped > 0 {
            batch.extend_from_slice(
                format!("{dropped} log lines were dropped: their reader is too slow\n").as_bytes(),
            );
        }
        // Nobody is left to be told that the log cannot be written.
        let _ = out.write_all(&batch).and_then(|()| out.flush());
        batch.clear();
        batch.shrink_to(BOUND / 16);
        let mut state = shared.state();
        state.writing = false;
        shared.changed.notify_all();
        if closing && state.waiting.is_empty() {
            return;
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let shared = &self.lines.0;
        let mut state = shared.state();
        state.closing = true;
        shared.changed.notify_all();
        while state.writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        if let Some(thread) = self.thread.take() {
            // It has nothing left to write.
            let _ = thread.join();
        }
    }
}

/// One line: tracing formats it as a whole and writes it once.
pub(super) struct Line<'a>(&'a Lines);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_there_in_order_when_the_end_has_come() {
        let sink = Sink::default();
        let (lines, writing) = Lines::to(sink.clone()).unwrap();
        let expected: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        for line in expected.lines() {
            lines.make_writer().write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        drop(writing);
        assert_eq!(String::from_utf8(sink.0.lock().unwrap().clone()).unwrap(), expected);
    }

    /// Takes nothing until told.
    struct Stuck(mpsc::Receiver<()>, Sink);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stops_holds_up_nobody_and_costs_a_bounded_amount() {
        let (go, wait) = mpsc::channel();
        let sink = Sink::default();
        let (lines, writing) = Lines::to(Stuck(wait, sink.clone())).unwrap();
        let line = vec![b'x'; 1024];
        for _ in 0..3 * BOUND / line.len() {
            lines.add(&line);
        }
        assert!(lines.0.state().waiting.len() <= BOUND);
        drop(go);
        // The end waits for so long only; on a busy machine the thread may need longer, so it is waited for first.
        let mut state = lines.0.state();
        while state.writing || !state.waiting.is_empty() {
            state = lines.0.changed.wait(state).unwrap();
        }
        drop(state);
        drop(writing);
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(written.ends_with("log lines were dropped: their reader is too slow\n"));
        assert!(written.len() <= 2 * BOUND + 100);
    }
}
