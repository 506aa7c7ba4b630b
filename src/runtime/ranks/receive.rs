//! The side of rank 0 while the ranks of a run connect.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::Launcher;
use super::admission::{Admission, Caller, POLL};
use super::meet::{self, Notes, Rendezvous, SHARE, Start, name};
use super::secret::Keys;
use super::wire::{Greeting, Member, Message};
use omr_base::error::{Error, Result};

/// Time for which rank 0, after a failed start, still sends the error to ranks that connect late.
const FAREWELL: Duration = Duration::from_secs(5);

/// Time for which a rank that has failed before it met the others tries to tell them.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Maximum number of ranks that a note names.
const NAMED: usize = 16;

/// Runs rank 0's side: waits for all other ranks for at most the time `within`, and sends them the table. Callers are
/// treated as follows:
///
/// - A rank with another program or another number of ranks, or a second process of the same rank, ends the start for
///   all.
/// - A rank of another run or another round of restarts is rejected, and the start continues.
/// - A rank that has failed ends the start for all, also one without the run secret.
/// - A rank that does not have the run secret for the time of [`Start::patience`] ends the start for all.
/// - Any other caller is ignored.
pub fn receive(start: &Start, listener: TcpListener, own: &Greeting) -> Result<Rendezvous> {
    let (key, within) = (start.secret.key()?, start.within());
    let port = listener.local_addr().map_or(0, |at| at.port());
    let admission = Admission::open(listener, Keys { secret: Some(key.clone()), notices: start.notices() })?;
    let mut joined = JoinedRanks::new(own);
    let (deadline, notes) = (Instant::now() + within, Notes::begin(start));
    while joined.missing().next().is_some() {
        let is_late = Instant::now() >= deadline;
        let late = || if is_late { Err(joined.too_late(within, admission.unproven())) } else { Ok(()) };
        if let Err(error) = (start.waiting)().and_then(|()| late()) {
            joined.tell(&fault(&error));
            return Err(error);
        }
        notes.waits(|| joined.awaited(&start.place.address, port));
        let came = joined.check_secrets(start).and_then(|()| admission.next());
        if let Err(error) = came.and_then(|caller| caller.map_or(Ok(()), |caller| joined.take(caller))) {
            joined.tell(&fault(&error));
            // Ranks that have not connected yet would otherwise wait for a rank 0 that no longer exists.
            joined.turn_away(start, &admission, &error, FAREWELL);
            return Err(error);
        }
    }
    let token = RandomState::new().hash_one(own.member.pid);
    let mut members = vec![own.member.clone()];
    members.extend(joined.taken.iter().flatten().map(|(member, _)| member.clone()));
    joined.tell(&Message::Table { token, members: members.clone() });
    let control = joined.taken.into_iter().map(|rank| rank.map(|(_, stream)| stream)).collect();
    Ok(Rendezvous { token, members, control, admission, key })
}

