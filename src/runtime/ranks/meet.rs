//! Connects the ranks of a run. Rank 0 listens, the other ranks greet it and receive the table of all ranks, and then
//! each pair of ranks opens a connection.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::Place;
use super::admission::{Admission, Caller, POLL, WORD, prepare};
use super::secret::{Key, Secret, VARIABLE};
use super::wire::{Greeting, Member, Message};
use omr_base::config::DistConfig;
use omr_base::error::{Error, Result};

/// Time for which a rank tries again if it finds no secret, or if rank 0 rejects its secret.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time for which rank 0, after a failed start, still sends the error to ranks that connect late.
const FAREWELL: Duration = Duration::from_secs(5);

/// Function that is called repeatedly while ranks are waited for. An error ends the wait.
pub type Waiting<'a> = &'a dyn Fn() -> Result<()>;

/// Function that ends the process with the error's text and exit status.
pub type End = Box<dyn Fn(&Error) + Send + Sync>;

/// Everything that a rank needs to find the others.
pub struct Start<'a> {
    /// Rank, number of ranks, and address of rank 0.
    pub place: &'a Place,
    /// Listener of rank 0, if it already listens.
    pub listener: Option<TcpListener>,
    /// Run secret, which each rank proves to know.
    pub secret: &'a Secret,
    /// Version and hash of the program, which must be the same on all ranks.
    pub program: String,
    /// Port, timeout and heartbeat interval.
    pub config: &'a DistConfig,
    /// Stop flag. It is set on all ranks once it is set on one.
    pub stop: Arc<AtomicBool>,
    /// Function that ends the process with an error's text, called if a fault occurs and the process does not end by
    /// itself.
    pub end: End,
    /// Function that is called repeatedly while ranks are waited for. An error ends the wait.
    pub waiting: Waiting<'a>,
}

impl Start<'_> {
    /// Returns the time for all ranks to connect.
    pub fn within(&self) -> Duration {
        Duration::from_secs_f64(self.config.timeout_s)
    }
}

/// The result of connecting all ranks of a run.
pub struct Rendezvous {
    /// Number that identifies this run. The first message of each connection for collectives contains it.
    pub token: u64,
    /// Process and address of each rank, by rank.
    pub members: Vec<Member>,
    /// Control connections, by rank: rank 0 has one to each rank, another rank has one to rank 0.
    pub control: Vec<Option<TcpStream>>,
    /// Accepts the connections of higher ranks.
    pub admission: Admission,
    /// Key that proves knowledge of the secret to lower ranks.
    pub key: Key,
}

/// Returns the name of a rank, e.g. `rank 3 (node-2, process 4711)`.
pub fn name(rank: usize, member: &Member) -> String {
    format!("rank {rank} ({}, process {})", member.host, member.pid)
}

/// Listens on `port` for rank 0 of `place`. If rank 0's address is a loopback address, only processes on this machine
/// can connect. Otherwise rank 0 listens on all networks of the machine. A host name does not decide this, because many
/// machines resolve their own name to a loopback address.
pub fn listen(place: &Place, port: u16) -> Result<TcpListener> {
    let told = |e: io::Error| {
        let hint = "another run may use it: set dist.port to a free port, or MASTER_PORT to the port before a free one";
        Error::input_hint(format!("port {port}"), e.to_string(), "a port that rank 0 can listen on", hint)
    };
    if is_this_machine(&place.address) {
        return TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(told);
    }
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .map_err(told)
}

