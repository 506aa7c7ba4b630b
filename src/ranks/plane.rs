//! The control plane of a run of many processes: who is alive, where each is in the run, what ended it.
//!
//! Each rank has a control connection to rank 0, with threads of its own, so that long work is no silence. Rank 0 decides:
//! it finds who is lost or late, hears who failed, and tells all; where rank 0 is lost, each finds out by itself.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::meet::{self, is_pause};
use super::wire::{At, Member, Message};
use crate::config::DistConfig;
use crate::error::{Error, Result};

/// Between two beats, at most.
const BEAT: Duration = Duration::from_millis(500);

/// What the process is given to end by itself once a rank is lost: it may be in a kernel that waits for that rank.
const GRACE: Duration = Duration::from_secs(10);

/// What a word to all is given to come round.
const ROUND: Duration = Duration::from_secs(2);

/// Ends the process with the error's text and exit status.
pub type End = Box<dyn Fn(&Error) + Send + Sync>;

/// What ended the run.
#[derive(Clone)]
struct Fault {
    what: String,
    exit_code: u8,
    told: bool,
    at: Instant,
}

impl Fault {
    fn error(&self) -> Error {
        // A rank that is lost while all stop is named too: it may be more than quick to end.
        let stopped = if self.exit_code == 130 { format!("{}; ", Error::Stopped) } else { String::new() };
        Error::Rank { what: format!("{stopped}{}", self.what), exit_code: self.exit_code, told: self.told }
    }
}

/// Where a rank was heard to be, and since when.
struct Heard {
    at: At,
    since: Instant,
}

struct State {
    heard: Vec<Heard>,
    /// Who has said goodbye or, after a fault, that it heard of it; and who is lost.
    gone: Vec<bool>,
    fault: Option<Fault>,
    /// The others have been sent the fault.
    said: bool,
    over: bool,
    closed: bool,
}

