//! Ranks over TCP: for tests and runs on processors, and under every other body as its control plane.
//!
//! Tested with many ranks on one machine; a run over several machines is untested.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use super::meet::{self, Address, Met, Waiting};
use super::plane::{End, Plane};
use super::secret::Secret;
use super::wire::{At, Greeting, Header, Member};
use super::{Place, Ranks};
use crate::config::DistConfig;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Bytes of tensors that are read, sent and received at once.
const PIECE: usize = 1 << 20;

/// Host memory that one of `ranks` holds at most of the tensors it hands over: a rank is at most one piece ahead of another.
pub fn host_bytes(ranks: usize) -> usize {
    (2 * (ranks - 1) + 1) * PIECE
}

/// What a rank needs to find the others.
pub struct Start<'a> {
    /// Which rank, of how many, where rank 0 is.
    pub place: &'a Place,
    /// Rank 0 may listen already.
    pub listener: Option<TcpListener>,
    /// What each proves to the others that it knows.
    pub secret: &'a Secret,
    /// What must be alike at all ranks: version and hash of the program.
    pub program: String,
    /// Port, deadline, heartbeat.
    pub config: &'a DistConfig,
    /// Set at all ranks once it is set at one.
    pub stop: Arc<AtomicBool>,
    /// Ends the process where a fault finds it unable to end by itself, with what is to be said.
    pub end: End,
    /// Asked now and then while others are waited for; an error ends that.
    pub waiting: Waiting<'a>,
}

/// A rank among others, each pair of which has a connection.
pub struct Tcp {
    rank: usize,
    plane: Arc<Plane>,
    links: Vec<Option<Link>>,
    buffer: Vec<u8>,
    sent: u64,
    /// Whether the collective it is in has a deadline.
    timed: bool,
}

/// The connection to another rank: a thread sends while this one receives, so that no two ranks wait for each other.
struct Link {
    stream: TcpStream,
    queue: Sender<Arc<Vec<u8>>>,
}

/// What ends a collective.
pub enum Trouble {
    /// The connection to a rank.
    Link(usize, std::io::Error),
    /// What a rank that is lost may be behind.
    Suspect(String),
    /// A rank that does something else.
    Other(String),
    /// This rank.
    Own(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Own(error)
    }
}

impl Tcp {
    /// Finds the other ranks. Errors, at all that have come, where one is another program, of a run of another size or round of
    /// restarts, or there twice; and where one has not come in time.
    pub fn start(start: Start) -> Result<Tcp> {
        let (place, config) = (start.place, start.config);
        let within = Duration::from_secs_f64(config.timeout_s);
        let met = meet(&start, within)?;
        let control = met.control.iter().map(|c| c.as_ref().map(TcpStream::try_clone).transpose());
        let control = control.collect::<std::io::Result<_>>().map_err(failed)?;
        let plane = Plane::start(place.rank, met.members.clone(), control, config, start.stop, start.end)?;
        let waiting = || plane.check().and_then(|()| (start.waiting)());
        // From here on its end is heard of by all.
        let mut tcp =
            Tcp { rank: place.rank, plane: plane.clone(), links: Vec::new(), buffer: Vec::new(), sent: 0, timed: true };
        let streams = meet::mesh(&met, place.rank, within, &waiting)?;
        let shut = streams.iter().flatten().map(TcpStream::try_clone).collect::<std::io::Result<_>>();
        plane.links(shut.map_err(failed)?);
        tcp.links = streams.into_iter().map(|stream| stream.map(Link::new).transpose()).collect::<Result<_>>()?;
        Ok(tcp)
    }

