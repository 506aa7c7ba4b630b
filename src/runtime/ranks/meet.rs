//! Connects the ranks of a run. Rank 0 listens (`receive.rs`), the other ranks greet it and receive the table of all ranks,
//! and then each pair of ranks opens a connection.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::admission::{Admission, Caller, POLL, WORD, prepare};
use super::secret::{Key, Keys, Secret};
use super::wire::{Greeting, Member, Message};
use super::{Place, descriptors};
use omr_base::config::DistConfig;
use omr_base::error::{Error, Result};

/// Time for which a rank tries again if it finds no secret, or if rank 0 rejects its secret. A network file system may
/// show a new file after a delay.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time after which a rank says for which ranks it waits, and the time between two such notes.
const NOTE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// Advice if ranks do not have the same secret.
pub const SHARE: &str = "use one --out that all ranks share, or set OMR_RUN_SECRET to the same text at all ranks";

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
    /// Prints a note, on any rank.
    pub say: &'a dyn Fn(&str),
}

impl Start<'_> {
    /// Returns the time for all ranks to connect.
    pub fn within(&self) -> Duration {
        Duration::from_secs_f64(self.config.timeout_s)
    }

    /// Returns the time for which ranks that do not have the secret are waited for.
    pub fn patience(&self) -> Duration {
        PATIENCE.min(self.within() / 2)
    }

    /// Returns the port at which rank 0 listens.
    pub fn port(&self) -> Result<u16> {
        self.config.port.map(|port| port as u16).or(self.place.port).ok_or_else(|| {
            let expected = "a port of rank 0's machine (or set dist.port)";
            Error::input("environment variable MASTER_PORT", "nothing", expected)
        })
    }

    /// Returns the key of the run's notices.
    pub fn notices(&self) -> Key {
        Key::of_notices(&format!("{}\n{}\n{}", self.program, self.place.run, self.place.round))
    }
}

/// The notes of a rank that waits.
pub struct Notes<'a> {
    start: &'a Start<'a>,
    next: Cell<Instant>,
}

impl<'a> Notes<'a> {
    /// Begins to wait.
    pub fn begin(start: &'a Start<'a>) -> Notes<'a> {
        Notes { start, next: Cell::new(Instant::now() + NOTE[0].min(start.within() / 4)) }
    }

    /// Prints for whom this rank waits, if it is time for a note.
    pub fn waits(&self, whom: impl FnOnce() -> String) {
        if Instant::now() >= self.next.get() {
            (self.start.say)(&format!("waiting for {}", whom()));
            self.next.set(Instant::now() + NOTE[1]);
        }
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
    bind(loopback(&place.address), port).map_err(|error| {
        let hint = "another run may use it: set dist.port to a free port, or MASTER_PORT to the port before a free one";
        Error::input_hint(format!("port {port}"), error.to_string(), "a port that rank 0 can listen on", hint)
    })
}

fn bind(loopback: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    match loopback {
        Some(ip) => TcpListener::bind((ip, port)),
        None => TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))),
    }
}

/// Returns the loopback address that `address` names, if it does.
fn loopback(address: &str) -> Option<IpAddr> {
    let address = if address == "localhost" { "127.0.0.1" } else { address };
    address.parse().ok().filter(IpAddr::is_loopback)
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
    // A connection to any address of 127.0.0.0/8 comes from 127.0.0.1, to which the other ranks then connect.
    let own_ip = loopback(host).map(|ip| if ip.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { ip });
    let listener = bind(own_ip, 0).map_err(link("listening for connections"))?;
    own.member.address = listener.local_addr().map_err(link("listening for connections"))?;
    let (deadline, notes) = (Instant::now() + within, Notes::begin(start));
    let (mut last, mut refused, mut unproved_since) = ("no connection".to_owned(), false, None);
    let mut gives_notice = false;
    while Instant::now() < deadline {
        (start.waiting)()?;
        notes.waits(|| format!("rank 0 at {host}, port {port}: {last}"));
        let begun = Instant::now();
        // A rank whose secret was rejected gives notice at every second call, so that rank 0 can name it.
        gives_notice = unproved_since.is_some() && !gives_notice;
        match call(start, port, &own, gives_notice)? {
            Call::Table { stream, key, token, members } => {
                let control = (0..own.size).map(|rank| (rank == 0).then(|| stream.try_clone()).transpose());
                let control = control.collect::<io::Result<_>>().map_err(link("the connection to rank 0"))?;
                let members = members.into_iter().map(|member| seen(member, &stream)).collect();
                let keys = Keys { secret: Some(key.clone()), notices: start.notices() };
                let admission = Admission::open(listener, keys)?;
                return Ok(Rendezvous { token, members, control, admission, key });
            }
            Call::Refused(why) => (last, refused, unproved_since) = (why, true, None),
            // The reason of an earlier rejection is kept, because it explains more than a closed connection.
            Call::Gone(why) => (last, unproved_since) = (if refused { last } else { why }, None),
            Call::Unproved(why) if unproved_since.get_or_insert(begun).elapsed() > start.patience() => {
                let expected = format!("the secret of rank 0 at {host}, port {port}");
                let hint = format!("{SHARE}; or another program listens at that port");
                return Err(Error::input_hint(secret.to_string(), why, expected, hint));
            }
            Call::Unproved(why) => last = if refused { last } else { format!("{secret}: {why}") },
        }
        std::thread::sleep(POLL * 5);
    }
    let waited = within.as_secs_f64();
    Err(Error::Failed(format!("no connection to rank 0 at {host}, port {port} within {waited} s: {last}")))
}

