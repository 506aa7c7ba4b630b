//! Custom rewards: long-lived processes that read one line of JSON per response and write one line with its score.
//!
//! The lines are those of `omr score`: the input is `{"id", "response", "ground_truth", "question", "data_source",
//! "extra_info", "columns"}`. The output is `{"score", "acc_score"?, "format_reward_score"?, "predict_str"?}`; any other
//! numbers in it are logged. A bool is a number. A `score` of null is no score (TRL's None). `{"error"}` reports why there is no score. A process handles one line
//! at a time, so answers cannot be mixed up. If an answer has an `id`, it must equal the request's. Every failure is an
//! error that names the row; a reward is never invented.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Item, Judged, OnScored, Score};
use omr_base::config::{ADAPTER, ScorerConfig};
use omr_base::error::{Error, Result};
use omr_base::identity;

/// The program that [`ADAPTER`] stands for.
const PYTHON: &str = include_str!("../../../docs/my_reward.py");
/// Maximum size in bytes of a file whose content decides whether recorded scores are used again.
const LARGEST_SOURCE: u64 = 1 << 24;
/// Maximum length of an answer in bytes.
const LONGEST_LINE: u64 = 1 << 20;
/// Maximum absolute value of a score and its parts, so that squares of differences stay finite, also in f32.
const LARGEST_SCORE: f64 = 1e15;
/// Shell script that waits until its standard input closes and then kills the processes whose environment has the mark `$1`,
/// and its process group. A process that left the group inherits the environment. The search is repeated, because a
/// process may start others while it runs. omr holds the other end of the standard input. It closes it on purpose, or the
/// system closes it when omr ends, even if omr is killed. The guard ignores the signals that a reward command may send to
/// its own group.
const GUARD: &str = "trap '' HUP INT TERM; read -r _; for _ in 1 2 3 4 5; do \
    found=$(grep -Fls \"reward-$1;\" /proc/[0-9]*/environ); [ -n \"$found\" ] || break; \
    for file in $found; do file=${file#/proc/}; kill -s KILL \"${file%/environ}\" 2>/dev/null; done; done; kill -s KILL 0";
/// Environment variable by which the guard finds a process and all processes that it starts.
const MARK: &str = "OMR_REWARD_PROCESS";
/// Number of bytes of a process's stderr that are quoted.
const LAST_WORDS: usize = 600;
/// Number of lines that are read before somebody asks for them.
const LINES_AHEAD: usize = 2;
/// Number of bytes of the stderr of all reward programs that this process may still write to its log.
static LOG_LEFT: AtomicUsize = AtomicUsize::new(16 << 20);
/// Maximum time for a process to end after its input is closed.
const GRACE: Duration = Duration::from_secs(2);
/// Time between two looks whether anybody still waits for an answer.
const LOOK: Duration = Duration::from_millis(100);

/// The processes of one command. Dropping the pool ends them.
pub struct Pool {
    submitted: Option<SyncSender<Submitted>>,
    workers: Vec<JoinHandle<()>>,
    /// True when the pool is dropped: answers that are still missing are not waited for.
    is_left: Arc<AtomicBool>,
    /// Hashes of the files that the command names, such as the source of a program, when the processes were started.
    pub files_hash: String,
}

/// A response to be scored.
struct Submitted {
    id: u64,
    item: Item,
    reply: OnScored,
}

impl Pool {
    /// Starts the processes. Returns an error that names `place` if the command does not exist.
    pub fn start(config: &ScorerConfig, place: &str) -> Result<Pool> {
        let timeout = Duration::try_from_secs_f64(config.timeout_s)
            .map_err(|e| Error::input(format!("{place}.timeout_s"), config.timeout_s.to_string(), e.to_string()))?;
        let is_source = |path: &&Path| path.metadata().is_ok_and(|file| file.is_file() && file.len() <= LARGEST_SOURCE);
        let files = config.command.iter().map(Path::new).filter(is_source);
        let files_hash = files.filter_map(|path| identity::hash(path).ok()).collect();
        let is_left: Arc<AtomicBool> = Arc::default();
        let processes = (0..config.workers).map(|_| Process::start(&config.command, timeout, &is_left, place));
        let processes: Vec<Process> = processes.collect::<Result<_>>()?;
        let (submitted, queue) = sync_channel::<Submitted>(2 * config.workers);
        let queue = Arc::new(Mutex::new(queue));
        let broken: Arc<Mutex<Option<String>>> = Arc::default();
        let work = |process: Process| {
            let (queue, broken) = (queue.clone(), broken.clone());
            std::thread::spawn(move || process.work(&queue, &broken))
        };
        let workers = processes.into_iter().map(work).collect();
        Ok(Pool { workers, submitted: Some(submitted), is_left, files_hash })
    }

