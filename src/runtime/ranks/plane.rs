//! The control plane of a run with many processes: it tracks which ranks are alive, which collective each one is in,
//! and which error ended the run.
//!
//! Each rank has a control connection to rank 0, served by threads of its own, so a rank keeps sending heartbeats
//! during long computations. Rank 0 detects lost and late ranks, receives the errors of failed ranks, and informs all
//! others. If rank 0 itself is lost, each rank detects that on its own.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::meet::{self, End, is_pause};
use super::wire::{At, Member, Message};
use omr_base::config::DistConfig;
use omr_base::error::{Error, Result};

/// Maximum time between two heartbeats.
const BEAT: Duration = Duration::from_millis(500);

/// Time after a fault in which a process should end by itself. The control plane then ends the process, which may be
/// stuck in a kernel that waits for a lost rank.
const GRACE: Duration = Duration::from_secs(10);

/// Time allowed for a message to reach all ranks and be answered.
const ROUND: Duration = Duration::from_secs(2);

/// The error that ended the run.
#[derive(Clone)]
struct Fault {
    what: String,
    exit_code: u8,
    reported: bool,
    at: Instant,
}

impl Fault {
    fn error(&self) -> Error {
        // The message names a rank that was lost during a stop, too, because that rank may have failed for another
        // reason.
        let stopped = if self.exit_code == 130 { format!("{}; ", Error::Stopped) } else { String::new() };
        Error::Rank { what: format!("{stopped}{}", self.what), exit_code: self.exit_code, reported: self.reported }
    }
}

/// The last known position of a rank, and the time at which this position was first reported.
struct Heard {
    at: At,
    since: Instant,
}

#[derive(Default)]
struct State {
    heard: Vec<Heard>,
    /// True for ranks that have said goodbye, have confirmed a fault, or are lost.
    gone: Vec<bool>,
    fault: Option<Fault>,
    /// True after the fault was sent to the other ranks.
    said: bool,
    over: bool,
    closed: bool,
}

/// State that the threads of a rank share.
pub struct ControlPlane {
    rank: usize,
    members: Vec<Member>,
    timeout: Duration,
    heartbeat: Duration,
    control: Vec<Option<TcpStream>>,
    sending: Mutex<()>,
    links: OnceLock<Vec<TcpStream>>,
    stop: Arc<AtomicBool>,
    end: End,
    state: Mutex<State>,
    changed: Condvar,
}

