//! How ranks find each other: rank 0 listens, the others greet it and get the table of all, then each pair has a connection.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::Place;
use super::admission::{Admission, Caller, POLL, WORD, prepare};
use super::secret::{Key, Secret, VARIABLE};
use super::wire::{Greeting, Member, Message};
use crate::error::{Error, Result};

/// What a rank whose secret rank 0 does not take, or that finds none, waits for another.
const PATIENCE: Duration = Duration::from_secs(30);

/// What ranks still to come are given once rank 0 knows that the run cannot be.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where rank 0 or another rank listens.
#[derive(Clone, Copy)]
pub struct Address<'a> {
    /// Name or IP address of the host.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
}

/// What is asked at each look while ranks are waited for; an error ends the wait.
pub type Waiting<'a> = &'a dyn Fn() -> Result<()>;

/// The ranks of a run, found.
pub struct Met {
    /// What their connections begin with.
    pub token: u64,
    /// Where everybody is, by rank.
    pub members: Vec<Member>,
    /// Rank 0's control connection to each rank, another rank's to rank 0; by rank.
    pub control: Vec<Option<TcpStream>>,
    /// Lets higher ranks in.
    pub admission: Admission,
    /// What a connection to a lower rank is proved with.
    pub key: Key,
}

/// `rank 3 (node-2, process 4711)`.
pub fn name(rank: usize, member: &Member) -> String {
    format!("rank {rank} ({}, process {})", member.host, member.pid)
}

/// Where rank 0 of `place` listens at `port`: on this machine alone where that is its address, else on all of its networks.
/// (Many a machine takes its own name for a loopback address, so a name says nothing.)
pub fn listen(place: &Place, port: u16) -> Result<TcpListener> {
    let told = |e: io::Error| {
        let hint = "another run, maybe: set dist.port, or MASTER_PORT to the one before a free one";
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

/// Rank 0: waits for all others, `within` at most, and hands out the table. Who is another program or of a run of another
/// size, and two processes of one rank, end it for all; who is of another run or round of restarts is sent away, and who does
/// not know the secret of `key` is not heard.
pub fn receive(listener: TcpListener, own: &Greeting, key: Key, within: Duration, waiting: Waiting) -> Result<Met> {
    let admission = Admission::open(listener, key.clone())?;
    let mut seats = Seats { own, come: 0, taken: (0..own.size).map(|_| None).collect(), refused: Vec::new() };
    let fault = |error: &Error| Message::Fault { what: error.to_string(), exit_code: error.exit_code() };
    let deadline = Instant::now() + within;
    while seats.missing().next().is_some() {
        let is_late = Instant::now() >= deadline;
        let late = || if is_late { Err(seats.too_late(within, admission.strangers())) } else { Ok(()) };
        if let Err(error) = waiting().and_then(|()| late()) {
            seats.tell(&fault(&error));
            return Err(error);
        }
        let Some(caller) = admission.next() else { continue };
        if let Err(error) = seats.take(caller) {
            seats.tell(&fault(&error));
            // Those still to come would wait for a rank 0 that is gone.
            let deadline = Instant::now() + FAREWELL;
            while seats.come + 1 < own.size && Instant::now() < deadline {
                admission.next().into_iter().for_each(|caller| seats.turn_away(&caller, &fault(&error)));
            }
            return Err(error);
        }
    }
    let token = RandomState::new().hash_one(own.member.pid);
    let mut members = vec![own.member.clone()];
    members.extend(seats.taken.iter().flatten().map(|(member, _)| member.clone()));
    seats.tell(&Message::Table { token, members: members.clone() });
    let control = seats.taken.into_iter().map(|seat| seat.map(|(_, stream)| stream)).collect();
    Ok(Met { token, members, control, admission, key })
}

/// Who has come to rank 0.
struct Seats<'a> {
    own: &'a Greeting,
    /// Greetings of this round, refused ones as well.
    come: usize,
    taken: Vec<Option<(Member, TcpStream)>>,
    refused: Vec<String>,
}

impl Seats<'_> {
    fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        (1..self.own.size).filter(|&rank| self.taken[rank].is_none())
    }

    fn too_late(&self, within: Duration, strangers: usize) -> Error {
        let ranks: Vec<String> = self.missing().map(|rank| rank.to_string()).collect();
        let mut why = self.refused.iter().map(|why| format!("; sent away: {why}")).collect::<String>();
        if strangers > 0 {
            why += &format!("; {strangers} connections did not prove the run secret");
        }
        Error::Failed(format!("rank {} has not come within {} s{why}", ranks.join(", "), within.as_secs_f64()))
    }

    fn tell(&self, message: &Message) {
        // Who does not hear it is found lost.
        self.taken.iter().flatten().for_each(|(_, stream)| drop(message.send(stream)));
    }

    /// Tells one who comes too late what the run has ended with.
    fn turn_away(&mut self, caller: &Caller, word: &Message) {
        let is_ours = |theirs: &Greeting| (&theirs.run, theirs.round) == (&self.own.run, self.own.round);
        if matches!(&caller.word, Message::Greeting(theirs) if is_ours(theirs)) {
            self.come += 1;
            let _ = word.send(&caller.stream);
        }
    }

    /// Seats a caller. Errors where the run cannot be.
    fn take(&mut self, caller: Caller) -> Result<()> {
        let Caller { stream, from, word } = caller;
        let Message::Greeting(mut theirs) = word else { return Ok(()) };
        theirs.member.address.set_ip(from.ip().to_canonical());
        let refuse = |why: &str, again| drop(Message::Refused { why: why.to_owned(), again }.send(&stream));
        let name = name(theirs.rank, &theirs.member);
        if theirs.run != self.own.run {
            let why = format!("{name} is of run {:?}, rank 0 of {:?}", theirs.run, self.own.run);
            // Its own rank 0 may come to this address once this one has gone.
            refuse(&why, true);
            self.refused.push(why);
            return Ok(());
        }
        if theirs.round != self.own.round {
            let why = format!("{name} is of restart {}, rank 0 of restart {}", theirs.round, self.own.round);
            refuse(&why, theirs.round > self.own.round);
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
        let as_rank_0 = |of: &dyn std::fmt::Display| format!("{of}, as rank 0 ({}) has", own.member.host);
        if theirs.program != own.program {
            return Some(Error::input(format!("program of {name}"), &theirs.program, as_rank_0(&own.program)));
        }
        if theirs.size != own.size {
            let place = format!("number of ranks of {name}");
            return Some(Error::input(place, theirs.size.to_string(), as_rank_0(&own.size)));
        }
        if theirs.rank == 0 || theirs.rank >= own.size {
            return Some(Error::input(name, "no rank to come", format!("one from 1 to {}", own.size - 1)));
        }
        // The same process may have lost its first connection.
        let (other, _) = self.taken[theirs.rank].as_ref()?;
        let port = |member: &Member| member.address.port();
        let is_other =
            (other.pid, port(other)) != (theirs.member.pid, port(&theirs.member)) || other.host != theirs.member.host;
        let found = || format!("two processes, {} on {} and {name}", other.pid, other.host);
        is_other.then(|| Error::input(format!("rank {}", theirs.rank), found(), "one"))
    }
}

