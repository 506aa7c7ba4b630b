//! Starts the program that sends the metrics of a run to W&B, MLflow or SwanLab: one process per service.
//!
//! The program reads `metrics.jsonl`, so training never waits for a service. If a process ends, the user is told, and it
//! is started again after a delay. It then sends what is missing. It ends by itself when its standard input is closed,
//! which also happens if omr is killed.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use omr_base::config::ReportTo;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::observe::Observer;

/// The program. It can also be started by hand.
const PROGRAM: &str = include_str!("report_metrics.py");
const PYTHON: &str = "python3";
/// Folder in the run directory with the program and its files.
const FOLDER: &str = "reporters";
const FILE: &str = "report_metrics.py";
/// Delay before a process that ended is started again. It doubles each time.
const DELAY: Duration = Duration::from_secs(30);
/// Maximum time that the end of a run waits for the last steps to be sent.
const LAST_STEPS: Duration = Duration::from_secs(30);

/// Returns an error if one of the services cannot be used, because Python, its package or its key is missing.
pub fn check(report_to: &[ReportTo]) -> Result<()> {
    for service in services(report_to) {
        let expected = format!("tensorboard, or a service that {PYTHON} can use");
        let refused = |why: String| Error::input("report_to", why, expected);
        match Command::new(PYTHON).args(["-c", PROGRAM, "--check", "--to", service.name()]).output() {
            Ok(Output { status, .. }) if status.success() => {}
            Ok(Output { stderr, .. }) => return Err(refused(last_line(&stderr))),
            Err(_) => return Err(refused(format!("{}, but {PYTHON} cannot be started", service.name()))),
        }
    }
    Ok(())
}

/// Returns the services that need the program.
fn services(report_to: &[ReportTo]) -> impl Iterator<Item = ReportTo> {
    report_to.iter().copied().filter(|service| *service != ReportTo::Tensorboard)
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim_end().lines().next_back().unwrap_or("it wrote nothing").to_owned()
}

/// The processes of a run. Dropping them closes their standard input.
pub struct Reporters {
    dir: PathBuf,
    reporters: Vec<Reporter>,
}

struct Reporter {
    service: ReportTo,
    /// The process. `None` after its end was reported.
    process: Option<Child>,
    next_start: Instant,
    delay: Duration,
}

impl Reporters {
    /// Writes the program to the run directory `dir` and starts it for each service in `report_to`.
    pub fn start(dir: &Path, report_to: &[ReportTo]) -> Result<Reporters> {
        let folder = dir.join(FOLDER);
        let reporter = |service| Reporter { service, process: None, next_start: Instant::now(), delay: DELAY };
        let mut reporters: Vec<Reporter> = services(report_to).map(reporter).collect();
        if !reporters.is_empty() {
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
            files::write(folder.join(FILE), PROGRAM.as_bytes())?;
        }
        for reporter in &mut reporters {
            reporter.process = Some(reporter.start(dir)?);
        }
        Ok(Reporters { dir: dir.to_owned(), reporters })
    }

    /// Tells the user which processes have ended, and starts them again when their delay is over.
    pub fn check(&mut self, observer: &dyn Observer) {
        let dir = &self.dir;
        for reporter in &mut self.reporters {
            if let Some(why) = reporter.ended(dir) {
                let (name, seconds) = (reporter.service.name(), reporter.delay.as_secs());
                observer.note(&format!(
                    "warning: metrics do not reach {name}: {why}; training continues, next attempt in {seconds} s"
                ));
                reporter.next_start = Instant::now() + reporter.delay;
                reporter.delay *= 2;
            } else if reporter.process.is_none() && reporter.next_start <= Instant::now() {
                reporter.process = reporter.start(dir).ok();
            }
        }
    }

    /// Waits until the last steps are sent, but not longer than half a minute. Tells the user what was not sent.
    pub fn finish(&mut self, observer: &dyn Observer) {
        let (dir, end) = (&self.dir, Instant::now() + LAST_STEPS);
        for reporter in &mut self.reporters {
            let (name, log) = (reporter.service.name(), reporter.log(dir));
            let process = &mut reporter.process;
            drop(process.as_mut().and_then(|process| process.stdin.take()));
            let status = process.as_mut().map(|process| {
                loop {
                    match process.try_wait() {
                        Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(50)),
                        ended => break ended,
                    }
                }
            });
            match status {
                Some(Ok(Some(status))) if status.success() => {
                    observer.note(&format!("metrics sent to {name}; {} names its page or folder", log.display()));
                }
                Some(Ok(None)) => observer.note(&format!("metrics are still being sent to {name}")),
                _ => observer.note(&format!(
                    "warning: not all metrics reached {name}; to send the rest: {PYTHON} {} {} --to {name}",
                    dir.join(FOLDER).join(FILE).display(),
                    dir.display()
                )),
            }
        }
    }
}

impl Reporter {
    /// Starts the process in a process group of its own, so that Ctrl-C does not end it before the last steps are sent.
    fn start(&self, dir: &Path) -> Result<Child> {
        let log = self.log(dir);
        let output = File::create(&log).map_err(Error::io(&log))?;
        let errors = output.try_clone().map_err(Error::io(&log))?;
        Command::new(PYTHON)
            .arg(dir.join(FOLDER).join(FILE))
            .arg(dir)
            .args(["--follow", "--to", self.service.name()])
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| Error::Failed(format!("report_to: {PYTHON}: {error}")))
    }

    fn log(&self, dir: &Path) -> PathBuf {
        dir.join(FOLDER).join(format!("{}.log", self.service.name()))
    }

    /// Returns the last words of the process if it has ended since the last call.
    fn ended(&mut self, dir: &Path) -> Option<String> {
        let status = self.process.as_mut()?.try_wait().transpose()?;
        self.process = None;
        let said = last_line(&std::fs::read(self.log(dir)).unwrap_or_default());
        Some(status.map_or_else(|error| error.to_string(), |status| format!("{said} ({status})")))
    }
}