/// Calls rank 0, proves the secret, sends the greeting, and waits for the answer. Without the secret, or with
/// `gives_notice`, the greeting is a notice, which rank 0 does not answer unless it has failed. Errors if the run cannot
/// start.
fn call(start: &Start, port: u16, own: &Greeting, gives_notice: bool) -> Result<Call> {
    let patience = Instant::now() + start.patience();
    let stream = match connect(&start.place.address, port, patience) {
        Ok(stream) => stream,
        Err(error) if descriptors::are_exhausted(&error) => return Err(descriptors::exhausted(&error)),
        Err(error) => return Ok(Call::Gone(explained(&error))),
    };
    // The secret is read at each call, because rank 0 may create the secret's file after the first calls.
    let (key, lacks) = match start.secret.key() {
        Ok(key) if !gives_notice => (key, None),
        Ok(_) => (start.notices(), Some("rejected".to_owned())),
        Err(error) => (start.notices(), Some(error.to_string())),
    };
    // Another program may listen at the port and never say a word.
    if let Err(error) = prove(&stream, &key, patience, start.waiting)? {
        return Ok(Call::Unproved(lacks.unwrap_or_else(|| format!("rejected ({error})"))));
    }
    // Rank 0 waits for the other ranks for the same time and then reports which are missing, so this rank waits a little
    // longer. If rank 0 drops the connection, no answer arrives.
    let longest = start.within() + Duration::from_secs_f64(start.config.heartbeat_s);
    let reply = match Message::Greeting(own.clone()).send(&stream) {
        Ok(()) if speaks(&stream, Instant::now() + longest, start.waiting)? => Message::receive(&stream).ok(),
        _ => None,
    };
    Ok(match (reply, lacks) {
        (Some(Message::Fault { what, exit_code }), _) => return Err(Error::Rank { what, exit_code, reported: true }),
        (_, Some(why)) => Call::Unproved(why),
        (Some(Message::Table { token, members }), _) if members.len() == own.size => {
            Call::Table { stream, key, token, members }
        }
        (Some(Message::Refused { why, again: false }), _) => {
            return Err(Error::Rank { what: why, exit_code: 2, reported: false });
        }
        (Some(Message::Refused { why, again: true }), _) => Call::Refused(why),
        _ => Call::Gone("the connection closed".to_owned()),
    })
}

/// Tells rank 0 that this rank has failed, as a notice. Returns false if rank 0 does not listen.
pub fn tell_first(start: &Start, port: u16, what: &Message) -> Result<bool> {
    let soon = Instant::now() + WORD;
    let Ok(stream) = connect(&start.place.address, port, soon) else { return Ok(false) };
    let proved = prove(&stream, &start.notices(), soon, start.waiting)?;
    Ok(proved.and_then(|()| what.send(&stream)).is_ok())
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

/// Replaces the unspecified address of rank 0, and a loopback address of another machine, by the address at which this
/// process reached rank 0.
fn seen(mut member: Member, rank_0: &TcpStream) -> Member {
    let ip = member.address.ip();
    if let Ok(at) = rank_0.peer_addr()
        && (ip.is_unspecified() || ip.is_loopback() && !at.ip().is_loopback())
    {
        member.address.set_ip(at.ip());
    }
    member
}

/// Returns the text of an error of a connection to rank 0, with its usual cause.
fn explained(error: &io::Error) -> String {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let cause = match error.kind() {
        ConnectionRefused => ": nothing listens there, because rank 0 has not started or has ended, or is elsewhere",
        HostUnreachable | NetworkUnreachable | TimedOut => ": a firewall, or an address of another network",
        _ => "",
    };
    format!("{error}{cause}")
}

/// True unless `address` is known to be no address of this machine.
pub fn is_own(address: &str) -> bool {
    (address, 0).to_socket_addrs().map_or(true, |mut all| all.any(|at| TcpListener::bind(at).is_ok()))
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
                Err(error) if descriptors::are_exhausted(&error) => return Err(descriptors::exhausted(&error)),
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
        if let Some(Caller { has_secret: true, stream, word: Message::Link { token, rank: from }, .. }) =
            met.admission.next()?
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