/// What came of one call to rank 0.
enum Call {
    /// The table, over this connection.
    Table { stream: TcpStream, key: Key, token: u64, members: Vec<Member> },
    /// Rank 0 is not there.
    Gone(String),
    /// It is not yet the one of this run.
    Refused(String),
    /// This rank has no secret, or another one than who listens there.
    Unproved(String),
}

/// Any other rank: finds rank 0 at `address`, in whatever order they start, and gets the table.
pub fn greet(
    address: Address<'_>,
    mut own: Greeting,
    secret: &Secret,
    within: Duration,
    heartbeat: Duration,
    waiting: Waiting,
) -> Result<Met> {
    let at_this_machine = is_this_machine(address.host);
    let ip = if at_this_machine { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let listener = TcpListener::bind((ip, 0)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let listener = listener.map_err(link("listening"))?;
    own.member.address = listener.local_addr().map_err(link("listening"))?;
    let deadline = Instant::now() + within;
    let (mut last, mut refused, mut unproved_since) = ("nobody there".to_owned(), false, None);
    while Instant::now() < deadline {
        waiting()?;
        // Rank 0 waits for the others as long, and says who is missing.
        match call(address, &own, secret, deadline, within + heartbeat, waiting)? {
            Call::Table { stream, key, token, members } => {
                let control = (0..own.size).map(|rank| (rank == 0).then(|| stream.try_clone()).transpose());
                let control = control.collect::<io::Result<_>>().map_err(link("the connection to rank 0"))?;
                let members = members.into_iter().map(|member| seen(member, &stream)).collect();
                let admission = Admission::open(listener, key.clone())?;
                return Ok(Met { token, members, control, admission, key });
            }
            Call::Refused(why) => (last, refused, unproved_since) = (why, true, None),
            // That it was refused before says more than how rank 0 ended.
            Call::Gone(why) => (last, unproved_since) = (if refused { last } else { why }, None),
            Call::Unproved(why) if unproved_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE => {
                let expected = format!("the secret of rank 0 at {}, port {}", address.host, address.port);
                let hint = format!("one --out that all ranks share, or {VARIABLE} alike at all");
                return Err(Error::input_hint(secret.to_string(), why, expected, hint));
            }
            Call::Unproved(why) => last = if refused { last } else { format!("{secret}: {why}") },
        }
        std::thread::sleep(POLL * 5);
    }
    let (Address { host, port }, waited) = (address, within.as_secs_f64());
    Err(Error::Failed(format!("rank 0 is not to be found at {host}, port {port} for {waited} s: {last}")))
}

/// Calls rank 0 until `deadline`, proves the secret, greets and hears what is said to it in the time `within`. Errors where
/// the run cannot be.
fn call(
    address: Address<'_>,
    own: &Greeting,
    secret: &Secret,
    deadline: Instant,
    within: Duration,
    waiting: Waiting,
) -> Result<Call> {
    let stream = match connect(address, deadline) {
        Ok(stream) => stream,
        Err(error) => return Ok(Call::Gone(error.to_string())),
    };
    // Read at each call: rank 0 may not have made its file before.
    let key = match secret.key() {
        Ok(key) => key,
        Err(error) => return Ok(Call::Unproved(error.to_string())),
    };
    if let Err(error) = prove(&stream, &key, deadline, waiting)? {
        return Ok(Call::Unproved(format!("not taken ({error})")));
    }
    // A connection that rank 0 drops: it ends.
    let heard = match Message::Greeting(own.clone()).send(&stream) {
        Ok(()) if speaks(&stream, Instant::now() + within, waiting)? => Message::receive(&stream).ok(),
        _ => None,
    };
    Ok(match heard {
        Some(Message::Table { token, members }) if members.len() == own.size => {
            Call::Table { stream, key, token, members }
        }
        Some(Message::Refused { why, again: false }) => {
            return Err(Error::Rank { what: why, exit_code: 2, told: false });
        }
        Some(Message::Fault { what, exit_code }) => return Err(Error::Rank { what, exit_code, told: true }),
        Some(Message::Refused { why, again: true }) => Call::Refused(why),
        _ => Call::Gone("the connection closed".to_owned()),
    })
}

/// Proves the secret to whom `stream` leads to.
fn prove(stream: &TcpStream, key: &Key, deadline: Instant, waiting: Waiting) -> Result<io::Result<()>> {
    Ok(match prepare(stream) {
        Ok(()) if speaks(stream, deadline, waiting)? => key.call(stream, Instant::now() + WORD),
        Ok(()) => Err(io::ErrorKind::ConnectionReset.into()),
        Err(error) => Err(error),
    })
}

/// Waits until something is there to be read; false where the connection closed before, or nothing came until `deadline`.
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

/// A member whose address is rank 0's own machine is, for others, where they found rank 0.
fn seen(mut member: Member, rank_0: &TcpStream) -> Member {
    let ip = member.address.ip();
    if let (true, Ok(at)) = (ip.is_loopback() || ip.is_unspecified(), rank_0.peer_addr()) {
        member.address.set_ip(at.ip());
    }
    member
}

fn connect(address: Address<'_>, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name stands for no address");
    for at in (address.host, address.port).to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now()).clamp(POLL, WORD);
        match TcpStream::connect_timeout(&at, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// True for a time-out.
pub fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// A connection to `member` for the collectives of `rank`.
fn linked(
    met: &Met,
    rank: usize,
    member: &Member,
    deadline: Instant,
    waiting: Waiting,
) -> Result<io::Result<TcpStream>> {
    let host = member.address.ip().to_string();
    let stream = match connect(Address { host: &host, port: member.address.port() }, deadline) {
        Ok(stream) => stream,
        Err(error) => return Ok(Err(error)),
    };
    let proved = prove(&stream, &met.key, deadline, waiting)?;
    let told = proved.and_then(|()| Message::Link { token: met.token, rank }.send(&stream));
    Ok(told.and_then(|()| stream.set_read_timeout(None)).map(|()| stream))
}

/// The connections for collectives, by rank: each connects to all below it and is connected to by all above.
pub fn mesh(met: &Met, rank: usize, within: Duration, waiting: Waiting) -> Result<Vec<Option<TcpStream>>> {
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

/// An I/O error of what is no file.
fn link(what: &str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Failed(format!("{what}: {error}"))
}