    /// The other ranks, from the next on: not all begin with the same.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, size) = (self.rank, self.links.len());
        (1..size).map(move |step| (rank + step) % size)
    }

    /// Runs a collective; what goes wrong at another rank is said in the words that all are told.
    fn collective<T>(
        &mut self,
        what: &'static str,
        run: impl FnOnce(&mut Tcp, u64) -> std::result::Result<T, Trouble>,
    ) -> Result<T> {
        let number = self.plane.enter(what, self.timed)?;
        let out = run(self, number);
        self.plane.exit();
        out.map_err(|trouble| match trouble {
            Trouble::Link(peer, error) => self.plane.broken(peer, &error),
            Trouble::Suspect(what) => self.plane.suspect(what),
            Trouble::Other(what) => self.plane.report(what, self.plane.status()),
            Trouble::Own(error) => error,
        })
    }

    fn link(&self, peer: usize) -> &Link {
        self.links[peer].as_ref().expect("no rank is its own peer")
    }

    fn queue(&self, peer: usize, bytes: Arc<Vec<u8>>) -> std::result::Result<(), Trouble> {
        let closed = |_| Trouble::Link(peer, std::io::ErrorKind::BrokenPipe.into());
        self.link(peer).queue.send(bytes).map_err(closed)
    }

    /// Begins the frame of `bytes` bytes of collective `number`.
    fn announce(&mut self, peer: usize, number: u64, what: &str, bytes: u64) -> std::result::Result<(), Trouble> {
        let header = Header { number, bytes, what: what.to_owned() };
        self.sent += bytes;
        self.queue(peer, Arc::new(header.encode()))
    }

    /// The header of what `peer` sends, which must be of this collective.
    fn header(&self, peer: usize, number: u64, what: &str) -> std::result::Result<u64, Trouble> {
        let header = Header::read(&self.link(peer).stream).map_err(|e| Trouble::Link(peer, e))?;
        let Header { number: number_there, bytes, what: there } = header;
        self.plane.is_at(peer, At { number: number_there, what: there.clone(), inside: true, timed: self.timed });
        if (number_there, there.as_str()) == (number, what) {
            return Ok(bytes);
        }
        let (theirs, own) = (self.plane.name(peer), self.plane.name(self.rank));
        let found = format!("{theirs} is in {there:?} (collective {number_there}), {own} in {what:?} ({number})");
        Err(Trouble::Other(found))
    }

    /// Says to each other rank how many bytes of `send` it gets in collective `number`, and hears that it gets those of `recv`.
    fn agree(
        &mut self,
        number: u64,
        what: &str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
    ) -> std::result::Result<(), Trouble> {
        for peer in self.others() {
            self.announce(peer, number, what, bytes(&send[peer]))?;
        }
        for peer in self.others() {
            let (found, expected) = (self.header(peer, number, what)?, bytes(&recv[peer]));
            if found != expected {
                let (theirs, own) = (self.plane.name(peer), self.plane.name(self.rank));
                return Err(Trouble::Other(format!("{what}: {theirs} sends {found} bytes, {own} expects {expected}")));
            }
        }
        Ok(())
    }

    /// A collective whose tensors go by another way, which is `work`. First all say here what they are about to move: who is
    /// lost, late or elsewhere is found where nothing hangs. `work` is to look at the plane while it waits.
    pub fn beside(
        &mut self,
        what: &'static str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
        work: impl FnOnce(&Plane) -> std::result::Result<(), Trouble>,
    ) -> Result<()> {
        self.collective(what, |tcp, number| {
            tcp.agree(number, what, send, recv)?;
            work(&tcp.plane)
        })
    }

    /// To each other rank goes its part of `send` and from each comes its part of `recv`, as the frames of collective
    /// `number`: a piece to each, then a piece from each, so that nobody holds more than two pieces that another has not taken.
    fn pieces(
        &mut self,
        dev: &mut Device,
        number: u64,
        what: &str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
    ) -> std::result::Result<(), Trouble> {
        self.agree(number, what, send, recv)?;
        let send: Vec<Vec<Vec<Tensor>>> = send.iter().map(|tensors| runs(tensors)).collect();
        let recv: Vec<Vec<Vec<Tensor>>> = recv.iter().map(|tensors| runs(tensors)).collect();
        for at in 0..send.iter().chain(&recv).map(Vec::len).max().unwrap_or(0) {
            // What goes to all is read once.
            let mut last: Option<(&[Tensor], Arc<Vec<u8>>)> = None;
            for peer in self.others() {
                let Some(run) = send[peer].get(at) else { continue };
                if last.as_ref().is_none_or(|(of, _)| of != run) {
                    last = Some((run, Arc::new(read(dev, run)?)));
                }
                last.iter().try_for_each(|(_, bytes)| self.queue(peer, bytes.clone()))?;
            }
            for peer in self.others() {
                recv[peer].get(at).map_or(Ok(()), |run| self.receive(dev, peer, run))?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, dev: &mut Device, peer: usize, tensors: &[Tensor]) -> std::result::Result<(), Trouble> {
        let mut buffer = std::mem::take(&mut self.buffer);
        for &tensor in tensors {
            let bytes = tensor.span().bytes;
            if buffer.len() < bytes {
                buffer.resize(bytes, 0);
            }
            let mut stream = &self.link(peer).stream;
            stream.read_exact(&mut buffer[..bytes]).map_err(|e| Trouble::Link(peer, e))?;
            dev.write_bytes(tensor, &buffer[..bytes])?;
        }
        self.buffer = buffer;
        Ok(())
    }
}

/// Bytes of tensors.
fn bytes(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.span().bytes as u64).sum()
}

/// Tensors, cut into runs of at most [`PIECE`] bytes.
fn runs(tensors: &[Tensor]) -> Vec<Vec<Tensor>> {
    let (mut out, mut room): (Vec<Vec<Tensor>>, usize) = (Vec::new(), 0);
    for tensor in tensors {
        let (flat, size) = (tensor.reshape(&[tensor.len()]), tensor.dtype.size());
        let mut from = 0;
        while from < flat.len() {
            if room < size {
                out.push(Vec::new());
                room = PIECE;
            }
            let to = flat.len().min(from + room / size);
            if let Some(run) = out.last_mut() {
                run.push(flat.slice(from, to));
            }
            (room, from) = (room - (to - from) * size, to);
        }
    }
    out
}

