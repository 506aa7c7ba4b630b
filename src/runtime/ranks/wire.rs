//! The messages between ranks: control messages in JSON, and the headers before the bytes of collectives.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Maximum size of a control message in bytes. It is large enough for a table of thousands of ranks.
const LONGEST: usize = 1 << 20;

/// Maximum length of a collective's name in bytes.
const NAME: usize = 255;

/// The process of a rank and its network address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Name of the machine.
    pub host: String,
    /// Process id on that machine.
    pub pid: u32,
    /// Address at which other ranks connect to this rank.
    pub address: SocketAddr,
}

/// The first message of a rank. All fields except `rank` and `member` must be the same on all ranks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// Version and hash of the program.
    pub program: String,
    /// Name that the launcher gives to the run.
    pub run: String,
    /// Number of times the run was restarted.
    pub round: u64,
    /// Number of ranks of the run.
    pub size: usize,
    /// The rank that sends the greeting.
    pub rank: usize,
    /// Process and address of that rank.
    pub member: Member,
}

/// The collective that a rank is in, or the last one it was in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct At {
    /// Number of collectives the rank has entered, including this one.
    pub number: u64,
    /// Name of the collective. Empty before the first one.
    pub what: String,
    /// True while the rank is in the collective.
    pub inside: bool,
    /// True if waiting too long in this collective ends the run.
    pub timed: bool,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.number, self.inside) {
            (0, _) => f.write_str("before the first collective"),
            (number, true) => write!(f, "in {:?} (collective {number})", self.what),
            (number, false) => write!(f, "after {:?} (collective {number})", self.what),
        }
    }
}

/// A message on a control connection. Each control connection is between rank 0 and one other rank.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// First message of a rank to rank 0.
    Greeting(Greeting),
    /// Sent by rank 0: the greeting was rejected.
    Refused {
        /// Reason of the rejection.
        why: String,
        /// True if a later attempt may succeed, because this rank 0 belongs to an earlier round of restarts, or to
        /// another run, and will end.
        again: bool,
    },
    /// Sent by rank 0 when all ranks have connected.
    Table {
        /// Number that identifies this run. The first message of each connection for collectives contains it.
        token: u64,
        /// Process and address of each rank, by rank.
        members: Vec<Member>,
    },
    /// Opens a connection for collectives between two ranks.
    Link {
        /// Token that the rank received in the table.
        token: u64,
        /// The rank that connects.
        rank: usize,
    },
    /// A heartbeat.
    Beat {
        /// Position of the rank in the run.
        at: At,
        /// True after a stop was requested.
        stop: bool,
    },
    /// The run has ended because a rank is lost or failed.
    Fault {
        /// Name of the rank and description of the fault.
        what: String,
        /// Exit status for all ranks.
        exit_code: u8,
    },
    /// Sent to rank 0 by a rank that has finished or has received the fault.
    Goodbye,
    /// Sent by rank 0 after all ranks have finished.
    Over,
}

impl Message {
    /// Sends the complete message.
    pub fn send(&self, mut stream: &TcpStream) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        let len = u32::try_from(text.len()).map_err(io::Error::other)?;
        stream.write_all(&[&len.to_le_bytes()[..], &text].concat())
    }

    /// Waits for the next message, within the stream's timeout. Returns `InvalidData` if the bytes are not a message.
    pub fn receive(mut stream: impl Read) -> io::Result<Message> {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown message from a rank"));
        }
        let mut text = vec![0; len];
        stream.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// A connection whose reads end at a deadline, even if each read returns only a few bytes.
pub struct Until<'a> {
    /// The connection.
    pub stream: &'a TcpStream,
    /// Time at which reading ends.
    pub deadline: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut stream = self.stream;
        stream.read(bytes)
    }
}

/// The header before the bytes of a collective.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Number of collectives the sender has entered, including this one.
    pub number: u64,
    /// Number of bytes that follow.
    pub bytes: u64,
    /// Name of the collective.
    pub what: String,
}

impl Header {
    /// Encodes the header: number (8 bytes), bytes (8 bytes), length of the name (1 byte), all little-endian, then the
    /// name.
    pub fn encode(&self) -> Vec<u8> {
        let name = &self.what.as_bytes()[..self.what.len().min(NAME)];
        [&self.number.to_le_bytes()[..], &self.bytes.to_le_bytes(), &[name.len() as u8], name].concat()
    }

    /// Reads one header.
    pub fn read(mut from: impl Read) -> io::Result<Header> {
        let (mut number, mut bytes, mut len) = ([0; 8], [0; 8], [0; 1]);
        from.read_exact(&mut number)?;
        from.read_exact(&mut bytes)?;
        from.read_exact(&mut len)?;
        let mut name = vec![0; len[0].into()];
        from.read_exact(&mut name)?;
        let what = String::from_utf8_lossy(&name).into_owned();
        Ok(Header { number: u64::from_le_bytes(number), bytes: u64::from_le_bytes(bytes), what })
    }
}
