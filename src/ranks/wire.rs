//! What ranks say to each other: control messages as JSON, and the frames that collectives' bytes go in.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// Longest control message: the table of thousands of ranks.
const LONGEST: usize = 1 << 20;

/// Longest name of a collective.
const NAME: usize = 255;

/// Where a rank is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its machine's name.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// Where other ranks reach it.
    pub address: SocketAddr,
}

/// What a rank says first. All but rank and place must be alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// Which program: version and hash.
    pub program: String,
    /// What its launcher calls the run.
    pub run: String,
    /// How often the run was started again.
    pub round: u64,
    /// Ranks of the run.
    pub size: usize,
    /// The rank that greets.
    pub rank: usize,
    /// Where it is.
    pub member: Member,
}

/// The collective a rank is in, or was in last.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct At {
    /// Collectives it has come to, this one included.
    pub number: u64,
    /// Its name, empty before the first.
    pub what: String,
    /// True while it is in it.
    pub inside: bool,
    /// Whether it ends the run to wait there for too long.
    pub timed: bool,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.number, self.inside) {
            (0, _) => f.write_str("before the first collective"),
            (number, true) => write!(f, "in {:?} (collective {number})", self.what),
            (number, false) => write!(f, "behind {:?} (collective {number})", self.what),
        }
    }
}

/// A message of the control connections, all of them between rank 0 and another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// To rank 0, first.
    Greeting(Greeting),
    /// From rank 0: not with this one.
    Refused {
        /// Why.
        why: String,
        /// True where asking again may do: rank 0 is the one of an earlier round and about to end.
        again: bool,
    },
    /// From rank 0, once all are there.
    Table {
        /// What connections of this run begin with.
        token: u64,
        /// Where everybody is, by rank.
        members: Vec<Member>,
    },
    /// Opens a connection for collectives between two ranks.
    Link {
        /// The table's.
        token: u64,
        /// Who connects.
        rank: usize,
    },
    /// Still there.
    Beat {
        /// Where in the run.
        at: At,
        /// True once somebody asked the run to stop.
        stop: bool,
    },
    /// The run is over: a rank is lost or failed.
    Fault {
        /// Which, and what became of it.
        what: String,
        /// The exit status of all.
        exit_code: u8,
    },
    /// To rank 0: this rank is done, or has heard of the fault.
    Goodbye,
    /// From rank 0: all are done.
    Over,
}

impl Message {
    /// Sends it whole.
    pub fn send(&self, mut stream: &TcpStream) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        let mut bytes = u32::try_from(text.len()).map_err(io::Error::other)?.to_le_bytes().to_vec();
        bytes.extend_from_slice(&text);
        stream.write_all(&bytes)
    }

    /// Waits for the next one, as long as the stream's time-out allows. `InvalidData` is what is none.
    pub fn receive(mut stream: impl Read) -> io::Result<Message> {
        let mut len = [0; 4];
        stream.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no message of a rank"));
        }
        let mut text = vec![0; len];
        stream.read_exact(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// A connection whose reads are over at a deadline, however few bytes each of them brings.
pub struct Until<'a> {
    /// The connection.
    pub stream: &'a TcpStream,
    /// When reading ends.
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

/// What stands before a collective's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Collectives the sender has come to, this one included.
    pub number: u64,
    /// Bytes that follow.
    pub bytes: u64,
    /// The collective.
    pub what: String,
}

impl Header {
    /// As it is sent: number, bytes and the name's length as 8, 8 and 1 bytes, little-endian; the name.
    pub fn encode(&self) -> Vec<u8> {
        let name = &self.what.as_bytes()[..self.what.len().min(NAME)];
        let mut out = self.number.to_le_bytes().to_vec();
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.push(name.len() as u8);
        out.extend_from_slice(name);
        out
    }

    /// Reads one.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_is_not_read_in_part() {
        let header = Header { number: 7, bytes: 1 << 40, what: "losses".to_owned() };
        let bytes = header.encode();
        assert_eq!(Header::read(&bytes[..]).unwrap(), header);
        assert!((0..bytes.len()).all(|len| Header::read(&bytes[..len]).is_err()));
    }
}