impl ControlPlane {
    /// Starts the control plane of `rank` and its threads. `control` holds rank 0's connection to each rank, or another
    /// rank's connection to rank 0. If `stop` is set on any rank, it is set on all ranks. `end` is called if a fault
    /// occurs and the process does not end by itself.
    pub fn start(
        rank: usize,
        members: Vec<Member>,
        control: Vec<Option<TcpStream>>,
        config: &DistConfig,
        stop: Arc<AtomicBool>,
        end: End,
    ) -> Result<Arc<ControlPlane>> {
        let heard = || Heard { at: At::default(), since: Instant::now() };
        let (heard, gone) = (members.iter().map(|_| heard()).collect(), vec![false; members.len()]);
        let state = State { heard, gone, ..State::default() };
        let plane = Arc::new(ControlPlane {
            rank,
            members,
            timeout: Duration::from_secs_f64(config.timeout_s),
            heartbeat: Duration::from_secs_f64(config.heartbeat_s),
            control,
            sending: Mutex::new(()),
            links: OnceLock::new(),
            stop,
            end,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        for (peer, stream) in plane.control.iter().enumerate() {
            if let Some(stream) = stream {
                let failed = |e: io::Error| Error::Failed(format!("the connection to rank {peer}: {e}"));
                stream.set_nonblocking(false).map_err(failed)?;
                stream.set_read_timeout(Some(plane.heartbeat)).map_err(failed)?;
                stream.set_write_timeout(Some(plane.heartbeat)).map_err(failed)?;
                let listens = plane.clone();
                spawn(format!("rank {peer}"), move || listens.listen(peer))?;
            }
        }
        let beats = plane.clone();
        spawn("beats".to_owned(), move || beats.beat())?;
        Ok(plane)
    }

    /// Registers the data connections. A fault shuts them down, which wakes the main thread.
    pub fn links(&self, links: Vec<TcpStream>) {
        let _ = self.links.set(links);
        if self.lock().fault.is_some() {
            self.shut();
        }
    }

    /// Returns the name of a rank, e.g. `rank 3 (node-2, process 4711)`.
    pub fn name(&self, rank: usize) -> String {
        meet::name(rank, &self.members[rank])
    }

    /// Returns true if no lower rank is on the host of `rank`.
    pub fn leads_host(&self, rank: usize) -> bool {
        self.members[..rank].iter().all(|member| member.host != self.members[rank].host)
    }

    /// Errors if a fault has ended the run.
    pub fn check(&self) -> Result<()> {
        self.lock().fault.as_ref().map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// Records that this rank has entered the collective `what`, and returns the collective's number. If `timed` is
    /// true, the timeout applies to the wait.
    pub fn enter(&self, what: &str, timed: bool) -> Result<u64> {
        self.check()?;
        let mut state = self.lock();
        let own = &mut state.heard[self.rank];
        own.at = At { number: own.at.number + 1, what: what.to_owned(), inside: true, timed };
        own.since = Instant::now();
        Ok(own.at.number)
    }

    /// Records that this rank has left the collective.
    pub fn exit(&self) {
        self.lock().heard[self.rank].at.inside = false;
    }

    /// Ends the run on all ranks because this rank found the fault `what`. Returns the error that all ranks receive,
    /// which is an earlier fault if another rank reported one first.
    pub fn report(&self, what: String, exit_code: u8) -> Error {
        let fault = Fault { what, exit_code, reported: false, at: Instant::now() };
        if self.rank != 0 && self.lock().fault.is_none() {
            let told = Message::Fault { what: fault.what.clone(), exit_code: fault.exit_code };
            if self.send(0, &told) {
                self.wait(ROUND, |state| state.fault.is_some());
            }
        }
        self.fault(fault.clone(), None);
        self.check().err().unwrap_or_else(|| fault.error())
    }

    /// Calls [`ControlPlane::report`] for an error that a lost rank may have caused. Waits first, because the control plane
    /// soon detects which rank is lost.
    pub fn suspect(&self, what: String) -> Error {
        self.wait(self.heartbeat + ROUND, |state| state.fault.is_some());
        self.check().err().unwrap_or_else(|| self.report(what, self.status()))
    }

    /// Sends the goodbye message after the last collective, and waits until all ranks have sent theirs.
    pub fn goodbye(&self) -> Result<()> {
        if self.rank == 0 {
            self.lock().gone[0] = true;
            self.wait(self.timeout, |state| !state.gone.contains(&false) || state.fault.is_some());
            self.check()?;
            let mut state = self.lock();
            if let Some(rank) = state.gone.iter().position(|gone| !gone) {
                drop(state);
                let what = format!("{} has not confirmed the end of the run", self.name(rank));
                return Err(self.report(what, self.status()));
            }
            state.over = true;
            drop(state);
            self.tell(&Message::Over);
            return Ok(());
        }
        self.send(0, &Message::Goodbye);
        self.wait(self.timeout, |state| state.over || state.fault.is_some());
        self.check()
    }

    /// Makes rank 0 end last after a fault: it waits until the other ranks have confirmed that they received the fault.
    pub fn report_failure(&self) {
        if self.rank == 0 {
            self.wait(ROUND, |state| state.gone[1..].iter().all(|gone| *gone));
        }
    }

    /// Ends the threads. Ranks that have not received a goodbye treat this rank as lost.
    pub fn close(&self) {
        // Another thread may still be sending a fault to the other ranks.
        self.wait(ROUND, |state| state.fault.is_none() || state.said);
        self.lock().closed = true;
        self.changed.notify_all();
        self.shut();
        self.control.iter().flatten().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Returns the exit status for a fault found at another rank. If a stop was requested, this is the exit status of a
    /// stop, because some ranks then end earlier than others.
    pub fn status(&self) -> u8 {
        if self.stop.load(Ordering::Relaxed) { 130 } else { 1 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, within: Duration, is_done: impl Fn(&State) -> bool) {
        let wait = self.changed.wait_timeout_while(self.lock(), within, |state| !is_done(state));
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    fn send(&self, to: usize, message: &Message) -> bool {
        let _alone = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        self.control[to].as_ref().is_some_and(|stream| message.send(stream).is_ok())
    }

    fn tell(&self, message: &Message) {
        // A rank that does not receive the message will be detected as lost.
        for rank in 0..self.control.len() {
            self.send(rank, message);
        }
    }

    fn shut(&self) {
        self.links.get().into_iter().flatten().for_each(|link| drop(link.shutdown(Shutdown::Both)));
    }

    /// Records the fault and informs the other ranks. Only the first fault of a run counts. No confirmation is expected
    /// from the rank `lost`, whose loss is the fault.
    fn fault(&self, fault: Fault, lost: Option<usize>) {
        let mut state = self.lock();
        if state.fault.is_some() || state.over || state.closed {
            return;
        }
        state.fault = Some(fault.clone());
        lost.into_iter().for_each(|peer| state.gone[peer] = true);
        drop(state);
        self.changed.notify_all();
        let told = fault.reported;
        let word = Message::Fault { what: fault.what, exit_code: fault.exit_code };
        self.tell(if told { &Message::Goodbye } else { &word });
        self.lock().said = true;
        self.changed.notify_all();
        self.shut();
    }

    /// Receives messages on one control connection. Each connection has its own thread.
    fn listen(&self, peer: usize) {
        let Some(stream) = &self.control[peer] else { return };
        loop {
            match Message::receive(stream) {
                Ok(Message::Beat { at, stop }) => {
                    self.stop.fetch_or(stop, Ordering::Relaxed);
                    self.is_at(peer, at);
                }
                Ok(Message::Fault { what, exit_code }) => {
                    self.fault(Fault { what, exit_code, reported: self.rank != 0, at: Instant::now() }, None);
                }
                Ok(Message::Goodbye) => {
                    self.lock().gone[peer] = true;
                    self.changed.notify_all();
                }
                Ok(Message::Over) => {
                    self.lock().over = true;
                    self.changed.notify_all();
                }
                Ok(_) => return self.lost(peer, "it sent an unknown message".to_owned()),
                Err(error) if is_pause(&error) => {
                    return self.lost(peer, format!("no heartbeat from it for {} s", self.heartbeat.as_secs_f64()));
                }
                Err(_) => return self.lost(peer, "its connection closed before the end of the run".to_owned()),
            }
        }
    }

    /// Updates the position of `peer`, from a heartbeat or from a header in a collective. A header can arrive before
    /// the heartbeat.
    pub fn is_at(&self, peer: usize, at: At) {
        let mut state = self.lock();
        let was = &state.heard[peer].at;
        if *was != at && was.number <= at.number {
            state.heard[peer] = Heard { at, since: Instant::now() };
        }
    }

    fn lost(&self, peer: usize, why: String) {
        let state = self.lock();
        if state.gone[peer] || state.over || state.closed {
            return;
        }
        let at = state.heard[peer].at.clone();
        drop(state);
        let what = format!("{} is lost, {at}: {why}", self.name(peer));
        self.fault(Fault { what, exit_code: self.status(), reported: false, at: Instant::now() }, Some(peer));
    }

    /// Sends heartbeats and checks timeouts. It runs on its own thread.
    fn beat(&self) {
        let pause = BEAT.min(self.heartbeat / 5);
        let mut ended = false;
        loop {
            let at = {
                let wait = self.changed.wait_timeout_while(self.lock(), pause, |state| !state.closed);
                let (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
                if state.closed {
                    return;
                }
                state.heard[self.rank].at.clone()
            };
            self.tell(&Message::Beat { at, stop: self.stop.load(Ordering::Relaxed) });
            if let Some(what) = self.late() {
                self.fault(Fault { what, exit_code: self.status(), reported: false, at: Instant::now() }, None);
            }
            let fault = self.lock().fault.clone().filter(|fault| fault.at.elapsed() > GRACE);
            if let Some(fault) = fault.filter(|_| !ended) {
                ended = true;
                (self.end)(&fault.error());
            }
        }
    }

    /// Returns, on rank 0, the message for a collective that has exceeded the timeout: its name and the ranks that are
    /// missing.
    fn late(&self) -> Option<String> {
        let state = self.lock();
        if self.rank != 0 || state.fault.is_some() {
            return None;
        }
        let waits = |heard: &&Heard| heard.at.inside && heard.at.timed && heard.since.elapsed() > self.timeout;
        let first = state.heard.iter().filter(waits).max_by_key(|heard| heard.at.number)?;
        let missing = state.heard.iter().enumerate().filter(|(_, heard)| heard.at.number < first.at.number);
        let missing: Vec<String> = missing.map(|(rank, heard)| format!("{}, {}", self.name(rank), heard.at)).collect();
        let whom = match missing.is_empty() {
            true => "although all ranks have entered it".to_owned(),
            false => format!("for {}", missing.join("; ")),
        };
        let (at, waited) = (&first.at, self.timeout.as_secs_f64());
        Some(format!("{:?} (collective {}) has waited {waited} s {whom}", at.what, at.number))
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.clone()).spawn(run);
    thread.map(drop).map_err(|e| Error::Failed(format!("starting the thread {name}: {e}")))
}