fn is_this_machine(address: &str) -> bool {
    address == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Runs rank 0's side: waits for all other ranks for at most the time `within`, and sends them the table. Callers are
/// treated as follows:
///
/// - A rank with another program or another number of ranks, or a second process of the same rank, ends the start for
///   all.
/// - A rank of another run or another round of restarts is rejected, and the start continues.
/// - A caller that does not know the secret of `key` is ignored.
pub fn receive(start: &Start, listener: TcpListener, own: &Greeting) -> Result<Rendezvous> {
    let (key, within) = (start.secret.key()?, start.within());
    let admission = Admission::open(listener, key.clone())?;
    let mut joined = JoinedRanks { own, come: 0, taken: (0..own.size).map(|_| None).collect(), refused: Vec::new() };
    let fault = |error: &Error| Message::Fault { what: error.to_string(), exit_code: error.exit_code() };
    let deadline = Instant::now() + within;
    while joined.missing().next().is_some() {
        let is_late = Instant::now() >= deadline;
        let late = || if is_late { Err(joined.too_late(within, admission.unproven())) } else { Ok(()) };
        if let Err(error) = (start.waiting)().and_then(|()| late()) {
            joined.tell(&fault(&error));
            return Err(error);
        }
        let Some(caller) = admission.next() else { continue };
        if let Err(error) = joined.take(caller) {
            joined.tell(&fault(&error));
            // Ranks that have not connected yet would otherwise wait for a rank 0 that no longer exists.
            let deadline = Instant::now() + FAREWELL;
            while joined.come + 1 < own.size && Instant::now() < deadline {
                admission.next().into_iter().for_each(|caller| joined.turn_away(&caller, &fault(&error)));
            }
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

/// The ranks that have connected to rank 0.
struct JoinedRanks<'a> {
    own: &'a Greeting,
    /// Number of greetings of this run and round of restarts, including rejected ones.
    come: usize,
    taken: Vec<Option<(Member, TcpStream)>>,
    refused: Vec<String>,
}

impl JoinedRanks<'_> {
    fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        (1..self.own.size).filter(|&rank| self.taken[rank].is_none())
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

    /// Sends a late caller the error with which the start has ended.
    fn turn_away(&mut self, caller: &Caller, word: &Message) {
        let is_ours = |theirs: &Greeting| (&theirs.run, theirs.round) == (&self.own.run, self.own.round);
        if matches!(&caller.word, Message::Greeting(theirs) if is_ours(theirs)) {
            self.come += 1;
            let _ = word.send(&caller.stream);
        }
    }

    /// Adds a caller to the ranks that have connected. Errors if the run cannot start.
    fn take(&mut self, caller: Caller) -> Result<()> {
        let Caller { stream, from, word } = caller;
        let Message::Greeting(mut theirs) = word else { return Ok(()) };
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

/// The result of one call to rank 0.
enum Call {
    /// Rank 0 sent the table over this connection.
    Table { stream: TcpStream, key: Key, token: u64, members: Vec<Member> },
    /// Rank 0 could not be reached, or the connection closed before an answer arrived.
    Gone(String),
    /// The rank 0 that answered does not belong to this run yet.
    Refused(String),
    /// This rank has no secret, or its secret differs from the listener's.
    Unproved(String),
}

/// Runs the side of the other ranks: finds rank 0 at `port` and receives the table. Ranks may start in any order.
pub fn greet(start: &Start, mut own: Greeting, port: u16) -> Result<Rendezvous> {
    let (host, secret, within) = (start.place.address.as_str(), start.secret, start.within());
    let ip = if is_this_machine(host) { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let listener = TcpListener::bind((ip, 0)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let listener = listener.map_err(link("listening for connections"))?;
    own.member.address = listener.local_addr().map_err(link("listening for connections"))?;
    let deadline = Instant::now() + within;
    let (mut last, mut refused, mut unproved_since) = ("no connection".to_owned(), false, None);
    while Instant::now() < deadline {
        (start.waiting)()?;
        match call(start, host, port, &own, deadline)? {
            Call::Table { stream, key, token, members } => {
                let control = (0..own.size).map(|rank| (rank == 0).then(|| stream.try_clone()).transpose());
                let control = control.collect::<io::Result<_>>().map_err(link("the connection to rank 0"))?;
                let members = members.into_iter().map(|member| seen(member, &stream)).collect();
                let admission = Admission::open(listener, key.clone())?;
                return Ok(Rendezvous { token, members, control, admission, key });
            }
            Call::Refused(why) => (last, refused, unproved_since) = (why, true, None),
            // The reason of an earlier rejection is kept, because it explains more than a closed connection.
            Call::Gone(why) => (last, unproved_since) = (if refused { last } else { why }, None),
            Call::Unproved(why) if unproved_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE => {
                let expected = format!("the secret of rank 0 at {host}, port {port}");
                let hint =
                    format!("use one --out that all ranks share, or set {VARIABLE} to the same text at all ranks");
                return Err(Error::input_hint(secret.to_string(), why, expected, hint));
            }
            Call::Unproved(why) => last = if refused { last } else { format!("{secret}: {why}") },
        }
        std::thread::sleep(POLL * 5);
    }
    let waited = within.as_secs_f64();
    Err(Error::Failed(format!("no connection to rank 0 at {host}, port {port} within {waited} s: {last}")))
}

/// Calls rank 0 until `deadline`, proves the secret, sends the greeting, and waits for the answer. Errors if the run
/// cannot start.
fn call(start: &Start, host: &str, port: u16, own: &Greeting, deadline: Instant) -> Result<Call> {
    let stream = match connect(host, port, deadline) {
        Ok(stream) => stream,
        Err(error) => return Ok(Call::Gone(error.to_string())),
    };
    // The secret is read at each call, because rank 0 may create the secret's file after the first calls.
    let key = match start.secret.key() {
        Ok(key) => key,
        Err(error) => return Ok(Call::Unproved(error.to_string())),
    };
    if let Err(error) = prove(&stream, &key, deadline, start.waiting)? {
        return Ok(Call::Unproved(format!("rejected ({error})")));
    }
    // Rank 0 waits for the other ranks for the same time and then reports which are missing, so this rank waits a little
    // longer. If rank 0 drops the connection, no answer arrives.
    let longest = start.within() + Duration::from_secs_f64(start.config.heartbeat_s);
    let reply = match Message::Greeting(own.clone()).send(&stream) {
        Ok(()) if speaks(&stream, Instant::now() + longest, start.waiting)? => Message::receive(&stream).ok(),
        _ => None,
    };
    Ok(match reply {
        Some(Message::Table { token, members }) if members.len() == own.size => {
            Call::Table { stream, key, token, members }
        }
        Some(Message::Refused { why, again: false }) => {
            return Err(Error::Rank { what: why, exit_code: 2, reported: false });
        }
        Some(Message::Fault { what, exit_code }) => return Err(Error::Rank { what, exit_code, reported: true }),
        Some(Message::Refused { why, again: true }) => Call::Refused(why),
        _ => Call::Gone("the connection closed".to_owned()),
    })
}

/// Proves knowledge of the secret to the process at the other end of `stream`.
fn prove(stream: &TcpStream, key: &Key, deadline: Instant, waiting: Waiting) -> Result<io::Result<()>> {
    Ok(match prepare(stream) {
        Ok(()) if speaks(stream, deadline, waiting)? => key.call(stream, Instant::now() + WORD),
        Ok(()) => Err(io::ErrorKind::ConnectionReset.into()),
        Err(error) => Err(error),
    })
}

/// Waits until there is something to read. Returns false if the connection closes first or if nothing arrives until
/// `deadline`.
fn speaks(stream: &TcpStream, deadline: Instant, waiting: Waiting) -> Result<bool> {
    if stream.set_read_timeout(Some(POLL)).is_err() {
        return Ok(false);
    }
    while Instant::now() < deadline {
        waiting()?;
        match stream.peek(&mut [0]) {
            Ok(bytes) => return Ok(bytes > 0 && stream.set_read_timeout(Some(WORD)).is_ok()),
            Err(error) if is_pause(&error) => {}
            Err(_) => return Ok(false),
        }
    }
    Ok(false)
}

/// Replaces a loopback or unspecified address, which is valid only on rank 0's own machine, by the address at which
/// this process reached rank 0.
fn seen(mut member: Member, rank_0: &TcpStream) -> Member {
    let ip = member.address.ip();
    if let (true, Ok(at)) = (ip.is_loopback() || ip.is_unspecified(), rank_0.peer_addr()) {
        member.address.set_ip(at.ip());
    }
    member
}

fn connect(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the host name resolves to no address");
    for at in (host, port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now()).clamp(POLL, WORD);
        match TcpStream::connect_timeout(&at, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Returns true if the error is a timeout or an interruption.
pub fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// Opens a connection to `to` for the collectives of `rank`.
fn linked(met: &Rendezvous, rank: usize, to: &Member, end: Instant, waiting: Waiting) -> Result<io::Result<TcpStream>> {
    let stream = match connect(&to.address.ip().to_string(), to.address.port(), end) {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(error)),
    };
    let proved = prove(&stream, &met.key, end, waiting)?;
    let told = proved.and_then(|()| Message::Link { token: met.token, rank }.send(&stream));
    Ok(told.and_then(|()| stream.set_read_timeout(None)).map(|()| stream))
}

/// Opens the connections for collectives and returns them by rank. Each rank connects to all lower ranks and accepts
/// connections from all higher ranks.
pub fn mesh(met: &Rendezvous, rank: usize, within: Duration, waiting: Waiting) -> Result<Vec<Option<TcpStream>>> {
    let deadline = Instant::now() + within;
    let mut links: Vec<Option<TcpStream>> = Vec::new();
    for (below, member) in met.members.iter().enumerate().take(rank) {
        let stream = loop {
            waiting()?;
            match linked(met, rank, member, deadline, waiting)? {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= deadline => {
                    return Err(link(&format!("the connection to {}", name(below, member)))(error));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        };
        links.push(Some(stream));
    }
    links.extend((rank..met.members.len()).map(|_| None));
    while let Some(above) = (rank + 1..links.len()).find(|&above| links[above].is_none()) {
        waiting()?;
        if Instant::now() >= deadline {
            let (name, waited) = (name(above, &met.members[above]), within.as_secs_f64());
            return Err(Error::Failed(format!("{name} has not connected within {waited} s")));
        }
        if let Some(Caller { stream, word: Message::Link { token, rank: from }, .. }) = met.admission.next()
            && token == met.token
            && (rank + 1..links.len()).contains(&from)
            && stream.set_read_timeout(None).is_ok()
        {
            links[from] = Some(stream);
        }
    }
    Ok(links)
}

/// Returns a function that converts an I/O error of a connection to an [`Error`]. `what` names the connection.
fn link(what: &str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Failed(format!("{what}: {error}"))
}