    /// Submits `item` for scoring. Blocks while all processes are busy and the queue (two lines per process) is full.
    /// `id` is sent with the item.
    pub fn submit(&self, id: u64, item: Item, reply: OnScored) {
        let Some(submitted) = &self.submitted else { return };
        if let Err(refused) = submitted.send(Submitted { id, item, reply }) {
            (refused.0.reply)(Err(Error::Failed("the threads of the reward command have ended".to_owned())));
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.submitted = None;
        self.is_left.store(true, Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// One process, with one thread for each of its three pipes, so that no pipe can block the thread that waits for an
/// answer.
struct Process {
    name: String,
    child: Child,
    /// Process that kills the reward process and all its children. It leads their process group.
    guard: Child,
    /// Sends lines to the process; `None` once its input is closed.
    lines: Option<Sender<String>>,
    answers: Receiver<std::io::Result<Answer>>,
    stderr_tail: Arc<Mutex<Vec<u8>>>,
    /// Closed when `stderr_tail` contains all of stderr.
    silent: Receiver<()>,
    timeout: Duration,
    /// True if nobody waits for an answer any more.
    is_left: Arc<AtomicBool>,
}

/// A line that a process wrote.
struct Answer {
    line: String,
    /// True if the process wrote another line together with this one.
    more: bool,
}

impl Process {
    fn start(command: &[String], timeout: Duration, is_left: &Arc<AtomicBool>, place: &str) -> Result<Process> {
        let place = format!("{place}.command");
        let expected = "a program and its arguments, such as [python3, my_reward.py]";
        let Some((program, arguments)) = command.split_first() else {
            return Err(Error::input(place, "nothing", expected));
        };
        // The process group is not omr's own, so that Ctrl-C reaches only omr, which still needs scores to finish its
        // step. The guard starts before the command, so that at no moment the command runs unguarded.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mark = format!("{}.{now}", std::process::id());
        let mut guard = Command::new("/bin/sh")
            .args(["-c", GUARD, "guard", &mark])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| Error::Failed(format!("starting /bin/sh, which stops {program} when omr ends: {e}")))?;
        let group = guard.id().cast_signed();
        let arguments =
            arguments.iter().flat_map(|word| if word == ADAPTER { vec!["-c", PYTHON] } else { vec![word.as_str()] });
        let child = Command::new(program)
            .args(arguments)
            // A reward program may run omr, whose own programs keep the mark of the outer one.
            .env(MARK, std::env::var(MARK).unwrap_or_default() + &format!("reward-{mark};"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(group)
            .spawn();
        let mut child = child.map_err(|e| {
            drop(guard.stdin.take());
            let _ = guard.wait();
            Error::input(place, format!("{program}: {e}"), expected)
        })?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::Failed(format!("{program}: started without its pipes")));
        };
        let (lines, queue) = channel();
        std::thread::spawn(move || write_lines(stdin, &queue));
        let (sender, answers) = sync_channel(LINES_AHEAD);
        std::thread::spawn(move || read_lines(stdout, &sender));
        let stderr_tail: Arc<Mutex<Vec<u8>>> = Arc::default();
        let keep = stderr_tail.clone();
        let (speaking, silent) = channel::<()>();
        std::thread::spawn(move || {
            keep_last_words(stderr, &keep, &LOG_LEFT);
            drop(speaking);
        });
        let (name, lines, is_left) = (command.join(" "), Some(lines), is_left.clone());
        Ok(Process { name, child, guard, lines, answers, stderr_tail, silent, timeout, is_left })
    }

    /// Scores items until the queue is closed. After the first failure, every later item receives the same error, which
    /// names the row that caused it.
    fn work(mut self, queue: &Mutex<Receiver<Submitted>>, broken: &Mutex<Option<String>>) {
        loop {
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Submitted { id, item, reply }) = job else { return };
            let earlier = broken.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let score = match earlier {
                Some(what) => Err(what),
                None => self.score(id, &item).map_err(|what| {
                    let what = format!("reward command {}: {}: {what}", self.name, item.place);
                    broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what).clone()
                }),
            };
            reply(score.map(Judged::by_rules).map_err(Error::Failed));
        }
    }

    fn score(&mut self, id: u64, item: &Item) -> std::result::Result<Score, String> {
        match self.answers.try_recv() {
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                return Err(format!("the process ended before this request{}", self.last_words()));
            }
            Ok(Err(error)) => return Err(error.to_string()),
            Ok(Ok(answer)) => return Err(format!("an unrequested line before this request: {}", quoted(&answer.line))),
        }
        let text = Value::from(item.ground_truth.as_str());
        let label = if item.label.is_null() { &text } else { &item.label };
        let line = json!({
            "id": id, "response": item.response, "opened": item.opened, "ground_truth": label, "question": item.question,
            "data_source": item.data_source, "extra_info": item.extra_info, "columns": item.columns,
        });
        // If the process has ended, the receive below reports it.
        let _ = self.lines.as_ref().map(|lines| lines.send(format!("{line}\n")));
        let end = Instant::now() + self.timeout;
        let answer = loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = self.answers.recv_timeout(left.min(LOOK));
            let is_late = matches!(answer, Err(RecvTimeoutError::Timeout));
            if !is_late || left.is_zero() || self.is_left.load(Relaxed) {
                break answer;
            }
        };
        match answer {
            Ok(Ok(Answer { line, more: true })) => Err(format!("more than one line for one answer: {}", quoted(&line))),
            Ok(Ok(Answer { line, .. })) => read_answer(id, &line),
            Ok(Err(error)) => Err(error.to_string()),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = self.timeout.as_secs_f64();
                Err(format!("no answer within {seconds} s (does it flush its output?){}", self.last_words()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(format!("the process ended without an answer{}", self.last_words()))
            }
        }
    }