/// The bytes of tensors, one after another.
fn read(dev: &mut Device, tensors: &[Tensor]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes(tensors) as usize);
    tensors.iter().try_for_each(|&tensor| dev.read_bytes(tensor).map(|bytes| out.extend(bytes)))?;
    Ok(out)
}

impl Ranks for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.links.len()
    }

    fn name(&self, rank: usize) -> String {
        self.plane.name(rank)
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn gather(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.collective(what, |tcp, number| {
            let own = Arc::new(bytes.to_vec());
            for peer in tcp.others() {
                tcp.announce(peer, number, what, own.len() as u64)?;
                tcp.queue(peer, own.clone())?;
            }
            let mut all = vec![Vec::new(); tcp.links.len()];
            all[tcp.rank] = bytes.to_vec();
            for peer in tcp.others() {
                let len = tcp.header(peer, number, what)?;
                let read = (&tcp.link(peer).stream).take(len).read_to_end(&mut all[peer]);
                let short = |read: usize| (read as u64 != len).then(|| std::io::ErrorKind::UnexpectedEof.into());
                match read.map(short) {
                    Ok(None) => {}
                    Ok(Some(error)) | Err(error) => return Err(Trouble::Link(peer, error)),
                }
            }
            Ok(all)
        })
    }

    fn await_all(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.timed = false;
        let all = self.gather(what, bytes);
        self.timed = true;
        all
    }

    fn exchange(
        &mut self,
        dev: &mut Device,
        what: &'static str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
    ) -> Result<()> {
        self.collective(what, |tcp, number| {
            send[tcp.rank].iter().zip(&recv[tcp.rank]).try_for_each(|(from, to)| dev.copy(*from, *to))?;
            tcp.pieces(dev, number, what, send, recv)
        })
    }

    fn all_gather(&mut self, dev: &mut Device, what: &'static str, owned: &[(usize, Tensor)]) -> Result<()> {
        self.collective(what, |tcp, number| {
            let mut recv = vec![Vec::new(); tcp.links.len()];
            owned.iter().for_each(|(owner, tensor)| recv[*owner].push(*tensor));
            let send = vec![recv[tcp.rank].clone(); tcp.links.len()];
            tcp.pieces(dev, number, what, &send, &recv)
        })
    }

    fn leave(&mut self, outcome: std::result::Result<(), &Error>) -> Result<()> {
        match outcome {
            Ok(()) | Err(Error::Stopped) => {
                self.gather("goodbye", &[])?;
                self.plane.goodbye()
            }
            Err(error) => {
                let (name, text) = (self.plane.name(self.rank), error.to_string());
                let report = || self.plane.report(format!("{name} has ended: {text}"), error.exit_code());
                let said = self.plane.check().err().unwrap_or_else(report);
                self.plane.last_word();
                match &said {
                    Error::Rank { what, told: true, .. } if what.contains(&text) => Ok(()),
                    _ => Err(said),
                }
            }
        }
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.plane.close();
    }
}

impl Link {
    fn new(stream: TcpStream) -> Result<Link> {
        let (queue, parts) = mpsc::channel::<Arc<Vec<u8>>>();
        let mut to = stream.try_clone().map_err(failed)?;
        let send = move || {
            use std::io::Write;
            // Who reads finds out what became of the connection.
            let _ = parts.iter().try_for_each(|part| to.write_all(&part));
        };
        std::thread::Builder::new().name("send".to_owned()).spawn(send).map_err(failed)?;
        Ok(Link { stream, queue })
    }
}

fn meet(start: &Start, within: Duration) -> Result<Met> {
    let (place, config) = (start.place, start.config);
    let port = match config.port.map(|port| port as u16).or(place.port) {
        Some(port) => port,
        None => {
            let expected = "a port of rank 0's machine, here or as dist.port";
            return Err(Error::input("the environment's MASTER_PORT", "nothing", expected));
        }
    };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "unnamed host".to_owned() } else { host.trim().to_owned() };
    let address = (std::net::Ipv4Addr::UNSPECIFIED, port).into();
    let member = Member { host, pid: std::process::id(), address };
    let program = start.program.clone();
    let (run, round) = (place.run.clone(), place.round);
    let own = Greeting { program, run, round, size: place.size, rank: place.rank, member };
    if place.rank != 0 {
        let (address, heartbeat) =
            (Address { host: &place.address, port }, Duration::from_secs_f64(config.heartbeat_s));
        return meet::greet(address, own, start.secret, within, heartbeat, start.waiting);
    }
    let listener = match &start.listener {
        Some(listener) => listener.try_clone().map_err(failed)?,
        None => meet::listen(place, port)?,
    };
    meet::receive(listener, &own, start.secret.key()?, within, start.waiting)
}

fn failed(error: std::io::Error) -> Error {
    Error::Failed(format!("the connections between ranks: {error}"))
}