/// What the threads of a rank share.
pub struct Plane {
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

impl Plane {
    /// The plane of `rank` over the `control` connections (rank 0's to each rank, another's to rank 0), and its threads.
    /// `stop`, once set at any rank, is set at all. `end` is called where a fault finds the process unable to end by itself.
    pub fn start(
        rank: usize,
        members: Vec<Member>,
        control: Vec<Option<TcpStream>>,
        config: &DistConfig,
        stop: Arc<AtomicBool>,
        end: End,
    ) -> Result<Arc<Plane>> {
        let heard = || Heard { at: At::default(), since: Instant::now() };
        let state = State {
            heard: members.iter().map(|_| heard()).collect(),
            gone: vec![false; members.len()],
            fault: None,
            said: false,
            over: false,
            closed: false,
        };
        let plane = Arc::new(Plane {
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

    /// The connections that a fault is to wake the main thread from.
    pub fn links(&self, links: Vec<TcpStream>) {
        let _ = self.links.set(links);
        if self.lock().fault.is_some() {
            self.shut();
        }
    }

    /// `rank 3 (node-2, process 4711)`.
    pub fn name(&self, rank: usize) -> String {
        meet::name(rank, &self.members[rank])
    }

    /// Errors where the run is over for all.
    pub fn check(&self) -> Result<()> {
        self.lock().fault.as_ref().map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// Says that this rank has come to the collective `what`; its number. The deadline holds where it is `timed`.
    pub fn enter(&self, what: &str, timed: bool) -> Result<u64> {
        self.check()?;
        let mut state = self.lock();
        let own = &mut state.heard[self.rank];
        own.at = At { number: own.at.number + 1, what: what.to_owned(), inside: true, timed };
        own.since = Instant::now();
        Ok(own.at.number)
    }

    /// Says that it is through.
    pub fn exit(&self) {
        self.lock().heard[self.rank].at.inside = false;
    }

    /// Ends the run for all because of `what` this rank found; what all are told then, which may be another's word.
    pub fn report(&self, what: String, exit_code: u8) -> Error {
        let fault = Fault { what, exit_code, told: false, at: Instant::now() };
        if self.rank != 0 && self.lock().fault.is_none() {
            let told = Message::Fault { what: fault.what.clone(), exit_code: fault.exit_code };
            if self.send(0, &told) {
                self.wait(ROUND, |state| state.fault.is_some());
            }
        }
        self.fault(fault.clone());
        self.check().err().unwrap_or_else(|| fault.error())
    }

    /// What became of a rank whose connection broke: the plane knows soon.
    pub fn broken(&self, peer: usize, error: &io::Error) -> Error {
        self.suspect(format!("the connection to {} broke: {error}", self.name(peer)))
    }

    /// [`Plane::report`] of what a rank that is lost may be behind: who that is, the plane knows soon.
    pub fn suspect(&self, what: String) -> Error {
        self.wait(self.heartbeat + ROUND, |state| state.fault.is_some());
        self.check().err().unwrap_or_else(|| self.report(what, self.status()))
    }

    /// Says goodbye, when all are through with all, and waits until everyone has.
    pub fn goodbye(&self) -> Result<()> {
        if self.rank == 0 {
            self.lock().gone[0] = true;
            self.wait(self.timeout, |state| !state.gone.contains(&false) || state.fault.is_some());
            self.check()?;
            let mut state = self.lock();
            if let Some(rank) = state.gone.iter().position(|gone| !gone) {
                drop(state);
                return Err(self.report(format!("{} has not said goodbye", self.name(rank)), self.status()));
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

    /// After a fault: rank 0 ends last, once its word has come round.
    pub fn last_word(&self) {
        if self.rank == 0 {
            self.wait(ROUND, |state| state.gone[1..].iter().all(|gone| *gone));
        }
    }

    /// Ends the threads. Who has not heard a goodbye finds this rank lost.
    pub fn close(&self) {
        // Another thread may be about to tell them of a fault.
        self.wait(ROUND, |state| state.fault.is_none() || state.said);
        self.lock().closed = true;
        self.changed.notify_all();
        self.shut();
        self.control.iter().flatten().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// The exit status for what is found wrong with another rank: that of a stop once one was asked for, as some ranks are
    /// quicker to end then.
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
        // Who does not hear it is found lost.
        for rank in 0..self.control.len() {
            self.send(rank, message);
        }
    }

    fn shut(&self) {
        self.links.get().into_iter().flatten().for_each(|link| drop(link.shutdown(Shutdown::Both)));
    }

    /// The first fault is the run's.
    fn fault(&self, fault: Fault) {
        self.fault_of(fault, None);
    }

    /// [`Plane::fault`] because `lost` is, from whom no word is waited for.
    fn fault_of(&self, fault: Fault, lost: Option<usize>) {
        let mut state = self.lock();
        if state.fault.is_some() || state.over || state.closed {
            return;
        }
        state.fault = Some(fault.clone());
        lost.into_iter().for_each(|peer| state.gone[peer] = true);
        drop(state);
        self.changed.notify_all();
        let told = fault.told;
        let word = Message::Fault { what: fault.what, exit_code: fault.exit_code };
        self.tell(if told { &Message::Goodbye } else { &word });
        self.lock().said = true;
        self.changed.notify_all();
        self.shut();
    }

    /// A thread for each control connection.
    fn listen(&self, peer: usize) {
        let Some(stream) = &self.control[peer] else { return };
        loop {
            match Message::receive(stream) {
                Ok(Message::Beat { at, stop }) => self.heard(peer, at, stop),
                Ok(Message::Fault { what, exit_code }) => {
                    self.fault(Fault { what, exit_code, told: self.rank != 0, at: Instant::now() });
                }
                Ok(Message::Goodbye) => {
                    self.lock().gone[peer] = true;
                    self.changed.notify_all();
                }
                Ok(Message::Over) => {
                    self.lock().over = true;
                    self.changed.notify_all();
                }
                Ok(_) => return self.lost(peer, "it said what no rank says".to_owned()),
                Err(error) if is_pause(&error) => {
                    return self.lost(peer, format!("no word from it for {} s", self.heartbeat.as_secs_f64()));
                }
                Err(_) => return self.lost(peer, "its connection closed without a goodbye".to_owned()),
            }
        }
    }

    fn heard(&self, peer: usize, at: At, stop: bool) {
        if stop {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.is_at(peer, at);
    }

    /// Takes note of where `peer` is: a beat, or what it sends to a collective, which may overtake it.
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
        self.fault_of(Fault { what, exit_code: self.status(), told: false, at: Instant::now() }, Some(peer));
    }

    /// The thread that says this rank is there, and looks what time it is.
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
                self.fault(Fault { what, exit_code: self.status(), told: false, at: Instant::now() });
            }
            let fault = self.lock().fault.clone().filter(|fault| fault.at.elapsed() > GRACE);
            if let Some(fault) = fault.filter(|_| !ended) {
                ended = true;
                (self.end)(&fault.error());
            }
        }
    }

    /// Rank 0: which collective has waited too long, and for whom.
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
            true => "though all ranks are in it".to_owned(),
            false => format!("for {}", missing.join("; ")),
        };
        let (at, waited) = (&first.at, self.timeout.as_secs_f64());
        Some(format!("{:?} (collective {}) has waited {waited} s {whom}", at.what, at.number))
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.clone()).spawn(run);
    thread.map(drop).map_err(|e| Error::Failed(format!("the thread {name}: {e}")))
}