    /// Kills the process group and returns the exit status of the process.
    fn end(&mut self) -> std::io::Result<ExitStatus> {
        self.lines = None;
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        let _ = self.child.kill();
        self.child.wait()
    }

    /// Ends the process and returns its exit status and stderr, as text for an error.
    fn last_words(&mut self) -> String {
        let status = self.end().map_or_else(|e| e.to_string(), |status| status.to_string());
        // The wait is limited, because a child of the process may keep the pipe open.
        let _ = self.silent.recv_timeout(GRACE);
        let stderr_tail = self.stderr_tail.lock().unwrap_or_else(PoisonError::into_inner);
        let stderr_tail = String::from_utf8_lossy(&stderr_tail);
        match stderr_tail.trim() {
            "" => format!("; {status}"),
            stderr_tail => format!("; {status}; it wrote: {stderr_tail}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.lines = None;
        // The output closes when the process ends. A process that keeps writing is killed.
        let end = Instant::now() + GRACE;
        let mut left = GRACE;
        while !left.is_zero() && self.answers.recv_timeout(left).is_ok() {
            left = end.saturating_duration_since(Instant::now());
        }
        let _ = self.end();
    }
}

fn write_lines(mut stdin: ChildStdin, queue: &Receiver<String>) {
    for line in queue {
        if stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

fn read_lines(stdout: impl Read, sender: &SyncSender<std::io::Result<Answer>>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        let read = (&mut stdout).take(LONGEST_LINE).read_until(b'\n', &mut line);
        let answer = match read {
            Ok(0) => return,
            Ok(_) if line.len() as u64 == LONGEST_LINE => Err(std::io::Error::other("an answer line that is too long")),
            Ok(_) => {
                let line = String::from_utf8_lossy(&line).into_owned();
                Ok(Answer { line, more: !stdout.buffer().trim_ascii().is_empty() })
            }
            Err(error) => Err(error),
        };
        if answer.as_ref().is_ok_and(|answer| answer.line.trim().is_empty()) {
            continue;
        }
        let last = answer.is_err();
        if sender.send(answer).is_err() || last {
            return;
        }
    }
}

/// Keeps the end of stderr, and logs it while `log_left` bytes remain.
fn keep_last_words(mut stderr: impl Read, stderr_tail: &Mutex<Vec<u8>>, log_left: &AtomicUsize) {
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut chunk) {
        let left = log_left.fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(read))).unwrap_or(0);
        if left > 0 {
            tracing::debug!("reward command: {}", String::from_utf8_lossy(&chunk[..read.min(left)]).trim_end());
        }
        if (1..=read).contains(&left) {
            tracing::warn!("reward command: it wrote much to stderr, and the log has no more of it");
        }
        let mut stderr_tail = stderr_tail.lock().unwrap_or_else(PoisonError::into_inner);
        stderr_tail.extend_from_slice(&chunk[..read]);
        let over = stderr_tail.len().saturating_sub(LAST_WORDS);
        stderr_tail.drain(..over);
    }
}