/// Tells the ranks of a run that this one has failed with `error` before it met them. Gives up after a while.
pub fn tell_early(start: &Start, own: &Greeting, error: &Error) -> Result<()> {
    let port = start.port()?;
    if own.rank == 0 {
        let keys = Keys { secret: None, notices: start.notices() };
        let admission = Admission::open(meet::listen(start.place, port)?, keys)?;
        let mut joined = JoinedRanks::new(own);
        // If omr has started on each node, it has not started the other ranks of this node yet.
        joined.come = if start.place.launcher == Launcher::Omr { start.place.local_size - 1 } else { 0 };
        joined.turn_away(start, &admission, error, LAST_WORDS);
        return Ok(());
    }
    let what = format!("{} has ended: {error}", name(own.rank, &own.member));
    let (what, deadline) = (Message::Fault { what, exit_code: error.exit_code() }, Instant::now() + LAST_WORDS);
    while Instant::now() < deadline && !meet::tell_first(start, port, &what)? {
        (start.waiting)()?;
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn fault(error: &Error) -> Message {
    Message::Fault { what: error.to_string(), exit_code: error.exit_code() }
}

/// The ranks that have connected to rank 0.
struct JoinedRanks<'a> {
    own: &'a Greeting,
    /// Number of greetings of this run and round of restarts, including rejected ones.
    come: usize,
    taken: Vec<Option<(Member, TcpStream)>>,
    refused: Vec<String>,
    /// Ranks that have called without the run secret: name, and time of the first call.
    without_secret: BTreeMap<usize, (String, Instant)>,
}

impl JoinedRanks<'_> {
    fn new(own: &Greeting) -> JoinedRanks<'_> {
        let (taken, without_secret) = ((0..own.size).map(|_| None).collect(), BTreeMap::new());
        JoinedRanks { own, come: 0, taken, refused: Vec::new(), without_secret }
    }

    fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        (1..self.own.size).filter(|&rank| self.taken[rank].is_none())
    }

    /// Describes the missing ranks, and where rank 0 waits for them.
    fn awaited(&self, address: &str, port: u16) -> String {
        let mut ranks: Vec<String> = self.missing().take(NAMED).map(|rank| rank.to_string()).collect();
        ranks.extend((self.missing().count() > NAMED).then(|| "...".to_owned()));
        let mut text = format!("rank {} of {} at {address}, port {port}", ranks.join(", "), self.own.size);
        if !meet::is_own(address) {
            text += &format!("; {address} is no address of this machine ({})", self.own.member.host);
        }
        self.without_secret.values().for_each(|(name, _)| text += &format!("; {name} does not have the run secret"));
        text
    }

    /// Errors if a missing rank has not had the run secret for too long.
    fn check_secrets(&self, start: &Start) -> Result<()> {
        let is_late = |(rank, (_, since)): &(&usize, &(String, Instant))| {
            self.missing().any(|missing| missing == **rank) && since.elapsed() > start.patience()
        };
        self.without_secret.iter().find(is_late).map_or(Ok(()), |(_, (name, _))| {
            let found = format!("no such secret at {name}");
            Err(Error::input_hint(start.secret.to_string(), found, "one secret at all ranks", SHARE))
        })
    }

    fn too_late(&self, within: Duration, unproven: usize) -> Error {
        let ranks: Vec<String> = self.missing().map(|rank| rank.to_string()).collect();
        let mut why = self.refused.iter().map(|why| format!("; refused: {why}")).collect::<String>();
        if unproven > 0 {
            why += &format!("; {unproven} connections did not prove the run secret");
        }
        Error::Failed(format!("rank {} has not connected within {} s{why}", ranks.join(", "), within.as_secs_f64()))
    }

    fn tell(&self, message: &Message) {
        // A rank that does not receive the message will be detected as lost.
        self.taken.iter().flatten().for_each(|(_, stream)| drop(message.send(stream)));
    }

    /// Sends the error with which the start has ended to ranks that call, until all have called or `within` has passed.
    fn turn_away(&mut self, start: &Start, admission: &Admission, error: &Error, within: Duration) {
        let deadline = Instant::now() + within;
        while self.come + 1 < self.own.size && Instant::now() < deadline && (start.waiting)().is_ok() {
            let Ok(caller) = admission.next() else { return };
            let Some(caller) = caller else { continue };
            let is_ours = |theirs: &Greeting| (&theirs.run, theirs.round) == (&self.own.run, self.own.round);
            self.come += match &caller.word {
                Message::Greeting(theirs) if is_ours(theirs) => fault(error).send(&caller.stream).is_ok().into(),
                Message::Fault { .. } => 1,
                _ => 0,
            };
        }
    }

    /// Adds a caller to the ranks that have connected. Errors if the run cannot start.
    fn take(&mut self, caller: Caller) -> Result<()> {
        let Caller { has_secret, stream, from, word } = caller;
        let mut theirs = match word {
            Message::Greeting(theirs) => theirs,
            Message::Fault { what, exit_code } => return Err(Error::Rank { what, exit_code, reported: false }),
            _ => return Ok(()),
        };
        theirs.member.address.set_ip(from.ip().to_canonical());
        let refuse = |why: &str, again| drop(Message::Refused { why: why.to_owned(), again }.send(&stream));
        let name = name(theirs.rank, &theirs.member);
        let (is_of_run, round, own) = (theirs.run == self.own.run, theirs.round, self.own.round);
        if !is_of_run || round != own {
            let why = match is_of_run {
                true => format!("{name} belongs to restart {round}, but rank 0 belongs to restart {own}"),
                false => {
                    format!("{name} belongs to run {:?}, but rank 0 belongs to run {:?}", theirs.run, self.own.run)
                }
            };
            // The rank 0 of the caller's run may listen at this address after this process has ended.
            refuse(&why, !is_of_run || round > own);
            self.refused.push(why);
            return Ok(());
        }
        if !has_secret {
            let first = || (name, Instant::now());
            self.without_secret.entry(theirs.rank).or_insert_with(first);
            return Ok(());
        }
        self.come += 1;
        if let Some(error) = self.differs(&theirs, &name) {
            refuse(&error.to_string(), false);
            return Err(error);
        }
        self.taken[theirs.rank] = Some((theirs.member, stream));
        Ok(())
    }

    fn differs(&self, theirs: &Greeting, name: &str) -> Option<Error> {
        let own = self.own;
        let as_rank_0 = |of: &dyn std::fmt::Display| format!("{of}, the value of rank 0 ({})", own.member.host);
        if theirs.program != own.program {
            return Some(Error::input(format!("program of {name}"), &theirs.program, as_rank_0(&own.program)));
        }
        if theirs.size != own.size {
            let place = format!("number of ranks of {name}");
            return Some(Error::input(place, theirs.size.to_string(), as_rank_0(&own.size)));
        }
        if theirs.rank == 0 || theirs.rank >= own.size {
            return Some(Error::input(name, "an impossible rank number", format!("a rank from 1 to {}", own.size - 1)));
        }
        // The same process may connect again after it lost its first connection.
        let (other, _) = self.taken[theirs.rank].as_ref()?;
        let port = |member: &Member| member.address.port();
        let is_other =
            (other.pid, port(other)) != (theirs.member.pid, port(&theirs.member)) || other.host != theirs.member.host;
        let found = || format!("two processes, {} on {} and {name}", other.pid, other.host);
        is_other.then(|| Error::input(format!("rank {}", theirs.rank), found(), "one process"))
    }
}