fn number_of(value: &Value) -> Option<f64> {
    value.as_f64().or(value.as_bool().map(f64::from))
}

fn quoted(line: &str) -> String {
    format!("{:?}", line.trim().chars().take(200).collect::<String>())
}

/// Parses an answer line. Returns the program's own error as it is; all other errors quote the line.
fn read_answer(id: u64, line: &str) -> std::result::Result<Score, String> {
    let wrong = |what: String| format!("{what}: {}", quoted(line));
    let answer: Value =
        serde_json::from_str(line).map_err(|_| wrong("an answer that is not a JSON line".to_owned()))?;
    match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => read_score(id, &answer).map_err(wrong),
    }
}

/// Returns the score in an answer.
fn read_score(id: u64, answer: &Value) -> std::result::Result<Score, String> {
    let number = |key: &str| match answer.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match number_of(value) {
            None => Err(format!("{key} is not a number")),
            Some(number) if number.abs() <= LARGEST_SCORE => Ok(Some(number)),
            Some(_) => Err(format!("{key} is {value}, expected a number from -{LARGEST_SCORE:e} to {LARGEST_SCORE:e}")),
        },
    };
    match answer.get("id") {
        None | Some(Value::Null) => {}
        Some(other) if other.as_u64() == Some(id) => {}
        Some(other) => return Err(format!("an answer with id {other} instead of {id}")),
    }
    let known = ["id", "score", "acc_score", "format_reward_score"];
    let fields = answer.as_object().into_iter().flatten().filter(|(key, _)| !known.contains(&key.as_str()));
    let further = fields.filter_map(|(key, value)| Some((key.clone(), number_of(value)?))).collect();
    if answer.get("score").is_none() {
        return Err("an answer without a score (its key `score` is a number or null)".to_owned());
    }
    let (score, acc_score) = (number("score")?, number("acc_score")?);
    if score.is_none() && acc_score.is_some() {
        return Err("an acc_score beside a score of null, which is no score".to_owned());
    }
    Ok(Score {
        score,
        acc_score: acc_score.or(score).unwrap_or(0.0),
        format_reward_score: number("format_reward_score")?.unwrap_or(0.0),
        predict_str: answer.get("predict_str").and_then(Value::as_str).unwrap_or_default().to_owned(),
        why: "reward command".into(),
        further,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output without an end, and the number of its bytes that were read.
    struct Flood(Arc<AtomicUsize>);

    impl Read for Flood {
        fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
            bytes.iter_mut().zip(b"y\n".iter().cycle()).for_each(|(byte, from)| *byte = *from);
            self.0.fetch_add(bytes.len(), Relaxed);
            Ok(bytes.len())
        }
    }

    #[test]
    fn no_more_of_an_output_is_read_than_somebody_asks_for() {
        let (sender, answers) = sync_channel(LINES_AHEAD);
        let read = Arc::new(AtomicUsize::new(0));
        let flood = Flood(read.clone());
        let reader = std::thread::spawn(move || read_lines(flood, &sender));
        (0..1000).for_each(|_| assert_eq!(answers.recv().unwrap().unwrap().line, "y\n"));
        drop(answers);
        reader.join().unwrap();
        assert!(read.load(Relaxed) <= 2 * 8192, "more than the buffer of the lines that were asked for");
    }

    #[test]
    fn stderr_is_logged_up_to_a_limit_and_its_end_is_kept() {
        let (log_left, tail) = (AtomicUsize::new(10_000), Mutex::default());
        let stderr = std::io::repeat(b'x').take(50_000).chain(&b"KeyError: boom"[..]);
        keep_last_words(stderr, &tail, &log_left);
        assert_eq!(log_left.load(Relaxed), 0);
        assert!(tail.into_inner().unwrap().ends_with(b"xKeyError: boom"));
    }
}
